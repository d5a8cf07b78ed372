/* rmsnorm.cu -- y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradients; rows (T,D).
 *
 * Bound: memory: 2 T D forward (4 where it adds first), 4 T D backward with a residual.  A block
 * takes a row, 16 bytes a thread at a time, and its threads hold it between the sum and the rest.
 */
#include "parts.cuh"
#include "ptx.cuh"

enum {
    MOST = 512,
    RESIDENT = 1024
}; /* threads of a block; of a multiprocessor where rows are held */

/* x, or where there is b: a + b, rounded and written to x, and the norm is of that.  A thread holds
 * the first V columns of its own, which are mostly all; w is on its way before the kernel's turn.
 */
template <int V>
static __global__ void norm_kernel(real *y, stat *rstd, real *x, const real *a, const real *b,
                                   const real *w, int64_t d, float eps)
{
    int64_t at = blockIdx.x * d, first = threadIdx.x * V, next = blockDim.x * V;
    float sum = 0, held[V], scale[V], u[V], v[V];
    call_next();
    if (first < d)
        load_n<V>(scale, w + first);
    await_turn();
    for (int64_t j = first; j < d; j += next) {
        load_n<V>(u, a + at + j);
        if (b) {
            load_n<V>(v, b + at + j);
#pragma unroll
            for (int i = 0; i < V; i++)
                u[i] = as_real(u[i] + v[i]);
            store_n<V>(x + at + j, u);
        }
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum += u[i] * u[i];
            held[i] = j == first ? u[i] : held[i];
        }
    }
    float r = 1 / sqrtf(block_sum(sum) / (float)d + eps);
    if (threadIdx.x == 0)
        rstd[blockIdx.x] = r;
    for (int64_t j = first; j < d; j += next) {
        if (j != first) {
            load_n<V>(held, x + at + j);
            load_n<V>(scale, w + j);
        }
#pragma unroll
        for (int i = 0; i < V; i++)
            u[i] = held[i] * r * scale[i];
        store_n<V>(y + at + j, u);
    }
}

static void norm_rows(struct lane *l, void *y, void *rstd, void *x, const void *a, const void *b,
                      const void *w, int64_t t, int64_t d, double eps)
{
    int wide = is_wide(y, d) && is_wide(x, d) && is_wide(a, d) && is_wide(b, d) && is_wide(w, d);
    int64_t threads = MIN((int64_t)MOST, ceil_div(d, 32 * (wide ? WIDE : 1)) * 32);
    if (!t)
        return;
    launch_early(l, wide ? norm_kernel<WIDE> : norm_kernel<1>, (unsigned)t, (int)threads, (real *)y,
                 (stat *)rstd, (real *)x, (const real *)a, (const real *)b, (const real *)w, d,
                 (float)eps);
    launched("rmsnorm", "%lld,%lld", (long long)t, (long long)d);
}

extern "C" void OPNAME(rmsnorm)(struct lane *l, void *y, void *rstd, const void *x, const void *w,
                                int64_t t, int64_t d, double eps)
{
    norm_rows(l, y, rstd, (void *)x, x, NULL, w, t, d, eps);
}

extern "C" void OPNAME(add_rmsnorm)(struct lane *l, void *y, void *rstd, void *x, const void *a,
                                    const void *b, const void *w, int64_t t, int64_t d, double eps)
{
    norm_rows(l, y, rstd, x, a, b, w, t, d, eps);
}

/* What a thread holds of a row: N pieces of V columns, a block's width apart. */
template <int V, int N>
struct held {
    chunk<real, V> dy[N], x[N], res[N];
    float rstd;
};
template <int V, int N>
static __device__ __forceinline__ void hold(held<V, N> *h, const real *dres, const real *dy,
                                            const real *x, const stat *rstd, int64_t row, int64_t d)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        int64_t j = (threadIdx.x + n * (int64_t)blockDim.x) * V;
        h->dy[n] = h->x[n] = h->res[n] = {};
        if (j < d) {
            h->dy[n] = *(const chunk<real, V> *)(dy + row * d + j);
            h->x[n] = *(const chunk<real, V> *)(x + row * d + j);
            if (dres)
                h->res[n] = *(const chunk<real, V> *)(dres + row * d + j);
        }
    }
    h->rstd = rstd[row];
}

