/* stages.cuh -- tiles from memory to wgmma through stages in shared memory: one warp fills them,
 * two warpgroups take turns in emptying them.
 *
 * The two computing warpgroups have a tile each, so that one multiplies while the other sees to
 * what becomes of its sums.  Copies announce themselves to the stage's barrier when they are there,
 * boxes of the copy engine by their bytes and copies of 16 bytes by their threads, so that whoever
 * fills runs ahead as far as there are stages. */
#ifndef STAGES_CUH
#define STAGES_CUH

#include "ptx.cuh"
#include "swizzle.cuh"

#include <cudaTypedefs.h>

enum { FILLERS = 128, TAKERS = 128, ROLES = FILLERS + 2 * TAKERS };
enum { FILLER_REGISTERS = 40, TAKER_REGISTERS = 232 };

template <int S>
struct stages {
    uint64_t full[S], empty[S];
};

/* fillers: arrivals that announce a stage; takers: warpgroups that each empty it.  BLOCKS: of a
 * cluster, that fill each other's stages and so free them in all. */
template <int BLOCKS, int S>
static __device__ __forceinline__ void stages_init(struct stages<S> *s, int fillers, int takers)
{
    if (threadIdx.x == 0)
        for (int i = 0; i < S; i++) {
            barrier_init(&s->full[i], fillers);
            barrier_init(&s->empty[i], TAKERS / 32 * takers * BLOCKS);
        }
    fence_async();
    if (BLOCKS > 1)
        cluster_sync();
    else
        __syncthreads();
}

/* Of the filler: stage number i once it is free. */
template <int S>
static __device__ __forceinline__ int stage_space(struct stages<S> *s, int i)
{
    barrier_wait(&s->empty[i % S], (i / S & 1) ^ 1);
    return i % S;
}

/* Of a taker: stage number i once it is filled; free when all of a warp's reads of it are over. */
template <int S>
static __device__ __forceinline__ int stage_get(struct stages<S> *s, int i)
{
    barrier_wait(&s->full[i % S], i / S & 1);
    return i % S;
}
template <int BLOCKS, int S>
static __device__ __forceinline__ void stage_free(struct stages<S> *s, int i)
{
    int lane = threadIdx.x % 32;
    if (BLOCKS == 1 && lane == 0)
        barrier_arrive(&s->empty[i % S]);
    if (BLOCKS > 1 && lane < BLOCKS)
        barrier_arrive_at(&s->empty[i % S], lane);
}

/* The two warpgroups of takers, 0 and 1, multiply in turn. */
static __device__ __forceinline__ void turn_wait(int taker)
{
    named_sync(1 + taker, 2 * TAKERS);
}
static __device__ __forceinline__ void turn_pass(int taker)
{
    named_arrive(2 - taker, 2 * TAKERS);
}

/* A bf16 tensor of size (z,y,x), x dense and the others `stride` bytes apart, for boxes of
 * (box z, box y, 64), swizzled. */
static inline CUtensorMap box_map(const void *p, const cuuint64_t size[3],
                                  const cuuint64_t stride[2], int box_y, int box_z)
{
    static PFN_cuTensorMapEncodeTiled_v12000 encode;
    cudaDriverEntryPointQueryResult found;
    CUtensorMap map;
    cuuint32_t shape[3] = {64, (cuuint32_t)box_y, (cuuint32_t)box_z}, step[3] = {1, 1, 1};
    if (!encode)
        cu(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000,
                                            cudaEnableDefault, &found));
    if (encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)p, size, stride, shape, step,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
        die("no tensor map for %lld x %lld x %lld", (long long)size[2], (long long)size[1],
            (long long)size[0]);
    return map;
}
/* A matrix (rows,cols) as an operand with K along its columns: boxes of `box` rows and 64 columns;
 * or along its rows: of `box` rows and `blocks` blocks of 64 columns, one after the other. */
static inline CUtensorMap rows_map(const void *p, int64_t rows, int64_t cols, int box)
{
    cuuint64_t size[3] = {(cuuint64_t)cols, (cuuint64_t)rows, 1};
    cuuint64_t stride[2] = {(cuuint64_t)cols * 2, (cuuint64_t)cols * 2};
    return box_map(p, size, stride, box, 1);
}
static inline CUtensorMap blocks_map(const void *p, int64_t rows, int64_t cols, int box, int blocks)
{
    cuuint64_t size[3] = {64, (cuuint64_t)rows, (cuuint64_t)cols / 64};
    cuuint64_t stride[2] = {(cuuint64_t)cols * 2, 128};
    return box_map(p, size, stride, box, blocks);
}

#endif
