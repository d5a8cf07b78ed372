/* bias.cu -- y[t] += b, y (T,N), in place; db = sum over t of dy[t].
 *
 * Bound: memory: 2 T N forward, T N backward.  A thread takes 16 bytes of a row; backward it takes
 * them of every gridDim.y-th row, and what blocks have is summed in a second pass. */
#include "parts.cuh"

enum { THREADS = 256 };

template <int V>
static __global__ void bias_kernel(real *y, const real *b, int64_t n)
{
    int64_t row = blockIdx.x, j = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * V;
    if (j >= n)
        return;
    float u[V], v[V];
    load_n<V>(u, y + row * n + j);
    load_n<V>(v, b + j);
#pragma unroll
    for (int i = 0; i < V; i++)
        u[i] += v[i];
    store_n<V>(y + row * n + j, u);
}

extern "C" void OPNAME(add_bias)(struct lane *l, void *y, const void *b, int64_t t, int64_t n)
{
    int v = is_wide(y, n) && is_wide(b, n) ? WIDE : 1;
    if (!t)
        return;
    (v == 1 ? bias_kernel<1>
            : bias_kernel<WIDE>)<<<dim3((unsigned)t, blocks_of(n, (int64_t)THREADS * v)), THREADS,
                                   0, stream(l)>>>((real *)y, (const real *)b, n);
    launched("add_bias", "%lld,%lld", (long long)t, (long long)n);
}

template <int V>
static __global__ void bias_wgrad_kernel(float *part, const real *dy, int64_t t, int64_t n)
{
    int64_t j = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
    float sum[V] = {}, u[V];
    if (j >= n)
        return;
#pragma unroll 4
    for (int64_t row = blockIdx.y; row < t; row += gridDim.y) {
        load_n<V>(u, dy + row * n + j);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum[i] += u[i];
    }
    store_n<V>(part + blockIdx.y * n + j, sum);
}

extern "C" void OPNAME(bias_wgrad)(struct lane *l, struct mat dw, const void *dy, int64_t t,
                                   int add)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t n = dw.cols;
    int v = is_wide(dy, n) ? WIDE : 1;
    unsigned across = blocks_of(n, (int64_t)THREADS * v);
    int64_t parts = MIN(MAX(t, 1), ceil_div(cuda_lane(l)->processors * 4, across));
    float *part = (float *)arena_take(&l->scratch, parts * n * (int64_t)sizeof *part);
    (v == 1 ? bias_wgrad_kernel<1>
            : bias_wgrad_kernel<WIDE>)<<<dim3(across, (unsigned)parts), THREADS, 0, stream(l)>>>(
        part, (const real *)dy, t, n);
    parts_sum(l, grad_of("bias_wgrad", dw, add), part, parts, n);
    launched("bias_wgrad", "%lld,%lld", (long long)t, (long long)n);
    arena_back(&l->scratch, mark);
}
