/* row_map_few.cuh -- the row map of few choices, as in decoding: one block and one launch.
 *
 * A choice's place among those of its expert is counted, and the experts' rows are added up by
 * warps. */
#ifndef ROW_MAP_FEW_CUH
#define ROW_MAP_FEW_CUH

#include "ptx.cuh"
#include "real.cuh"

enum { FEW = 1024 /* choices, and experts */ };

static __global__ void few_map_kernel(int32_t *at, int32_t *count, int32_t *source, int32_t *place,
                                      const int32_t *index, int choices, int first, int e,
                                      int64_t m)
{
    __shared__ int32_t chosen[FEW], rows[FEW], start[FEW]; /* by choice; by expert */
    __shared__ int32_t warp_rows[FEW / 32];
    int i = threadIdx.x, lane = i % 32, rank = 0, before = 0;
    call_and_wait();
    int x = i < choices ? index[i] - first : -1;
    chosen[i] = x >= 0 && x < e ? x : -1;
    rows[i] = 0;
    __syncthreads();
    for (int64_t j = i; j < m; j += FEW)
        source[j] = -1;
    if (chosen[i] >= 0)
        atomicAdd(&rows[chosen[i]], 1);
    for (int j = 0; j < i && i < choices; j++)
        rank += chosen[j] == chosen[i];
    __syncthreads();
    int mine = (rows[i] + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN, sum = mine;
#pragma unroll
    for (int j = 1; j < 32; j *= 2) {
        int other = __shfl_up_sync(~0u, sum, j);
        sum += lane >= j ? other : 0;
    }
    if (lane == 31)
        warp_rows[i / 32] = sum;
    __syncthreads();
    for (int j = 0; j < i / 32; j++)
        before += warp_rows[j];
    start[i] = before + sum - mine;
    if (i < e) {
        count[i] = rows[i];
        at[i + 1] = before + sum;
    }
    if (i == 0)
        at[0] = 0;
    if (before + sum > m)
        __trap(); /* the caller's capacity is the most there can be */
    __syncthreads();
    if (i >= choices)
        return;
    place[i] = chosen[i] < 0 ? -1 : start[chosen[i]] + rank;
    if (chosen[i] >= 0)
        source[place[i]] = i;
}

/* 1 when it has made the map. */
static int few_map(struct lane *l, int32_t *at, int32_t *count, int32_t *source, int32_t *place,
                   const int32_t *index, int64_t n, int64_t k, int64_t first, int64_t e, int64_t m)
{
    if (n * k > FEW || e > FEW)
        return 0;
    launch_early(l, few_map_kernel, 1, FEW, at, count, source, place, index, (int)(n * k),
                 (int)first, (int)e, m);
    launched("row_map", "%lld,%lld,%lld", (long long)n, (long long)k, (long long)e);
    return 1;
}
#endif
