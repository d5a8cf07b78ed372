/* swiglu.cu -- a = sigmoid(z[t]) silu(h[t,:F]) h[t,F:] and its gradients; h (T,2F), a (T,F), the
 * gate z (T) or none.
 *
 * Bound: memory: 3 T F forward, 6 T F backward.  Forward, a thread takes 16 bytes of a row's
 * activation; backward, a block takes a row, whose sum is the gradient of its gate. */
#include "real.cuh"

enum { THREADS = 256 };

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

template <int V>
static __global__ void swiglu_kernel(real *a, const real *h, const stat *z, int64_t f)
{
    int64_t row = blockIdx.x, j = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * V;
    if (j >= f)
        return;
    float u[V], v[V], gate = z ? sigmoid(z[row]) : 1;
    load_n<V>(u, h + row * 2 * f + j);
    load_n<V>(v, h + row * 2 * f + f + j);
#pragma unroll
    for (int i = 0; i < V; i++)
        u[i] = gate * u[i] * sigmoid(u[i]) * v[i];
    store_n<V>(a + row * f + j, u);
}

extern "C" void OPNAME(swiglu)(struct lane *l, void *a, const void *h, const void *z, int64_t t,
                               int64_t f)
{
    int v = is_wide(a, f) && is_wide(h, f) ? WIDE : 1;
    if (!t)
        return;
    (v == 1
         ? swiglu_kernel<1>
         : swiglu_kernel<WIDE>)<<<dim3((unsigned)t, blocks_of(f, (int64_t)THREADS * v)), THREADS, 0,
                                  stream(l)>>>((real *)a, (const real *)h, (const stat *)z, f);
    launched("swiglu", "%lld,%lld", (long long)t, (long long)f);
}

template <int V>
static __global__ void swiglu_dgrad_kernel(real *dh, real *a, stat *dz, const real *da,
                                           const real *h, const stat *z, int64_t f)
{
    int64_t row = blockIdx.x;
    float gate = z ? sigmoid(z[row]) : 1, sum = 0;
    const real *u_row = h + row * 2 * f;
    real *du_row = dh + row * 2 * f;
    for (int64_t j = threadIdx.x * V; j < f; j += (int64_t)blockDim.x * V) {
        float u[V], v[V], d[V], y[V];
        load_n<V>(u, u_row + j);
        load_n<V>(v, u_row + f + j);
        load_n<V>(d, da + row * f + j);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float s = sigmoid(u[i]), silu = u[i] * s, x = v[i];
            sum += d[i] * silu * x;
            y[i] = gate * silu * x;
            v[i] = gate * d[i] * silu;
            u[i] = gate * d[i] * x * (s + silu * (1 - s));
        }
        store_n<V>(a + row * f + j, y);
        store_n<V>(du_row + j, u);
        store_n<V>(du_row + f + j, v);
    }
    if (!z)
        return;
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        dz[row] = sum * gate * (1 - gate);
}

extern "C" void OPNAME(swiglu_dgrad)(struct lane *l, void *dh, void *a, void *dz, const void *da,
                                     const void *h, const void *z, int64_t t, int64_t f)
{
    int wide = is_wide(dh, f) && is_wide(a, f) && is_wide(da, f) && is_wide(h, f);
    int v = wide ? WIDE : 1;
    unsigned threads = (unsigned)MIN((int64_t)THREADS, ceil_div(f, v * 32) * 32);
    if (!t)
        return;
    (v == 1 ? swiglu_dgrad_kernel<1>
            : swiglu_dgrad_kernel<WIDE>)<<<(unsigned)t, threads, 0, stream(l)>>>(
        (real *)dh, (real *)a, (stat *)dz, (const real *)da, (const real *)h, (const stat *)z, f);
    launched("swiglu_dgrad", "%lld,%lld", (long long)t, (long long)f);
}
