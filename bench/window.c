/* window.c -- rows to their experts' GPUs and back through windows, beside NCCL's all-to-all of the
 * same bytes.
 *
 *   mpirun -n 2 build/cuda-nccl-mpi/bench/window
 *
 * Of each rank's tokens (2048 bf16 wide, 8 of 64 experts drawn alike) those wanted elsewhere
 * travel, once to each rank; "out" is from the router's choices to rows that lie in order with
 * their choices and gates, "back" from the experts' sums to the sum at home.  GB/s are of the rows
 * that leave a GPU and nothing else.  Beside it ncclAlltoAll of as many bytes over memory
 * registered as symmetric windows, and comm_all_to_all().  One JSON object a line, the median of
 * ROUNDS rounds of TIMES calls. */
#include "bench.h"

#include "comm/comm.h"

#include <nccl.h>
#include <stdlib.h>

enum { TIMES = 20, ROUNDS = 7, D = 2048, K = 8, EXPERTS = 64 };

static struct lane lane;
static struct comm *all;
static int n_ranks, me;

static void check(ncclResult_t r)
{
    if (r != ncclSuccess)
        die("%s", ncclGetErrorString(r));
}

/* ---- what is timed ---- */

static ncclComm_t nccl;
static char *in, *out; /* symmetric */
static int64_t each;   /* bytes from a rank to a rank */
static struct window *window;
static struct window_rows rows;
static struct window_part go[3], come[1];

static void nccl_all_to_all(void)
{
    check(ncclAlltoAll(in, out, (size_t)each, ncclInt8, nccl, lane.dev->queue(&lane)));
}

static void comm_exchange(void)
{
    int64_t count[64];
    for (int i = 0; i < n_ranks; i++)
        count[i] = each / (D * 2);
    comm_all_to_all(all, &lane, out, count, in, count, D * 2);
}

static void rows_out(void)
{
    window_out(window, &lane, &rows, go, ARRAY_LEN(go));
}

static void rows_back(void)
{
    window_back(window, &lane, &rows, come, ARRAY_LEN(come));
}

static void there_and_back(void)
{
    rows_out();
    rows_back();
}

static void measure(const char *call, void (*run)(void), double sent)
{
    double took[ROUNDS];
    struct event beg = {.timed = 1}, end = {.timed = 1};
    for (int i = 0; i < 5; i++)
        run();
    for (int r = 0; r < ROUNDS; r++) {
        lane.dev->wait(&lane);
        comm_barrier(all);
        lane.dev->record(&lane, &beg);
        for (int j = 0; j < TIMES; j++)
            run();
        lane.dev->record(&lane, &end);
        lane.dev->wait(&lane);
        took[r] = lane.dev->elapsed(&beg, &end) / TIMES;
    }
    double s = median(took, ROUNDS);
    if (me == 0)
        printf("{\"call\":\"%s\",\"sent_MB\":%.1f,\"us\":%.1f,\"GBps_sent\":%.1f}\n", call,
               sent * 1e-6, s * 1e6, sent / s * 1e-9);
    fflush(stdout);
    lane.dev->event_free(&beg), lane.dev->event_free(&end);
}

/* K different experts for each of n tokens, on the device; returns how many rows leave this rank.
 */
static int64_t draw(int32_t *index, int64_t n)
{
    int32_t *host = xmalloc((size_t)(n * K) * sizeof *host);
    int64_t el = EXPERTS / n_ranks, leave = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t seen = 0, at = 0;
        for (int64_t e = 0; e < EXPERTS; e++) /* each set of K alike */
            if (rng_uniform((uint64_t)me, (uint64_t)i, (uint64_t)e) * (double)(EXPERTS - e) <
                (double)(K - at))
                host[i * K + at++] = (int32_t)e;
        for (int64_t j = 0; j < K; j++)
            seen |= (int64_t)1 << (host[i * K + j] / el);
        for (int r = 0; r < n_ranks; r++)
            leave += r != me && (seen >> r & 1);
    }
    lane.dev->put(&lane, index, host, n * K * (int64_t)sizeof *host);
    lane.dev->wait(&lane);
    free(host);
    return leave;
}

