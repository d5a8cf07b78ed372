/* experts_grad.cu -- SwiGLU experts, backward: da = down_e^T dout[row]; dh, a and the gate's
 * gradient from it; dx = up_e^T dh; dup_e = dh^T x, ddown_e = dout^T a over an expert's rows.
 *
 * With a = g silu(u) v: du = g da v silu'(u), dv = g da silu(u), dg = <da, silu(u) v>.  Bound:
 * tensor cores; the weight gradients also write E 3 F D, and read it where they add.  Kernels for
 * any shape; experts_mma.cuh takes bf16 rows of whole tiles. */
#include "experts.cuh"
#include "experts_run.cuh"

enum { THREADS = 128 };

/* A block takes a row: du, dv, a from da, and the row's sum for its gate. */
static __global__ void activation_dgrad_kernel(real *dh, real *a, stat *dgate, const real *da,
                                               const real *h, const stat *gate, struct map r,
                                               int64_t f)
{
    for (int64_t m = blockIdx.x; m < r.at[r.e]; m += gridDim.x) {
        int32_t choice = r.source[m];
        float sum = 0;
        if (choice < 0) {
            for (int64_t j = threadIdx.x; j < 2 * f; j += THREADS) {
                store(dh + m * 2 * f + j, 0);
                store(a + m * f + j / 2, 0);
            }
            continue;
        }
        float g = gate[choice];
        for (int64_t j = threadIdx.x; j < f; j += THREADS) {
            float u = f32(h[m * 2 * f + j]), v = f32(h[m * 2 * f + f + j]), d = f32(da[m * f + j]);
            float s = 1 / (1 + expf(-u)), silu = u * s;
            sum += d * silu * v;
            store(a + m * f + j, g * silu * v);
            store(dh + m * 2 * f + j, g * d * v * (s + silu * (1 - s)));
            store(dh + m * 2 * f + f + j, g * d * silu);
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0)
            dgate[choice] = sum;
    }
}

extern "C" void OPNAME(experts_dh)(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                                   const void *down, const void *h, const void *gate,
                                   const int32_t *at, const int32_t *count, const int32_t *source,
                                   int64_t n, int64_t e, int64_t k, int64_t d, int64_t f)
{
    struct map r = {at, count, source, (int)e, (int)k};
    struct arena_mark mark = arena_mark(&l->scratch);
    cu(cudaMemsetAsync(dgate, 0, (size_t)(n * k) * sizeof(stat), stream(l)));
    if (mma_dh(l, dh, a, dgate, dout, down, h, gate, r, n * k, d, f))
        return;
    int64_t rows = n * k + e * (ROW_ALIGN - 1);
    real *da = (real *)arena_take(&l->scratch, rows * f * (int64_t)sizeof *da); /* (M,F) */
    plain_rows<1, 0><<<plain_grid(l, f), PLAIN_THREADS, 0, stream(l)>>>(
        da, (const real *)dout, (const real *)down, r, f, d);
    activation_dgrad_kernel<<<cuda_lane(l)->processors * 8, THREADS, 0, stream(l)>>>(
        (real *)dh, (real *)a, (stat *)dgate, da, (const real *)h, (const stat *)gate, r, f);
    launched("experts_dh", "%lld,%lld,%lld", (long long)e, (long long)d, (long long)f);
    arena_back(&l->scratch, mark);
}

extern "C" void OPNAME(experts_dx)(struct lane *l, void *dx, const void *dh, const void *up,
                                   const int32_t *at, const int32_t *count, int64_t e, int64_t d,
                                   int64_t f)
{
    struct map r = {at, count, NULL, (int)e, 1};
    if (mma_dx(l, dx, dh, up, r, d, f))
        return;
    plain_rows<0, 0><<<plain_grid(l, d), PLAIN_THREADS, 0, stream(l)>>>(
        (real *)dx, (const real *)dh, (const real *)up, r, d, 2 * f);
    launched("experts_dx", "%lld,%lld,%lld", (long long)e, (long long)d, (long long)f);
}

static dim3 wgrad_grid(int64_t e, int64_t rows, int64_t cols)
{
    return dim3(blocks_of(cols, PLAIN_TILE), blocks_of(rows, PLAIN_TILE), (unsigned)e);
}

extern "C" void OPNAME(experts_up_wgrad)(struct lane *l, struct mat dw, const void *dh,
                                         const void *x, const int32_t *at, const int32_t *count,
                                         const int32_t *source, int64_t live, int64_t e, int64_t k,
                                         int add, void *squares)
{
    struct map r = {at, count, source, (int)e, (int)k};
    struct grad g = grad_of("experts_up_wgrad", dw, add);
    int64_t d = dw.cols, f = dw.rows / e / 2;
    if (mma_up_wgrad(l, g, dh, x, r, live, d, f, squares))
        return;
    plain_wgrad<0><<<wgrad_grid(e, 2 * f, d), PLAIN_THREADS, 0, stream(l)>>>(
        g, (const real *)dh, (const real *)x, r, 2 * f, d);
    launched("experts_up_wgrad", "%lld,%lld,%lld", (long long)e, (long long)d, (long long)f);
    if (squares)
        OPNAME(sum_squares)(l, squares, mat(dw.data, dw.type, 1, dw.rows * dw.cols));
}

extern "C" void OPNAME(experts_down_wgrad)(struct lane *l, struct mat dw, const void *dout,
                                           const void *a, const int32_t *at, const int32_t *count,
                                           const int32_t *source, int64_t live, int64_t e,
                                           int64_t k, int add, void *squares)
{
    struct map r = {at, count, source, (int)e, (int)k};
    struct grad g = grad_of("experts_down_wgrad", dw, add);
    int64_t d = dw.rows / e, f = dw.cols;
    if (mma_down_wgrad(l, g, dout, a, r, live, d, f, squares))
        return;
    plain_wgrad<1><<<wgrad_grid(e, d, f), PLAIN_THREADS, 0, stream(l)>>>(g, (const real *)dout,
                                                                         (const real *)a, r, d, f);
    launched("experts_down_wgrad", "%lld,%lld,%lld", (long long)e, (long long)d, (long long)f);
    if (squares)
        OPNAME(sum_squares)(l, squares, mat(dw.data, dw.type, 1, dw.rows * dw.cols));
}
