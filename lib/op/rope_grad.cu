/* rope_grad.cu -- the gradients of rope.cu: turned back, and through QK-norm.
 *
 * Bound: memory, 2 T (H+G) C, 3 with a norm. */
#include "rope.cuh"

enum { BACKWARD = 2 /* tokens at a time */ };

/* With dz the gradient turned back, n = x rstd and g = dz w: dx = rstd (g - n mean(g n)), and dz n
 * summed over the tokens of a part is its weight gradient. */
template <int W, enum norm NORM>
static __global__ void __launch_bounds__(MOST)
    rope_dgrad_kernel(real *dx, stat *part, const real *dy, const real *x, const stat *rstd,
                      const stat *dot, const int32_t *position, const stat *freq, int64_t t,
                      struct qk n, int lanes)
{
    extern __shared__ __align__(16) float turn[];
    const struct seat s = seat_of(n, lanes);
    const int half = (int)(n.c / 2), pitch = (half + V - 1) / V * V;
    const int64_t at = s.head * n.c + s.at;
    both<W> w;
    float dw[2][V] = {};
    if (NORM != NORM_NONE)
        w = fetch<W>((const real *)n.w + weight_at(n, NORM, s), half, s.left);
    for (int64_t first = blockIdx.x; first < t; first += BACKWARD * QK_PARTS) {
        both<W> in[BACKWARD], grad[BACKWARD];
        float r[BACKWARD], along[BACKWARD];
#pragma unroll
        for (int b = 0; b < BACKWARD; b++) {
            int64_t token = first + b * QK_PARTS;
            int left = token < t ? s.left : 0;
            grad[b] = fetch<W>(dy + token * n.ld + at, half, left);
            if (NORM != NORM_NONE) {
                in[b] = fetch<W>(x + token * n.ld + at, half, left);
                r[b] = left > 0 ? rstd[norm_at(n, NORM, s, token)] : 0;
            }
        }
        __syncthreads(); /* turns may still be read for the tokens before */
        turns<BACKWARD>(turn, pitch, half, position, freq, first, QK_PARTS, t);
        __syncthreads();
        if (NORM != NORM_NONE) {
#pragma unroll
            for (int b = 0; b < BACKWARD; b++) {
                const float *c = turn + b * 2 * pitch + s.at, *d = c + pitch;
                along[b] = 0;
                if (first + b * QK_PARTS >= t || s.left <= 0)
                    continue;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float du = grad[b].at(0, i), dv = grad[b].at(1, i);
                    float u = (du * c[i] + dv * d[i]) * (in[b].at(0, i) * r[b]);
                    float v = (dv * c[i] - du * d[i]) * (in[b].at(1, i) * r[b]);
                    dw[0][i] += i < s.left ? u : 0;
                    dw[1][i] += i < s.left ? v : 0;
                    along[b] += i < s.left ? u * w.at(0, i) + v * w.at(1, i) : 0;
                }
            }
            if (NORM == NORM_HEAD)
                head_sums(along, lanes);
            else if (!dot)
                kind_sums(along, s.kind);
        }
#pragma unroll
        for (int b = 0; b < BACKWARD; b++) {
            int64_t token = first + b * QK_PARTS;
            const float *c = turn + b * 2 * pitch + s.at, *d = c + pitch;
            float out[2][V], mean;
            if (token >= t || s.left <= 0)
                continue;
            if (NORM != NORM_NONE)
                mean = (NORM == NORM_WHOLE && dot ? dot[token * 2 + s.kind] : along[b]) * r[b] /
                       span_of(n, NORM, s);
#pragma unroll
            for (int i = 0; i < V; i++) {
                float du = grad[b].at(0, i), dv = grad[b].at(1, i);
                float u = du * c[i] + dv * d[i], v = dv * c[i] - du * d[i];
                if (NORM != NORM_NONE) {
                    u = r[b] * (u * w.at(0, i) - in[b].at(0, i) * mean);
                    v = r[b] * (v * w.at(1, i) - in[b].at(1, i) * mean);
                }
                out[0][i] = u;
                out[1][i] = v;
            }
            put<W>(dx + token * n.ld + at, out, half, s.left);
        }
    }
    if (NORM == NORM_WHOLE)
        put<W == 1 ? 1 : 4>(part + blockIdx.x * (n.h + n.g) * n.c + at, dw, half, s.left);
    if (NORM == NORM_HEAD) { /* head after head, so that the order of the sum is one */
        float *sum = turn;   /* (2,C) */
        __syncthreads();
        for (int i = (int)threadIdx.x; i < 2 * n.c; i += (int)blockDim.x)
            sum[i] = 0;
        for (int h = 0; h < n.h + n.g; h++) {
            __syncthreads();
            for (int i = 0; h == s.head && i < MIN(V, s.left); i++) {
                sum[weight_at(n, NORM, s) + i] += dw[0][i];
                sum[weight_at(n, NORM, s) + half + i] += dw[1][i];
            }
        }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < 2 * n.c; i += (int)blockDim.x)
            part[blockIdx.x * 2 * n.c + i] = sum[i];
    }
}

extern "C" void OPNAME(rope_dgrad)(struct lane *l, void *dx, void *part, const void *dy,
                                   const void *x, const void *rstd, const void *dot,
                                   const int32_t *position, const void *freq, int64_t t,
                                   const struct qk *n)
{
    static void (*const kernel[2][3])(real *, stat *, const real *, const real *, const stat *,
                                      const stat *, const int32_t *, const stat *, int64_t,
                                      struct qk, int) = {BY_NORM(rope_dgrad_kernel, 1),
                                                         BY_NORM(rope_dgrad_kernel, WIDE)};
    struct deal d = deal_of("rope_dgrad", n);
    int wide = is_wide_qk(dx, n) && is_wide_qk(dy, n) &&
               (!n->w || (is_wide_qk(x, n) && is_wide_qk(n->w, n)));
    kernel[wide]
          [norm_of(n)]<<<dim3(QK_PARTS, d.blocks), d.threads, turn_bytes(n, BACKWARD), stream(l)>>>(
              (real *)dx, (stat *)part, (const real *)dy, (const real *)x, (const stat *)rstd,
              (const stat *)dot, position, (const stat *)freq, t, *n, d.lanes);
    launched("rope_dgrad", "%lld,%lld+%lld,%lld", (long long)t, (long long)n->h, (long long)n->g,
             (long long)n->c);
}

/* A block sums 32 columns, each warp every 32nd part. */
static __global__ void rope_wgrad_kernel(struct grad dw, const stat *part, int64_t columns)
{
    __shared__ float sum[32][33];
    int64_t j = (int64_t)blockIdx.x * 32 + threadIdx.x;
    float x = 0;
#pragma unroll
    for (int i = 0; i < QK_PARTS; i += 32)
        if (i + (int)threadIdx.y < QK_PARTS && j < columns)
            x += part[(i + (int)threadIdx.y) * columns + j];
    sum[threadIdx.x][threadIdx.y] = x;
    __syncthreads();
    x = warp_sum(sum[threadIdx.y][threadIdx.x]);
    j = (int64_t)blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && j < columns)
        grad_put<1>(dw, j, &x);
}

extern "C" void OPNAME(rope_wgrad)(struct lane *l, struct mat dw, const void *part, int add)
{
    rope_wgrad_kernel<<<blocks_of(dw.cols, 32), dim3(32, 32), 0, stream(l)>>>(
        grad_of("rope_wgrad", dw, add), (const stat *)part, dw.cols);
    launched("rope_wgrad", "%lld", (long long)dw.cols);
}
