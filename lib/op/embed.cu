/* embed.cu -- x[t] = w[token[t] - v0] (T,D) from (V,D), and dw[token[t] - v0] = the sum of dx[t].
 *
 * Bound: memory, 2 T D forward, V D + 2 T D backward.  Backward without atomics: tokens are sorted
 * by row, keeping their order, and a block adds up GROUP of them.  A row whose tokens lie in more
 * than one group, as those of a frequent word do, is joined from what the groups left of it. */
#include "sort.cuh"

template <int V>
static __global__ void embed_kernel(real *x, const int32_t *token, const real *w, int64_t d,
                                    int64_t v, int64_t v0)
{
    int64_t t = blockIdx.x, row = token[t] - v0;
    int here = row >= 0 && row < v;
    for (int64_t j = threadIdx.x * V; j < d; j += blockDim.x * V) {
        float y[V] = {};
        if (here)
            load_n<V>(y, w + row * d + j);
        store_n<V>(x + t * d + j, y);
    }
}

extern "C" void OPNAME(embed)(struct lane *l, void *x, const int32_t *token, const void *w,
                              int64_t t, int64_t d, int64_t v, int64_t v0)
{
    if (!t)
        return;
    if (is_wide(x, d) && is_wide(w, d))
        embed_kernel<WIDE>
            <<<(unsigned)t, 128, 0, stream(l)>>>((real *)x, token, (const real *)w, d, v, v0);
    else
        embed_kernel<1>
            <<<(unsigned)t, 128, 0, stream(l)>>>((real *)x, token, (const real *)w, d, v, v0);
    launched("embed", "%lld,%lld", (long long)t, (long long)d);
}

enum { DIGIT = 9, GROUP = 8, SUM_THREADS = 256 };

struct by_digit { /* of the rows of tokens in the order so far, NULL: as they come */
    const int32_t *token, *order;
    int64_t v, v0;
    int shift;
    __device__ int32_t name(int64_t i) const
    {
        return order ? order[i] : (int32_t)i;
    }
    __device__ int32_t bin(int64_t i) const
    {
        int64_t t = name(i), row = t < 0 ? -1 : token[t] - v0;
        return row < 0 || row >= v ? -1 : (int32_t)(row >> shift & ((1 << DIGIT) - 1));
    }
};

/* order (T): tokens by row and then as they come; -1 behind those whose row is elsewhere. */
static const int32_t *tokens_by_row(struct lane *l, const int32_t *token, int64_t t, int64_t v,
                                    int64_t v0)
{
    int32_t *order = NULL, *next = (int32_t *)arena_take(&l->scratch, t * 4);
    int32_t *spare = (int32_t *)arena_take(&l->scratch, t * 4);
    int32_t *count = (int32_t *)arena_take(&l->scratch, 4 << DIGIT);
    for (int shift = 0; shift == 0 || v >> shift; shift += DIGIT) {
        sort_by(l, NULL, count, next, NULL, by_digit{token, order, v, v0, shift}, t,
                (int64_t)1 << DIGIT, t, 1);
        int32_t *free = order ? order : spare;
        order = next;
        next = free;
    }
    return order;
}

/* The row of token order[i], or -1. */
static __device__ int32_t row_of(const int32_t *order, const int32_t *token, int64_t i, int64_t t,
                                 int64_t v0)
{
    return i < 0 || i >= t || order[i] < 0 ? -1 : (int32_t)(token[order[i]] - v0);
}

/* part (groups,2,D): sums of the first row, where it began before, and of the last, where it goes
 * on; a group of one row that does both has only the first. */