int main(void)
{
    static const int64_t mib[] = {4, 16, 64, 256};
    int ranks[64];
    tool_name = "bench/window";
    struct world *w = world_open(60);
    n_ranks = world_size(w), me = world_rank(w);
    if (dev_missing("cuda") || n_ranks == 1) {
        printf("bench/window: skipped: %s\n", n_ranks == 1 ? "one rank" : dev_missing("cuda"));
        return 0;
    }
    for (int i = 0; i < n_ranks; i++)
        ranks[i] = i;
    lane_init(&lane, dev_open("cuda"), 1);
    all = comm_new(w, "all", ranks, n_ranks);

    ncclUniqueId id;
    ncclWindow_t registered[2];
    int version;
    size_t most = (size_t)mib[ARRAY_LEN(mib) - 1] << 20;
    if (me == 0)
        check(ncclGetUniqueId(&id));
    comm_broadcast(all, NULL, &id, sizeof id, 0);
    check(ncclCommInitRank(&nccl, n_ranks, id, me));
    check(ncclMemAlloc((void **)&in, most)), check(ncclMemAlloc((void **)&out, most));
    check(ncclCommWindowRegister(nccl, in, most, &registered[0], NCCL_WIN_COLL_SYMMETRIC));
    check(ncclCommWindowRegister(nccl, out, most, &registered[1], NCCL_WIN_COLL_SYMMETRIC));
    check(ncclGetVersion(&version));
    if (me == 0)
        printf("{\"NCCL\":%d,\"ranks\":%d}\n", version, n_ranks);

    int64_t tokens = (int64_t)most / n_ranks / (D * 2), all_tokens = tokens * n_ranks;
    int64_t row_bytes = D * 2 + K * 8;
    const char *why;
    window = window_open(all, &lane, window_half(n_ranks, tokens, row_bytes), &why);
    if (!window)
        die("no windows: %s", why);
    int32_t *index = lane_alloc(&lane, tokens * K * 4, "the benchmark");
    int32_t *there = lane_alloc(&lane, all_tokens * K * 4, "the benchmark");
    float *gate = lane_alloc(&lane, tokens * K * 4, "the benchmark");
    float *gates = lane_alloc(&lane, all_tokens * K * 4, "the benchmark");
    char *x = lane_alloc(&lane, tokens * D * 2, "the benchmark");
    char *y = lane_alloc(&lane, tokens * D * 2, "the benchmark");
    char *got = lane_alloc(&lane, all_tokens * D * 2, "the benchmark");
    for (int64_t i = 0; i < ARRAY_LEN(mib); i++) {
        each = (mib[i] << 20) / n_ranks;
        measure("ncclAlltoAll over windows", nccl_all_to_all, (double)(each * (n_ranks - 1)));
        measure("comm_all_to_all", comm_exchange, (double)(each * (n_ranks - 1)));
        int64_t n = each / (D * 2);
        double sent = (double)draw(index, n) * D * 2;
        rows = (struct window_rows){index, NULL, n, K, EXPERTS / n_ranks, 1};
        go[0] = (struct window_part){got, x, NULL, D, DT_BF16};
        go[1] = (struct window_part){there, index, NULL, K, DT_I32};
        go[2] = (struct window_part){gates, gate, NULL, K, DT_F32};
        come[0] = (struct window_part){y, got, x, D, DT_BF16};
        measure("out", rows_out, sent);
        rows.there = there;
        measure("back", rows_back, sent);
        measure("out and back", there_and_back, 2 * sent);
    }
    lane.dev->wait(&lane);
    window_close(window);
    void *taken[] = {index, there, gate, gates, x, y, got};
    for (int64_t i = 0; i < ARRAY_LEN(taken); i++)
        lane.dev->free(taken[i]);
    for (int i = 0; i < 2; i++)
        check(ncclCommWindowDeregister(nccl, registered[i]));
    check(ncclMemFree(in)), check(ncclMemFree(out)), check(ncclCommDestroy(nccl));
    comm_free(all);
    world_free(w);
    lane_release(&lane);
    return 0;
}