/* With g = dy w: dx = rstd (g - x rstd^2 mean(g x)).  A block takes every gridDim-th row, and a
 * thread keeps the sums of dy x rstd of its columns; then part (blocks,D). */
template <int V, int N>
static __global__ void __launch_bounds__(RESIDENT, 1)
    norm_grad_kernel(real *dx, float *part, const real *dres, const real *dy, const real *x,
                     const real *w, const stat *rstd, int64_t t, int64_t d)
{
    float dw[N][V] = {};
    chunk<real, V> scale[N] = {};
    held<V, N> h;
#pragma unroll
    for (int n = 0; n < N; n++) {
        int64_t j = (threadIdx.x + n * (int64_t)blockDim.x) * V;
        if (j < d)
            scale[n] = *(const chunk<real, V> *)(w + j);
    }
    for (int64_t row = blockIdx.x; row < t; row += gridDim.x) {
        float sum = 0;
        hold(&h, dres, dy, x, rstd, row, d);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < V; i++)
                sum += f32(h.dy[n].x[i]) * f32(scale[n].x[i]) * f32(h.x[n].x[i]);
        float r = h.rstd, along = block_sum(sum) * r * r / (float)d;
#pragma unroll
        for (int n = 0; n < N; n++) {
            int64_t j = (threadIdx.x + n * (int64_t)blockDim.x) * V;
            float y[V];
#pragma unroll
            for (int i = 0; i < V; i++) {
                float g = f32(h.dy[n].x[i]), a = f32(h.x[n].x[i]);
                y[i] = f32(h.res[n].x[i]) + r * (g * f32(scale[n].x[i]) - a * along);
                dw[n][i] += g * a * r;
            }
            if (j < d)
                store_n<V>(dx + row * d + j, y);
        }
    }
#pragma unroll
    for (int n = 0; n < N; n++) {
        int64_t j = (threadIdx.x + n * (int64_t)blockDim.x) * V;
        if (j < d)
            store_n<V>(part + blockIdx.x * d + j, dw[n]);
    }
}

template <int V, int N>
static void norm_grad(struct lane *l, void *dx, struct grad dw, const void *dres, const void *dy,
                      const void *x, const void *w, const void *rstd, int64_t t, int64_t d)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t threads = MIN((int64_t)RESIDENT, ceil_div(d, V * N * 32) * 32);
    int64_t parts = MIN(t, cuda_lane(l)->processors * (RESIDENT / threads));
    float *part = (float *)arena_take(&l->scratch, parts * d * (int64_t)sizeof *part);
    if (t)
        norm_grad_kernel<V, N><<<(unsigned)parts, (unsigned)threads, 0, stream(l)>>>(
            (real *)dx, part, (const real *)dres, (const real *)dy, (const real *)x,
            (const real *)w, (const stat *)rstd, t, d);
    parts_sum(l, dw, part, parts, d);
    launched("rmsnorm_grad", "%lld,%lld", (long long)t, (long long)d);
    arena_back(&l->scratch, mark);
}

extern "C" void OPNAME(rmsnorm_grad)(struct lane *l, void *dx, struct mat dw, const void *dres,
                                     const void *dy, const void *x, const void *w, const void *rstd,
                                     int64_t t, int add)
{
    static const struct width {
        int64_t v, d; /* pieces of v columns hold rows of up to d */
        void (*run)(struct lane *, void *, struct grad, const void *, const void *, const void *,
                    const void *, const void *, int64_t, int64_t);
    } widths[] = {{WIDE, RESIDENT * WIDE, norm_grad<WIDE, 1>},
                  {WIDE, RESIDENT * WIDE * 4, norm_grad<WIDE, 4>},
                  {1, RESIDENT, norm_grad<1, 1>},
                  {1, RESIDENT * 16, norm_grad<1, 16>}};
    int64_t d = dw.cols;
    int wide =
        is_wide(dx, d) && is_wide(dres, d) && is_wide(dy, d) && is_wide(x, d) && is_wide(w, d);
    for (int64_t i = 0; i < ARRAY_LEN(widths); i++)
        if ((wide || widths[i].v == 1) && d <= widths[i].d) {
            widths[i].run(l, dx, grad_of("rmsnorm_grad", dw, add), dres, dy, x, w, rstd, t, d);
            return;
        }
    die("rmsnorm_grad: rows of %lld are too long", (long long)d);
}
