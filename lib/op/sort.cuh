/* sort.cuh -- a stable counting sort by a small key, all of it on the device and the same in every
 * run: row_map.cu sorts choices by expert, embed.cu tokens by the digits of their row.
 *
 * Key is what to sort by: key.bin(i) is the bin of element i, or -1 where it is to be left out, and
 * key.name(i) what the element is called.  Bin b owns places at[b] .. at[b] + count[b] of M, at[b]
 * a multiple of `align`, in order of elements; source[place] = its element's name or -1,
 * place[element] = its place or -1.
 *
 * Blocks count their stretch of the elements by bin; a block a bin adds up the stretches before
 * each; and the blocks place what they counted, each knowing where the bins begin from their
 * counts.  Within a block the order is that of warps and lanes.  Bound: three launches. */
#ifndef SORT_CUH
#define SORT_CUH

#include "real.cuh"

enum { STRETCH = 256, SORT_WARPS = STRETCH / 32, BINS = 1024 /* at most */ };

/* part (bins,blocks).  source is -1 wherever nothing will be placed. */
template <typename Key>
static __global__ void sort_count(int32_t *part, int32_t *source, Key key, int64_t n, int bins,
                                  int64_t m)
{
    extern __shared__ int32_t seen[]; /* (bins) */
    int64_t i = (int64_t)blockIdx.x * STRETCH + threadIdx.x;
    for (int b = threadIdx.x; b < bins; b += STRETCH)
        seen[b] = 0;
    for (int64_t p = i; p < m; p += (int64_t)gridDim.x * STRETCH)
        source[p] = -1;
    __syncthreads();
    int32_t mine = i < n ? key.bin(i) : -1;
    if (mine >= 0)
        atomicAdd(&seen[mine], 1);
    __syncthreads();
    for (int b = threadIdx.x; b < bins; b += STRETCH)
        part[(int64_t)b * gridDim.x + blockIdx.x] = seen[b];
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

/* part (bins,blocks) becomes the number of elements of a bin before each block. */
static __global__ void sort_offsets(int32_t *count, int32_t *part, int64_t blocks)
{
    __shared__ int32_t of_warp[SORT_WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t base = 0;
    part += blockIdx.x * blocks;
    for (int64_t at = 0; at < blocks; at += STRETCH) {
        int64_t b = at + threadIdx.x;
        int32_t n = b < blocks ? part[b] : 0, before = base + lanes_before(n);
        if (lane == 31)
            of_warp[warp] = before - base + n;
        __syncthreads();
        for (int j = 0; j < SORT_WARPS; j++) {
            before += j < warp ? of_warp[j] : 0;
            base += of_warp[j];
        }
        if (b < blocks)
            part[b] = before;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        count[blockIdx.x] = base;
}

/* start (bins+1): where each bin begins; by the first warp. */
static __device__ void bin_starts(int32_t *start, const int32_t *count, int bins, int align)
{
    int each = (bins + 31) / 32, first = (int)threadIdx.x * each;
    int32_t sum = 0;
    for (int b = first; b < MIN(bins, first + each); b++)
        sum += (count[b] + align - 1) / align * align;
    sum = lanes_before(sum);
    for (int b = first; b < MIN(bins, first + each); b++) {
        start[b] = sum;
        sum += (count[b] + align - 1) / align * align;
        if (b == bins - 1)
            start[bins] = sum;
    }
}

template <typename Key>
static __global__ void sort_place(int32_t *at, int32_t *source, int32_t *place, Key key,
                                  const int32_t *count, const int32_t *part, int64_t n, int bins,
                                  int64_t m, int align)
{
    extern __shared__ int32_t seen[]; /* (SORT_WARPS,bins), then where bins start (bins+1) */
    int32_t *start = seen + SORT_WARPS * bins;
    int64_t i = (int64_t)blockIdx.x * STRETCH + threadIdx.x;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int32_t mine = i < n ? key.bin(i) : -1;
    for (int j = threadIdx.x; j < SORT_WARPS * bins; j += STRETCH)
        seen[j] = 0;
    if (warp == 0)
        bin_starts(start, count, bins, align);
    __syncthreads();
    if (start[bins] > m)
        __trap(); /* the caller's capacity is the most there can be */
    for (int j = threadIdx.x; at && blockIdx.x == 0 && j <= bins; j += STRETCH)
        at[j] = start[j];
    unsigned same = __match_any_sync(~0u, mine);
    if (mine >= 0 && lane == __ffs(same) - 1)
        seen[warp * bins + mine] = __popc(same);
    __syncthreads();
    if (i >= n)
        return;
    int32_t p = -1;
    if (mine >= 0) {
        p = start[mine] + part[(int64_t)mine * gridDim.x + blockIdx.x] +
            __popc(same & ((1u << lane) - 1));
        for (int j = 0; j < warp; j++)
            p += seen[j * bins + mine];
        source[p] = key.name(i);
    }
    if (place)
        place[i] = p;
}

/* at (bins+1), count (bins), source (M), place (n); at and place may be NULL. */
template <typename Key>
static void sort_by(struct lane *l, int32_t *at, int32_t *count, int32_t *source, int32_t *place,
                    Key key, int64_t n, int64_t bins, int64_t m, int align)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    unsigned blocks = blocks_of(n, STRETCH);
    size_t bytes = (size_t)bins * sizeof(int32_t);
    int32_t *part = (int32_t *)arena_take(&l->scratch, blocks * (int64_t)bytes); /* (bins,blocks) */
    sort_count<<<blocks, STRETCH, bytes, stream(l)>>>(part, source, key, n, (int)bins, m);
    sort_offsets<<<(unsigned)bins, STRETCH, 0, stream(l)>>>(count, part, blocks);
    sort_place<<<blocks, STRETCH, (SORT_WARPS + 1) * bytes + sizeof(int32_t), stream(l)>>>(
        at, source, place, key, count, part, n, (int)bins, m, align);
    arena_back(&l->scratch, mark);
}

#endif
