/* experts.cu -- SwiGLU experts, forward: h[m] = up_e x[row], a[m] = gate silu(h[m,:F]) h[m,F:],
 * y[m] = down_e a[m]; up (E,2F,D), down (E,D,F), rows m by the row map.
 *
 * Bound: tensor cores: 2 M 2F D and 2 M F D operations.  Here are the kernels for any shape; where
 * rows are whole tiles of 64 elements in bf16, experts_run.cuh takes them, and where an expert has
 * but a few of them, experts_few.cuh. */
#include "experts.cuh"
#include "experts_few.cuh"
#include "experts_run.cuh"

enum { ACT_THREADS = 128 };

static __global__ void activate_kernel(real *a, const real *h, const stat *gate, struct map r,
                                       int64_t f)
{
    for (int64_t m = blockIdx.x; m < r.at[r.e]; m += gridDim.x) {
        if (r.source[m] < 0)
            continue;
        const real *u = h + m * 2 * f, *v = u + f;
        float g = gate[r.source[m]];
        for (int64_t j = threadIdx.x; j < f; j += ACT_THREADS) {
            float x = f32(u[j]);
            store(a + m * f + j, g * (x / (1 + expf(-x))) * f32(v[j]));
        }
    }
}

extern "C" void OPNAME(experts_up)(struct lane *l, void *h, void *a, const void *x, const void *up,
                                   const void *gate, const int32_t *at, const int32_t *count,
                                   const int32_t *source, int64_t live, int64_t e, int64_t k,
                                   int64_t d, int64_t f)
{
    struct map r = {at, count, source, (int)e, (int)k};
    if (few_up(l, h, a, x, up, gate, r, live, d, f) || mma_up(l, h, a, x, up, gate, r, live, d, f))
        return;
    plain_rows<1, 1><<<plain_grid(l, 2 * f), PLAIN_THREADS, 0, stream(l)>>>(
        (real *)h, (const real *)x, (const real *)up, r, 2 * f, d);
    activate_kernel<<<cuda_lane(l)->processors * 8, ACT_THREADS, 0, stream(l)>>>(
        (real *)a, (const real *)h, (const stat *)gate, r, f);
    launched("experts_up", "%lld,%lld,%lld", (long long)e, (long long)d, (long long)f);
}

extern "C" void OPNAME(experts_down)(struct lane *l, void *y, const void *a, const void *down,
                                     const int32_t *at, const int32_t *count, int64_t live,
                                     int64_t e, int64_t d, int64_t f)
{
    struct map r = {at, count, NULL, (int)e, 1};
    if (few_down(l, y, a, down, r, live, d, f) || mma_down(l, y, a, down, r, d, f))
        return;
    plain_rows<0, 1><<<plain_grid(l, d), PLAIN_THREADS, 0, stream(l)>>>(
        (real *)y, (const real *)a, (const real *)down, r, d, f);
    launched("experts_down", "%lld,%lld,%lld", (long long)e, (long long)d, (long long)f);
}
