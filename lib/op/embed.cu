/* embed.cu -- x[t] = w[token[t] - v0] (T,D) from (V,D), and dw[token[t] - v0] = the sum of dx[t].
 *
 * Bound: memory, 2 T D forward, V D + 3 T D backward.  Backward without atomics: the block of the
 * first token of its kind finds the others and adds them in their order. */
#include "real.cuh"

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

enum { SCAN = 256 };

/* A thread sums V columns; SCAN * V of them at a time. */
template <int V>
static __global__ void embed_wgrad_kernel(struct grad dw, const int32_t *token, const real *dx,
                                          int64_t t, int64_t d, int64_t v, int64_t v0)
{
    __shared__ int32_t found[SCAN]; /* same tokens among SCAN neighbours, in order */
    __shared__ int warp_found[SCAN / 32];
    int64_t first = blockIdx.x, row = token[first] - v0;
    int32_t mine = token[first];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (row < 0 || row >= v)
        return;
    int earlier = 0;
    for (int64_t i = threadIdx.x; i < first && !earlier; i += SCAN)
        earlier = token[i] == mine;
    if (__syncthreads_or(earlier))
        return;
    for (int64_t j0 = 0; j0 < d; j0 += SCAN * V) {
        int64_t j = j0 + threadIdx.x * V;
        float sum[V] = {}, x[V];
        for (int64_t base = first; base < t; base += SCAN) {
            int64_t i = base + threadIdx.x;
            unsigned same = __ballot_sync(~0u, i < t && token[i] == mine);
            if (lane == 0)
                warp_found[warp] = __popc(same);
            __syncthreads();
            int before = 0, all = 0;
            for (int k = 0; k < SCAN / 32; k++) {
                before += k < warp ? warp_found[k] : 0;
                all += warp_found[k];
            }
            if (same >> lane & 1)
                found[before + __popc(same & ((1u << lane) - 1))] = (int32_t)i;
            __syncthreads();
            for (int k = 0; j < d && k < all; k++) {
                load_n<V>(x, dx + found[k] * d + j);
#pragma unroll
                for (int c = 0; c < V; c++)
                    sum[c] += x[c];
            }
            __syncthreads();
        }
        if (j < d)
            grad_put<V>(dw, row * d + j, sum);
    }
}

/* Rows of no token are zeroed with the others, at once. */
extern "C" void OPNAME(embed_wgrad)(struct lane *l, struct mat dw, const int32_t *token,
                                    const void *dx, int64_t t, int64_t v0, int add)
{
    int64_t v = dw.rows, d = dw.cols;
    struct grad g = grad_of("embed_wgrad", dw, add);
    if (!add)
        cu(cudaMemsetAsync(dw.data, 0, (size_t)(v * d * dtype_size(dw.type)), stream(l)));
    if (!t)
        return;
    (is_wide(dx, d) && is_wide(dw.data, d)
         ? embed_wgrad_kernel<WIDE>
         : embed_wgrad_kernel<1>)<<<(unsigned)t, SCAN, 0, stream(l)>>>(g, token, (const real *)dx,
                                                                       t, d, v, v0);
    launched("embed_wgrad", "%lld,%lld", (long long)t, (long long)d);
}
