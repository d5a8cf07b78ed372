/* row_map.cu -- which received row goes to which expert: a stable counting sort by expert.
 *
 * Blocks count their stretch of the n K choices by expert; a block an expert adds up the stretches
 * before each; and the blocks place what they counted, each knowing where the experts begin from
 * their counts.  Within a block the order is that of warps and lanes.  Bound: three launches. */
#include "real.cuh"

enum { STRETCH = 256, WARPS = STRETCH / 32, EXPERTS = 1024 };

/* part (E,blocks).  Source is -1 wherever no choice will be placed. */
static __global__ void count_kernel(int32_t *part, int32_t *source, const int32_t *index,
                                    int64_t choices, int e, int64_t m)
{
    extern __shared__ int32_t seen[]; /* (E) */
    int64_t i = (int64_t)blockIdx.x * STRETCH + threadIdx.x;
    for (int x = threadIdx.x; x < e; x += STRETCH)
        seen[x] = 0;
    for (int64_t row = i; row < m; row += (int64_t)gridDim.x * STRETCH)
        source[row] = -1;
    __syncthreads();
    if (i < choices && index[i] >= 0)
        atomicAdd(&seen[index[i]], 1);
    __syncthreads();
    for (int x = threadIdx.x; x < e; x += STRETCH)
        part[(int64_t)x * gridDim.x + blockIdx.x] = seen[x];
}

/* The sum of x over the lanes before this one. */
static __device__ __forceinline__ int32_t lanes_before(int32_t x)
{
    int32_t sum = x;
#pragma unroll
    for (int i = 1; i < 32; i *= 2) {
        int32_t more = __shfl_up_sync(~0u, sum, i);
        sum += threadIdx.x % 32 >= i ? more : 0;
    }
    return sum - x;
}

/* part (E,blocks) becomes the number of rows of an expert before each block. */
static __global__ void offset_kernel(int32_t *count, int32_t *part, int64_t blocks)
{
    __shared__ int32_t warp_sum[WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t base = 0;
    part += blockIdx.x * blocks;
    for (int64_t at = 0; at < blocks; at += STRETCH) {
        int64_t b = at + threadIdx.x;
        int32_t n = b < blocks ? part[b] : 0, before = base + lanes_before(n);
        if (lane == 31)
            warp_sum[warp] = before - base + n;
        __syncthreads();
        for (int j = 0; j < WARPS; j++) {
            before += j < warp ? warp_sum[j] : 0;
            base += warp_sum[j];
        }
        if (b < blocks)
            part[b] = before;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        count[blockIdx.x] = base;
}

/* start (E+1): where each expert's rows begin; by the first warp. */
static __device__ void expert_starts(int32_t *start, const int32_t *count, int e)
{
    int each = (e + 31) / 32, first = (int)threadIdx.x * each;
    int32_t rows = 0;
    for (int x = first; x < MIN(e, first + each); x++)
        rows += (count[x] + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
    rows = lanes_before(rows);
    for (int x = first; x < MIN(e, first + each); x++) {
        start[x] = rows;
        rows += (count[x] + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
        if (x == e - 1)
            start[e] = rows;
    }
}

static __global__ void place_kernel(int32_t *at, int32_t *source, int32_t *place,
                                    const int32_t *index, const int32_t *count, const int32_t *part,
                                    int64_t choices, int e, int64_t m)
{
    extern __shared__ int32_t seen[]; /* (WARPS,E), then where experts start (E+1) */
    int32_t *start = seen + WARPS * e;
    int64_t i = (int64_t)blockIdx.x * STRETCH + threadIdx.x;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int32_t x = i < choices ? index[i] : -1;
    for (int j = threadIdx.x; j < WARPS * e; j += STRETCH)
        seen[j] = 0;
    if (warp == 0)
        expert_starts(start, count, e);
    __syncthreads();
    if (start[e] > m)
        __trap(); /* the caller's capacity is the most there can be */
    for (int j = threadIdx.x; blockIdx.x == 0 && j <= e; j += STRETCH)
        at[j] = start[j];
    unsigned same = __match_any_sync(~0u, x);
    if (x >= 0 && lane == __ffs(same) - 1)
        seen[warp * e + x] = __popc(same);
    __syncthreads();
    if (i >= choices)
        return;
    if (x >= 0) {
        int32_t row = start[x] + part[(int64_t)x * gridDim.x + blockIdx.x] +
                      __popc(same & ((1u << lane) - 1));
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
    unsigned blocks = blocks_of(n * k, STRETCH);
    size_t bytes = (size_t)e * sizeof(int32_t);
    int32_t *part = (int32_t *)arena_take(&l->scratch, blocks * (int64_t)bytes); /* (E,blocks) */
    if (e > EXPERTS)
        die("row_map: %lld experts; this kernel takes up to %d", (long long)e, EXPERTS);
    count_kernel<<<blocks, STRETCH, bytes, stream(l)>>>(part, source, index, n * k, (int)e, m);
    offset_kernel<<<(unsigned)e, STRETCH, 0, stream(l)>>>(count, part, blocks);
    place_kernel<<<blocks, STRETCH, (WARPS + 1) * bytes + sizeof(int32_t), stream(l)>>>(
        at, source, place, index, count, part, n * k, (int)e, m);
    launched("row_map", "%lld,%lld,%lld", (long long)n, (long long)k, (long long)e);
    arena_back(&l->scratch, mark);
}
