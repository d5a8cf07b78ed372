/* rmsnorm.cu -- y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradients; rows (T,D).
 *
 * Bound: memory: 2 T D forward, 4 T D for dx with a residual, 2 T D for dw.  A block takes a row,
 * 16 bytes a thread at a time; the second pass over a row finds it in the cache. */
#include "real.cuh"

enum { THREADS = 256, WGRAD_ROWS = 128 }; /* rows a block of the weight gradient */

template <int V>
static __global__ void norm_kernel(real *y, stat *rstd, const real *x, const real *w, int64_t d,
                                   float eps)
{
    int64_t t = blockIdx.x;
    float sum = 0, a[V], b[V];
    x += t * d;
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        load_n<V>(a, x + j);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum += a[i] * a[i];
    }
    float r = 1 / sqrtf(block_sum(sum) / (float)d + eps);
    if (threadIdx.x == 0)
        rstd[t] = r;
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        load_n<V>(a, x + j);
        load_n<V>(b, w + j);
#pragma unroll
        for (int i = 0; i < V; i++)
            a[i] = a[i] * r * b[i];
        store_n<V>(y + t * d + j, a);
    }
}

extern "C" void OPNAME(rmsnorm)(struct lane *l, void *y, void *rstd, const void *x, const void *w,
                                int64_t t, int64_t d, double eps)
{
    if (!t)
        return;
    if (is_wide(y, d) && is_wide(x, d) && is_wide(w, d))
        norm_kernel<WIDE><<<(unsigned)t, THREADS, 0, stream(l)>>>(
            (real *)y, (stat *)rstd, (const real *)x, (const real *)w, d, (float)eps);
    else
        norm_kernel<1><<<(unsigned)t, THREADS, 0, stream(l)>>>(
            (real *)y, (stat *)rstd, (const real *)x, (const real *)w, d, (float)eps);
    launched("rmsnorm", "%lld,%lld", (long long)t, (long long)d);
}

/* With g = dy w: dx = rstd (g - x rstd^2 mean(g x)). */
template <int V>
static __global__ void norm_dgrad_kernel(real *dx, const real *dres, const real *dy, const real *x,
                                         const real *w, const stat *rstd, int64_t d)
{
    int64_t at = blockIdx.x * d;
    float sum = 0, g[V], a[V], b[V], r = rstd[blockIdx.x];
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        load_n<V>(g, dy + at + j);
        load_n<V>(a, x + at + j);
        load_n<V>(b, w + j);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum += g[i] * b[i] * a[i];
    }
    float along = block_sum(sum) * r * r / (float)d;
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        float res[V] = {};
        load_n<V>(g, dy + at + j);
        load_n<V>(a, x + at + j);
        load_n<V>(b, w + j);
        if (dres)
            load_n<V>(res, dres + at + j);
#pragma unroll
        for (int i = 0; i < V; i++)
            res[i] += r * (g[i] * b[i] - a[i] * along);
        store_n<V>(dx + at + j, res);
    }
}

extern "C" void OPNAME(rmsnorm_dgrad)(struct lane *l, void *dx, const void *dres, const void *dy,
                                      const void *x, const void *w, const void *rstd, int64_t t,
                                      int64_t d)
{
    if (!t)
        return;
    int wide =
        is_wide(dx, d) && is_wide(dres, d) && is_wide(dy, d) && is_wide(x, d) && is_wide(w, d);
    (wide ? norm_dgrad_kernel<WIDE> : norm_dgrad_kernel<1>)<<<(unsigned)t, THREADS, 0, stream(l)>>>(
        (real *)dx, (const real *)dres, (const real *)dy, (const real *)x, (const real *)w,
        (const stat *)rstd, d);
    launched("rmsnorm_dgrad", "%lld,%lld", (long long)t, (long long)d);
}

/* part (blocks of rows, D): column sums of dy x rstd over WGRAD_ROWS rows. */
static __global__ void norm_wgrad_kernel(float *part, const real *dy, const real *x,
                                         const stat *rstd, int64_t t, int64_t d)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t end = MIN(t, ((int64_t)blockIdx.y + 1) * WGRAD_ROWS);
    float sum = 0;
    if (j >= d)
        return;
#pragma unroll 8
    for (int64_t i = (int64_t)blockIdx.y * WGRAD_ROWS; i < end; i++)
        sum += f32(dy[i * d + j]) * f32(x[i * d + j]) * rstd[i];
    part[blockIdx.y * d + j] = sum;
}

static __global__ void norm_wgrad_join(struct grad dw, const float *part, int64_t parts, int64_t d)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float sum = 0;
    if (j >= d)
        return;
#pragma unroll 8
    for (int64_t i = 0; i < parts; i++)
        sum += part[i * d + j];
    grad_put<1>(dw, j, &sum);
}

extern "C" void OPNAME(rmsnorm_wgrad)(struct lane *l, struct mat dw, const void *dy, const void *x,
                                      const void *rstd, int64_t t, int add)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t d = dw.cols, parts = ceil_div(t, WGRAD_ROWS);
    float *part = (float *)arena_take(&l->scratch, parts * d * (int64_t)sizeof *part);
    dim3 grid(blocks_of(d, THREADS), (unsigned)parts);
    if (t)
        norm_wgrad_kernel<<<grid, THREADS, 0, stream(l)>>>(part, (const real *)dy, (const real *)x,
                                                           (const stat *)rstd, t, d);
    norm_wgrad_join<<<grid.x, THREADS, 0, stream(l)>>>(grad_of("rmsnorm_wgrad", dw, add), part,
                                                       parts, d);
    launched("rmsnorm_wgrad", "%lld,%lld", (long long)t, (long long)d);
    arena_back(&l->scratch, mark);
}
