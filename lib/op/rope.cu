/* rope.cu -- queries and keys on their way to attention: QK-norm, z = x rstd w, then each pair
 * (z_i, z_{i+C/2}) turned by position * freq[i].  And the sums of squares or products that norms
 * over the heads of several ranks need.
 *
 * Bound: memory, 2 T (H+G) C. */
#include "rope.cuh"

enum { FORWARD = 4 /* tokens at a time */ };

template <int W, enum norm NORM>
static __global__ void __launch_bounds__(MOST)
    rope_kernel(real *y, stat *rstd, const real *x, const stat *square, const int32_t *position,
                const stat *freq, int64_t t, struct qk n, int lanes)
{
    extern __shared__ __align__(16) float turn[];
    const struct seat s = seat_of(n, lanes);
    const int half = (int)(n.c / 2), pitch = (half + V - 1) / V * V;
    const int64_t first = (int64_t)blockIdx.x * FORWARD, at = s.head * n.c + s.at;
    both<W> in[FORWARD], w;
    float r[FORWARD];
    call_next();
    if (NORM != NORM_NONE)
        w = fetch<W>((const real *)n.w + weight_at(n, NORM, s), half, s.left);
    int few = gridDim.x == 1; /* then nothing else hides how long turns take */
    if (few)
        turns<FORWARD>(turn, pitch, half, position, freq, first, 1, t);
    await_turn();
#pragma unroll
    for (int b = 0; b < FORWARD; b++)
        in[b] = fetch<W>(x + (first + b) * n.ld + at, half, first + b < t ? s.left : 0);
    if (!few)
        turns<FORWARD>(turn, pitch, half, position, freq, first, 1, t);
    __syncthreads();
    if (NORM != NORM_NONE) {
#pragma unroll
        for (int b = 0; b < FORWARD; b++) {
            r[b] = 0;
#pragma unroll
            for (int i = 0; i < V; i++)
                r[b] += in[b].at(0, i) * in[b].at(0, i) + in[b].at(1, i) * in[b].at(1, i);
        }
        if (NORM == NORM_HEAD)
            head_sums(r, lanes);
        else if (!square)
            kind_sums(r, s.kind);
#pragma unroll
        for (int b = 0; b < FORWARD; b++) {
            if (first + b >= t)
                continue;
            if (NORM == NORM_WHOLE && square)
                r[b] = square[(first + b) * 2 + s.kind];
            r[b] = 1 / sqrtf(r[b] / span_of(n, NORM, s) + (float)n.eps);
            if (is_first(n, NORM, s))
                rstd[norm_at(n, NORM, s, first + b)] = r[b];
        }
    }
#pragma unroll
    for (int b = 0; b < FORWARD; b++) {
        const float *c = turn + b * 2 * pitch + s.at, *d = c + pitch;
        float out[2][V];
        if (first + b >= t || s.left <= 0)
            continue;
#pragma unroll
        for (int i = 0; i < V; i++) {
            float u = in[b].at(0, i), v = in[b].at(1, i);
            if (NORM != NORM_NONE) {
                u = u * r[b] * w.at(0, i);
                v = v * r[b] * w.at(1, i);
            }
            out[0][i] = u * c[i] - v * d[i];
            out[1][i] = v * c[i] + u * d[i];
        }
        put<W>(y + (first + b) * n.ld + at, out, half, s.left);
    }
}

extern "C" void OPNAME(rope)(struct lane *l, void *y, void *rstd, const void *x, const void *square,
                             const int32_t *position, const void *freq, int64_t t,
                             const struct qk *n)
{
    static void (*const kernel[2][3])(real *, stat *, const real *, const stat *, const int32_t *,
                                      const stat *, int64_t, struct qk,
                                      int) = {BY_NORM(rope_kernel, 1), BY_NORM(rope_kernel, WIDE)};
    struct deal d = deal_of("rope", n);
    int wide = is_wide_qk(y, n) && is_wide_qk(x, n) && (!n->w || is_wide_qk(n->w, n));
    if (!t)
        return;
    launch_early_shared(l, kernel[wide][norm_of(n)], dim3((unsigned)ceil_div(t, FORWARD), d.blocks),
                        (int)d.threads, turn_bytes(n, FORWARD), (real *)y, (stat *)rstd,
                        (const real *)x, (const stat *)square, position, (const stat *)freq, t, *n,
                        d.lanes);
    launched("rope", "%lld,%lld+%lld,%lld", (long long)t, (long long)n->h, (long long)n->g,
             (long long)n->c);
}

/* A block a token: first queries, then keys. */
template <int W>
static __global__ void dots_kernel(stat *dot, const real *a, const real *b, struct qk n)
{
    a += blockIdx.x * n.ld;
    b += blockIdx.x * n.ld;
    for (int k = 0; k < 2; k++) {
        int64_t beg = k ? n.h * n.c : 0, end = (k ? n.h + n.g : n.h) * n.c;
        float sum = 0, u[W], v[W];
        for (int64_t j = beg + threadIdx.x * W; j < end; j += blockDim.x * W) {
            load_n<W>(u, a + j);
            load_n<W>(v, b + j);
#pragma unroll
            for (int i = 0; i < W; i++)
                sum += u[i] * v[i];
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0)
            dot[blockIdx.x * 2 + k] = sum;
    }
}

extern "C" void OPNAME(qk_dots)(struct lane *l, void *dot, const void *a, const void *b, int64_t t,
                                const struct qk *n)
{
    int wide = is_wide_qk(a, n) && is_wide_qk(b, n);
    if (!t)
        return;
    (wide ? dots_kernel<WIDE> : dots_kernel<1>)<<<(unsigned)t, 256, 0, stream(l)>>>(
        (stat *)dot, (const real *)a, (const real *)b, *n);
    launched("qk_dots", "%lld,%lld+%lld,%lld", (long long)t, (long long)n->h, (long long)n->g,
             (long long)n->c);
}
