/* comm_misuse.c -- calls that do not fit one another: ranks as threads must end in words that name
 * the group, the ranks and the calls. */
#include "child.h"
#include "comm/comm.h"
#include "tap.h"

static const int both[] = {0, 1};

static void mix_calls(struct world *w, void *arg)
{
    struct comm *c = comm_new(w, "dp", both, 2);
    float x[2] = {0};
    if (world_rank(w))
        comm_all_gather(c, NULL, x, x + 1, 1, DT_F32);
    else
        comm_all_reduce(c, NULL, x, 1, DT_F32, COMM_SUM);
}

static void mix_sizes(struct world *w, void *arg)
{
    struct comm *c = comm_new(w, "dp", both, 2);
    float x[2] = {0};
    comm_all_reduce(c, NULL, x, 1 + world_rank(w), DT_F32, COMM_SUM);
}

static void mix_rows(struct world *w, void *arg)
{
    struct comm *c = comm_new(w, "ep", both, 2);
    char x[8] = {0}, y[8];
    const int64_t out[2] = {1, 1}, in[2] = {1, 1 + world_rank(w)};
    comm_all_to_all(c, NULL, y, in, x, out, 1);
}

static void mix_rows_of_two(struct world *w, void *arg)
{
    struct comm *c = comm_new(w, "ep", both, 2);
    char x[8] = {0}, y[8];
    const int64_t out[2] = {1, 1}, in[2] = {1 + world_rank(w), 1};
    comm_all_to_all(c, NULL, y, in, x, out, 1);
}

static void mix_messages(struct world *w, void *arg)
{
    struct comm *c = comm_new(w, "pp", both, 2);
    char x[8] = {0};
    if (world_rank(w))
        comm_recv(c, NULL, x, 8, 0);
    else
        comm_send(c, NULL, x, 7, 1);
}

static void mix_groups(struct world *w, void *arg)
{
    comm_new(w, world_rank(w) ? "ep" : "tp", both, 2);
}

static void bad_type(struct world *w, void *arg)
{
    comm_all_reduce(comm_new(w, "dp", both, 2), NULL, NULL, 0, DT_BF16, COMM_SUM);
}

static void bad_lane(struct world *w, void *arg)
{
    static const struct dev_ops dev = {.name = "far"};
    comm_all_reduce(comm_new(w, "dp", both, 2), &(struct lane){.dev = &dev}, NULL, 0, DT_F32,
                    COMM_SUM);
}

static void not_in_it(struct world *w, void *arg)
{
    comm_new(w, "tp", both, 1 + (world_rank(w) == 0));
}

struct misuse {
    void (*fn)(struct world *w, void *arg);
    const char *says;
};

static void two_ranks(void *arg)
{
    const struct misuse *m = arg;
    alarm(20); /* a hang is a failure with a signal */
    world_threads(2, m->fn, NULL);
}

int main(void)
{
    static struct misuse cases[] = {
        {mix_calls,
         "group dp: rank 1 calls all_gather (1 F32) where rank 0 calls all_reduce (1 F32)"},
        {mix_sizes,
         "group dp: rank 1 calls all_reduce (2 F32) where rank 0 calls all_reduce (1 F32)"},
        {mix_rows, "group ep: rank 1 sends rank 1 1 rows where it expects 2"},
        {mix_rows_of_two, "group ep: rank 0 sends rank 1 1 rows where it expects 2"},
        {mix_messages, "group pp: rank 0 sent 7 bytes and rank 1 expects 8"},
        {mix_groups, "groups are made in one order"},
        {bad_type, "group dp: all_reduce of BF16 is not supported"},
        {bad_lane, "group dp: ranks as threads need host memory, not far"},
        {not_in_it, "group tp: rank 1 makes it without being in it"},
    };
    tool_name = "comm";
    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ending e = child(two_ranks, &cases[i]);
        if (!ok(e.status == 1 && strstr(e.err, cases[i].says), "dies: %s", cases[i].says))
            printf("# status %d: %s\n", e.status, e.err);
    }
    return finish();
}
