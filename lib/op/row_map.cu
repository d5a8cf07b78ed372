/* row_map.cu -- which received row goes to which expert: a stable counting sort by expert.
 *
 * Blocks count their stretch of the n K choices by expert, one block turns counts into offsets, and
 * the blocks place what they counted; within a block the order is that of warps and lanes.  Bound:
 * launch. */
#include "real.cuh"

enum { STRETCH = 256, WARPS = STRETCH / 32 };

static __global__ void count_kernel(int32_t *part, const int32_t *index, int64_t choices, int e)
{
    extern __shared__ int32_t seen[]; /* (E) */
    int64_t i = (int64_t)blockIdx.x * STRETCH + threadIdx.x;
    for (int x = threadIdx.x; x < e; x += STRETCH)
        seen[x] = 0;
    __syncthreads();
    if (i < choices && index[i] >= 0)
        atomicAdd(&seen[index[i]], 1);
    __syncthreads();
    for (int x = threadIdx.x; x < e; x += STRETCH)
        part[(int64_t)blockIdx.x * e + x] = seen[x];
}

/* part (blocks,E) becomes the number of rows of an expert before each block. */
static __global__ void offset_kernel(int32_t *at, int32_t *count, int32_t *part, int64_t blocks,
                                     int e, int64_t m)
{
    for (int x = threadIdx.x; x < e; x += blockDim.x) {
        int32_t sum = 0;
#pragma unroll 8
        for (int64_t b = 0; b < blocks; b++) {
            int32_t n = part[b * e + x];
            part[b * e + x] = sum;
            sum += n;
        }
        count[x] = sum;
    }
    __syncthreads();
    if (threadIdx.x)
        return;
    at[0] = 0;
    for (int x = 0; x < e; x++)
        at[x + 1] = at[x] + (count[x] + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
    if (at[e] > m)
        __trap(); /* the caller's capacity is the most there can be */
}

static __global__ void place_kernel(int32_t *source, int32_t *place, const int32_t *index,
                                    const int32_t *at, const int32_t *part, int64_t choices, int e)
{
    extern __shared__ int32_t seen[]; /* (WARPS,E) */
    int64_t i = (int64_t)blockIdx.x * STRETCH + threadIdx.x;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int32_t x = i < choices ? index[i] : -1;
    for (int j = threadIdx.x; j < WARPS * e; j += STRETCH)
        seen[j] = 0;
    __syncthreads();
    unsigned same = __match_any_sync(~0u, x);
    if (x >= 0 && lane == __ffs(same) - 1)
        seen[warp * e + x] = __popc(same);
    __syncthreads();
    if (i >= choices)
        return;
    if (x >= 0) {
        int32_t row = at[x] + part[(int64_t)blockIdx.x * e + x] + __popc(same & ((1u << lane) - 1));
        for (int j = 0; j < warp; j++)
            row += seen[j * e + x];
        source[row] = (int32_t)i;
        place[i] = row;
    } else {
        place[i] = -1;
    }
}

extern "C" void OPNAME(row_map)(struct lane *l, int32_t *at, int32_t *count, int32_t *source,
                                int32_t *place, const int32_t *index, int64_t n, int64_t k,
                                int64_t e, int64_t m)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t blocks = ceil_div(n * k, STRETCH);
    size_t bytes = (size_t)e * sizeof(int32_t);
    int32_t *part =
        (int32_t *)arena_take(&l->scratch, MAX(blocks, 1) * (int64_t)bytes); /* (blocks,E) */
    if (e > 1024)
        die("row_map: %lld experts; this kernel takes up to 1024", (long long)e);
    cu(cudaMemsetAsync(source, 0xff, (size_t)m * sizeof *source, stream(l))); /* -1 */
    if (blocks)
        count_kernel<<<(unsigned)blocks, STRETCH, bytes, stream(l)>>>(part, index, n * k, (int)e);
    offset_kernel<<<1, 1024, 0, stream(l)>>>(at, count, part, blocks, (int)e, m);
    if (blocks)
        place_kernel<<<(unsigned)blocks, STRETCH, WARPS * bytes, stream(l)>>>(
            source, place, index, at, part, n * k, (int)e);
    launched("row_map", "%lld,%lld,%lld", (long long)n, (long long)k, (long long)e);
    arena_back(&l->scratch, mark);
}
