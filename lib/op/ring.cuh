/* ring.cuh -- tiles from memory to wgmma through a ring of stages in shared memory: one warpgroup
 * copies, two compute.
 *
 * A copy is announced LAG stages after it was started, so that a copying thread always has that
 * many in flight.  Whoever waits for stage i of the ring may hold at most stages i - 1 and i, which
 * LAG leaves room for. */
#ifndef RING_CUH
#define RING_CUH

#include "ptx.cuh"
#include "swizzle.cuh"

enum { STAGES = 4, LAG = 2, COPIERS = 128, COMPUTERS = 256, ROLES = COPIERS + COMPUTERS };
enum { COPIER_REGISTERS = 72, COMPUTER_REGISTERS = 216 };

struct ring {
    uint64_t full[STAGES], empty[STAGES];
};

static __device__ __forceinline__ void ring_init(struct ring *r)
{
    if (threadIdx.x == 0)
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&r->full[i], COPIERS);
            barrier_init(&r->empty[i], COMPUTERS / 32);
        }
    fence_async();
    __syncthreads();
}

/* The copier's next stage, once it is free; after its copies, ring_put(). */
static __device__ __forceinline__ int ring_space(struct ring *r, int i)
{
    barrier_wait(&r->empty[i % STAGES], (i / STAGES & 1) ^ 1);
    return i % STAGES;
}
static __device__ __forceinline__ int ring_put(struct ring *r, int i)
{
    copies_commit();
    if (i >= LAG) {
        copies_wait<LAG>();
        fence_async();
        barrier_arrive(&r->full[(i - LAG) % STAGES]);
    }
    return i + 1;
}
static __device__ __forceinline__ void ring_end(struct ring *r, int i)
{
    copies_wait<0>();
    fence_async();
    for (int j = i < LAG ? 0 : i - LAG; j < i; j++)
        barrier_arrive(&r->full[j % STAGES]);
}

/* The computers' stage i, once it is filled; ring_free() when all of a warp's reads of it are over.
 */
static __device__ __forceinline__ int ring_get(struct ring *r, int i)
{
    barrier_wait(&r->full[i % STAGES], i / STAGES & 1);
    return i % STAGES;
}
static __device__ __forceinline__ void ring_free(struct ring *r, int i)
{
    if (threadIdx.x % 32 == 0)
        barrier_arrive(&r->empty[i % STAGES]);
}

/* rows x 64 BLOCKS elements from rows ld apart, by 128 threads, thread p; rows from live on are
 * zeros. */
template <int ROWS, int BLOCKS>
static __device__ __forceinline__ void copy_tile(uint32_t tile, const bf16 *from, int64_t ld,
                                                 int live, int p)
{
    const bf16 *row = from + (p / 8) * ld + (p % 8) * 8;
    uint32_t to = tile + swizzled(p / 8, p % 8);
#pragma unroll
    for (int i = 0; i < ROWS / 16; i++)
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            int there = p / 8 + i * 16 < live;
            copy16(to + b * ROWS * 128 + i * 2048, there ? row + i * 16 * ld + b * 64 : from,
                   there ? 16 : 0);
        }
}

#endif