template <int V>
static __global__ void group_kernel(struct grad dw, float *part, const int32_t *order,
                                    const int32_t *token, const real *dx, int64_t t, int64_t d,
                                    int64_t v0)
{
    __shared__ int32_t row[GROUP + 2], at[GROUP];
    int64_t first = (int64_t)blockIdx.x * GROUP;
    if (threadIdx.x < GROUP + 2)
        row[threadIdx.x] = row_of(order, token, first + threadIdx.x - 1, t, v0);
    if (threadIdx.x < GROUP)
        at[threadIdx.x] = first + threadIdx.x < t ? order[first + threadIdx.x] : -1;
    __syncthreads();
    for (int64_t j = threadIdx.x * V; j < d; j += SUM_THREADS * V) {
        chunk<real, V> in[GROUP];
        float sum[V] = {};
        int began = row[0] == row[1];
#pragma unroll
        for (int i = 0; i < GROUP; i++)
            if (at[i] >= 0)
                in[i] = *(const chunk<real, V> *)(dx + at[i] * d + j);
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            int32_t mine = row[i + 1];
            if (mine < 0)
                continue;
#pragma unroll
            for (int c = 0; c < V; c++)
                sum[c] += f32(in[i].x[c]);
            int goes_on = row[i + 2] == mine;
            if (goes_on && i + 1 < GROUP)
                continue;
            if (began || goes_on)
                store_n<V>(part + ((int64_t)blockIdx.x * 2 + !began) * d + j, sum);
            else
                grad_put<V>(dw, mine * d + j, sum);
            began = 0;
#pragma unroll
            for (int c = 0; c < V; c++)
                sum[c] = 0;
        }
    }
}

/* The block of the group in which such a row begins adds up its parts, AHEAD of them on their way
 * at a time. */
template <int V>
static __global__ void group_join(struct grad dw, const float *part, const int32_t *order,
                                  const int32_t *token, int64_t t, int64_t d, int64_t v0)
{
    enum { AHEAD = 16 };
    int64_t last = ((int64_t)blockIdx.x + 1) * GROUP - 1;
    int64_t j = ((int64_t)blockIdx.y * SUM_THREADS + threadIdx.x) * V;
    int32_t mine = row_of(order, token, last, t, v0);
    if (mine < 0 || row_of(order, token, last + 1, t, v0) != mine)
        return;
    int64_t before = last - GROUP; /* the row begins here unless the whole group is of it */
    if (row_of(order, token, before, t, v0) == mine)
        return;
    int64_t end = blockIdx.x + 1; /* of the groups that begin with it */
    for (int more = SUM_THREADS; more == SUM_THREADS; end += more)
        more =
            __syncthreads_count(row_of(order, token, (end + threadIdx.x) * GROUP, t, v0) == mine);
    if (j >= d)
        return;
    float sum[V], x[AHEAD][V];
    load_n<V>(sum, part + ((int64_t)blockIdx.x * 2 + 1) * d + j);
    for (int64_t first = blockIdx.x + 1; first < end; first += AHEAD) {
#pragma unroll
        for (int g = 0; g < AHEAD; g++)
            if (first + g < end)
                load_n<V>(x[g], part + (first + g) * 2 * d + j);
#pragma unroll
        for (int g = 0; g < AHEAD; g++)
#pragma unroll
            for (int c = 0; c < V; c++)
                sum[c] += first + g < end ? x[g][c] : 0;
    }
    grad_put<V>(dw, mine * d + j, sum);
}

/* Rows of no token are zeroed with the others, at once. */
extern "C" void OPNAME(embed_wgrad)(struct lane *l, struct mat dw, const int32_t *token,
                                    const void *dx, int64_t t, int64_t v0, int add)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t v = dw.rows, d = dw.cols, groups = ceil_div(t, GROUP);
    struct grad g = grad_of("embed_wgrad", dw, add);
    if (!add)
        cu(cudaMemsetAsync(dw.data, 0, (size_t)(v * d * dtype_size(dw.type)), stream(l)));
    if (!t)
        return;
    const int32_t *order = tokens_by_row(l, token, t, v, v0);
    float *part = (float *)arena_take(&l->scratch, groups * 2 * d * (int64_t)sizeof *part);
    int wide = is_wide(dx, d) && is_wide(dw.data, d);
    (wide ? group_kernel<WIDE> : group_kernel<1>)<<<(unsigned)groups, SUM_THREADS, 0, stream(l)>>>(
        g, part, order, token, (const real *)dx, t, d, v0);
    dim3 grid((unsigned)groups, blocks_of(d, SUM_THREADS * (wide ? 4 : 1)));
    (wide ? group_join<4> : group_join<1>)<<<grid, SUM_THREADS, 0, stream(l)>>>(g, part, order,
                                                                                token, t, d, v0);
    launched("embed_wgrad", "%lld,%lld", (long long)t, (long long)d);
    arena_back(&l->scratch, mark);
}
