/* window_nccl.cu -- rows written straight into the memory of other GPUs (comm.h, windows).
 *
 * A window is memory that NCCL has made readable and writable by every member.  Rows are written into
 * those of the others, and taken out of this rank's as flags tell that they are there
 * (window_move.cuh); so the host knows nothing of counts.
 *
 * Flags only rise: the number of the movement, then of the rows.  A movement is numbered on the
 * device, so that a captured one can be repeated.  Odd and even ones have a half of the window
 * each: a rank that writes into a half again has seen all flags of the movement between, and who
 * raised them was done with the half.  A block waits for the same block of the others only, and
 * those of a kernel come in order, so all of them come though not all fit at once. */
#include "comm/window_move.cuh"
extern "C" {
#include "comm/far.h"
}

#include <nccl_device.h>
#include <stdlib.h>

struct window {
    struct comm *comm;
    ncclComm_t nccl;
    ncclWindow_t handle;
    char *memory, *peer[RANKS];
    int64_t half;
    struct turn *turn;
};

static __global__ void find_peers(ncclWindow_t handle, int ranks, char **peer)
{
    for (int r = 0; r < ranks; r++)
        peer[r] = (char *)ncclGetLsaPointer(handle, 0, r);
}

int64_t window_half(int64_t ranks, int64_t n, int64_t row_bytes)
{
    return ranks > RANKS ? 0 : (ranks * n * row_bytes + PARTS * 256 + 4095) / 4096 * 4096;
}

int64_t window_bytes(int64_t half)
{
    return half ? HEAD + 2 * half : 0;
}

static void nccl_ok(ncclResult_t r, const struct comm *c, const char *call)
{
    if (r != ncclSuccess)
        die("rank %d: group %s of %d: %s: %s", c->world->rank, c->name, c->size, call,
            ncclGetErrorString(r));
}

static void cuda_ok(cudaError_t e, const char *call)
{
    if (e != cudaSuccess)
        die("windows: %s: %s", call, cudaGetErrorString(e));
}

/* Whether the pointers lead to the others' windows: each has left its number in its own. */
static int reachable(struct window *w, struct lane *l)
{
    struct comm *c = w->comm;
    char **peer;
    int there = w->handle != NULL, mine = c->rank + 1;
    cuda_ok(cudaMemcpy(w->memory, &mine, sizeof mine, cudaMemcpyHostToDevice), "cudaMemcpy");
    cuda_ok(cudaDeviceSynchronize(), "cudaMemcpy");
    comm_barrier(c);
    if (there) {
        cuda_ok(cudaMalloc((void **)&peer, sizeof w->peer), "cudaMalloc");
        find_peers<<<1, 1, 0, stream(l)>>>(w->handle, c->size, peer);
        cuda_ok(cudaStreamSynchronize(stream(l)), "ncclGetLsaPointer");
        cuda_ok(
            cudaMemcpy(w->peer, peer, (size_t)c->size * sizeof *w->peer, cudaMemcpyDeviceToHost),
            "cudaMemcpy");
        cuda_ok(cudaFree(peer), "cudaFree");
    }
    for (int r = 0; there && r < c->size; r++) {
        int theirs = 0;
        there =
            cudaMemcpy(&theirs, w->peer[r], sizeof theirs, cudaMemcpyDeviceToHost) == cudaSuccess &&
            theirs == r + 1;
    }
    cudaGetLastError(); /* it has been dealt with */
    int64_t missing = !there;
    comm_all_reduce(c, NULL, &missing, 1, DT_I64, COMM_MAX);
    cuda_ok(cudaMemset(w->memory, 0, HEAD), "cudaMemset");
    cuda_ok(cudaDeviceSynchronize(), "cudaMemset");
    comm_barrier(c);
    return !missing;
}

struct window *window_open(struct comm *c, struct lane *l, int64_t half, const char **why)
{
    int version = 0;
    nccl_ok(ncclGetVersion(&version), c, "ncclGetVersion");
    *why = c->size > RANKS                    ? "the group has more than 8 ranks"
           : !c->far || l->dev->is_host       ? "its memory is the host's"
           : world_local(c->world) < c->size  ? "its ranks are on several machines"
           : version < NCCL_VERSION(2, 28, 0) ? "NCCL is older than 2.28"
                                              : NULL;
    if (*why)
        return NULL;
    struct window *w = (struct window *)xcalloc(1, sizeof *w);
    w->comm = c;
    w->half = half;
    w->nccl = far_clique(c, l);
    nccl_ok(ncclMemAlloc((void **)&w->memory, (size_t)window_bytes(half)), c, "ncclMemAlloc");
    nccl_ok(ncclCommWindowRegister(w->nccl, w->memory, (size_t)window_bytes(half), &w->handle,
                                   NCCL_WIN_COLL_SYMMETRIC),
            c, "ncclCommWindowRegister");
    cuda_ok(cudaMalloc((void **)&w->turn, sizeof *w->turn), "cudaMalloc");
    cuda_ok(cudaMemset(w->turn, 0, sizeof *w->turn), "cudaMemset");
    if (reachable(w, l))
        return w;
    *why = "its GPUs cannot write to each other's memory";
    window_close(w);
    return NULL;
}

void window_close(struct window *w)
{
    if (!w)
        return;
    cuda_ok(cudaDeviceSynchronize(), "what was queued");
    if (w->handle)
        nccl_ok(ncclCommWindowDeregister(w->nccl, w->handle), w->comm, "ncclCommWindowDeregister");
    nccl_ok(ncclMemFree(w->memory), w->comm, "ncclMemFree");
    cuda_ok(cudaFree(w->turn), "cudaFree");
    free(w);
}

static void launch(struct window *w, struct lane *l, void (*kernel)(const movement),
                   const struct window_rows *rows, const struct window_part *part, int parts,
                   const char *call)
{
    struct movement m = {};
    int64_t at = 0;
    for (int r = 0; r < w->comm->size; r++)
        m.peer[r] = w->peer[r];
    m.me = w->comm->rank, m.ranks = w->comm->size, m.share = rows->share, m.parts = parts;
    m.n = rows->n, m.k = rows->k, m.el = rows->el, m.half = w->half;
    m.index = rows->index, m.there = rows->there, m.turn = w->turn;
    m.chunk = MIN(MAX(rows->n / (WARPS * BLOCKS), 1), 2);
    for (int p = 0; p < parts; p++) {
        int64_t bytes = part[p].cols * dtype_size(part[p].type);
        m.part[p] = (struct part){
            (char *)part[p].out,    (const char *)part[p].in, (const char *)part[p].res, bytes, at,
            part[p].type == DT_BF16};
        at += (m.ranks * m.n * bytes + 255) / 256 * 256;
    }
    if (at > w->half)
        die("%s: %lld bytes in a window of %lld", call, (long long)at, (long long)w->half);
    if (!m.n)
        return;
    kernel<<<BLOCKS, 64 * WARPS, 0, stream(l)>>>(m);
    cuda_ok(cudaGetLastError(), call);
    far_queued(w->comm, stream(l), call);
}

void window_out(struct window *w, struct lane *l, const struct window_rows *rows,
                const struct window_part *part, int parts)
{
    launch(w, l, move_kernel<to_experts>, rows, part, parts, "window_out");
}

void window_back(struct window *w, struct lane *l, const struct window_rows *rows,
                 const struct window_part *part, int parts)
{
    launch(w, l, move_kernel<to_home>, rows, part, parts, "window_back");
}
