/* add.cu -- y = a + b; N elements.  Bound: memory, 3 N elements moved. */
#include "ptx.cuh"
#include "real.cuh"

template <int V>
static __global__ void add_kernel(real *y, const real *a, const real *b, int64_t n)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    float x[V], z[V];
    take_turn();
    if (i >= n)
        return;
    load_n<V>(x, a + i);
    load_n<V>(z, b + i);
#pragma unroll
    for (int j = 0; j < V; j++)
        x[j] += z[j];
    store_n<V>(y + i, x);
}

extern "C" void OPNAME(add)(struct lane *l, void *y, const void *a, const void *b, int64_t n)
{
    int wide = is_wide(y, n) && is_wide(a, n) && is_wide(b, n);
    if (!n)
        return;
    launch_early(l, wide ? add_kernel<WIDE> : add_kernel<1>, blocks_of(n, 256 * (wide ? WIDE : 1)),
                 256, (real *)y, (const real *)a, (const real *)b, n);
    launched("add", "%lld", (long long)n);
}
