/* comm.c -- how fast the collectives of a step are between GPUs, one a process, through comm.h.
 *
 *   mpirun -n 2 build/cuda-nccl-mpi/bench/comm
 *
 * One JSON object a line: MiB that a rank brings or takes in all, GB/s that leave each GPU, the
 * median of ROUNDS rounds of TIMES calls in a row. */
#include "bench.h"

#include "comm/comm.h"

#include <stdlib.h>

enum { TIMES = 10, ROUNDS = 5 };

static struct lane lane;
static char *in, *out;
static int64_t rows[64];

static void gather(struct comm *c, int64_t bytes) /* in place */
{
    int64_t each = bytes / comm_size(c);
    comm_all_gather(c, &lane, out, out + comm_rank(c) * each, each / 2, DT_BF16);
}

static void scatter(struct comm *c, int64_t bytes)
{
    int64_t each = bytes / comm_size(c);
    comm_reduce_scatter(c, &lane, in + comm_rank(c) * each, in, each / 4, DT_F32);
}

static void reduce(struct comm *c, int64_t bytes)
{
    comm_all_reduce(c, &lane, in, bytes / 4, DT_F32, COMM_SUM);
}

static void exchange(struct comm *c, int64_t bytes)
{
    for (int i = 0; i < comm_size(c); i++)
        rows[i] = bytes / comm_size(c) / 4096;
    comm_all_to_all(c, &lane, out, rows, in, rows, 4096);
}

static const struct {
    const char *name;
    void (*run)(struct comm *c, int64_t bytes);
    int sent; /* times (ranks - 1) / ranks of the bytes that leave a GPU */
} calls[] = {{"all_gather", gather, 1},
             {"reduce_scatter", scatter, 1},
             {"all_reduce", reduce, 2},
             {"all_to_all", exchange, 1}};

int main(void)
{
    static const int64_t mib[] = {1, 16, 64, 256, 1024};
    int all[64];
    tool_name = "bench/comm";
    struct world *w = world_open(60);
    int n = world_size(w);
    if (dev_missing("cuda") || n == 1) {
        printf("bench/comm: skipped: %s\n", n == 1 ? "one rank" : dev_missing("cuda"));
        return 0;
    }
    for (int i = 0; i < n; i++)
        all[i] = i;
    lane_init(&lane, dev_open("cuda"), 1);
    in = lane_alloc(&lane, mib[ARRAY_LEN(mib) - 1] << 20, "the benchmark");
    out = lane_alloc(&lane, mib[ARRAY_LEN(mib) - 1] << 20, "the benchmark");
    struct comm *c = comm_new(w, "all", all, n);
    for (int64_t k = 0; k < ARRAY_LEN(calls); k++)
        for (int64_t i = 0; i < ARRAY_LEN(mib); i++) {
            double took[ROUNDS];
            struct event beg = {.timed = 1}, end = {.timed = 1};
            calls[k].run(c, mib[i] << 20);
            for (int r = 0; r < ROUNDS; r++) {
                comm_barrier(c);
                lane.dev->record(&lane, &beg);
                for (int j = 0; j < TIMES; j++)
                    calls[k].run(c, mib[i] << 20);
                lane.dev->record(&lane, &end);
                lane.dev->wait(&lane);
                took[r] = lane.dev->elapsed(&beg, &end) / TIMES;
            }
            double s = median(took, ROUNDS);
            if (world_rank(w) == 0)
                printf("{\"call\":\"%s\",\"MiB\":%lld,\"us\":%.1f,\"GBps_sent\":%.1f}\n",
                       calls[k].name, (long long)mib[i], s * 1e6,
                       calls[k].sent * (double)(n - 1) / n * (double)(mib[i] << 20) / s * 1e-9);
            lane.dev->event_free(&beg), lane.dev->event_free(&end);
        }
    comm_free(c);
    world_free(w);
    lane_release(&lane);
    return 0;
}
