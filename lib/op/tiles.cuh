/* tiles.cuh -- queries of all spans cut into tiles of 128 on the device, for the attention kernels.
 */
#ifndef TILES_CUH
#define TILES_CUH

#include "attn.cuh"
#include "ring.cuh"

enum { TILE_Q = 128 };

/* at (spans+1): tiles before each span.  One block; a thread's stretch of spans at a time. */
static __global__ void tiles_kernel(int32_t *at, struct spans s)
{
    __shared__ int32_t sums[1024];
    int n = (int)s.n, per = (n + 1023) / 1024, beg = MIN(n, (int)threadIdx.x * per),
        end = MIN(n, beg + per);
    int32_t sum = 0;
    for (int i = beg; i < end; i++)
        sum += (s.q_at[i + 1] - s.q_at[i] + TILE_Q - 1) / TILE_Q;
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int step = 1; step < 1024; step *= 2) {
        int32_t before = (int)threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
    sum = threadIdx.x ? sums[threadIdx.x - 1] : 0;
    for (int i = beg; i < end; i++) {
        at[i] = sum;
        sum += (s.q_at[i + 1] - s.q_at[i] + TILE_Q - 1) / TILE_Q;
    }
    if (threadIdx.x == 1023)
        at[n] = sums[1023];
}

/* In scratch of the lane. */
static inline int32_t *tiles_cut(struct lane *l, struct spans s)
{
    int32_t *at = (int32_t *)arena_take(&l->scratch, (s.n + 1) * (int64_t)sizeof *at);
    tiles_kernel<<<1, 1024, 0, stream(l)>>>(at, s);
    launched("attn", "%lld", (long long)s.n);
    return at;
}

struct q_tile {
    int head, t0, t_end; /* queries t0 .. t0 + 128, those before t_end */
    int k_beg, k_end;    /* keys that any of them sees */
    int limit;           /* query t sees keys before limit + t */
};

/* Item i of all (tile, head), the last tiles first, since those of a long span see the most keys.
 */
static __device__ __forceinline__ q_tile q_tile_at(const int32_t *at, const spans &s,
                                                   const heads &x, int64_t items, int64_t i)
{
    int64_t tile = (items - 1 - i) / x.h;
    spans cut = {at, NULL, NULL, s.n};
    int span = span_of(cut, tile);
    q_tile q;
    q.head = (int)((items - 1 - i) % x.h);
    q.t0 = s.q_at[span] + (int)(tile - at[span]) * TILE_Q;
    q.t_end = s.q_at[span + 1];
    q.limit = s.k_end[span] - (q.t_end - 1);
    q.k_beg = s.k_beg[span];
    q.k_end = MAX(q.k_beg, q.limit + MIN(q.t0 + TILE_Q, q.t_end) - 1);
    return q;
}

/* Whether heads and rows can be copied 16 bytes at a time, and a head is 64 or 128 wide. */
static inline int whole_heads(const struct heads &x, const void *q, const void *k, const void *v,
                              const void *o)
{
    return (x.c == 64 || x.c == 128) && x.ldq % 8 == 0 && x.ldk % 8 == 0 &&
           ((uintptr_t)q | (uintptr_t)k | (uintptr_t)v | (uintptr_t)o) % 16 == 0;
}

/* The rows of one warpgroup, 64 of C, by its own threads; barrier `id` is its. */
template <int BLOCKS>
static __device__ __forceinline__ void load_own(char *tile, const bf16 *from, int64_t ld, int live)
{
    copy_tile<64, BLOCKS>(shared_addr(tile), from, ld, live, threadIdx.x % 128);
}
static __device__ __forceinline__ void own_ready(int id)
{
    copies_commit();
    copies_wait<0>();
    fence_async();
    named_sync(id, 128);
}

#endif
