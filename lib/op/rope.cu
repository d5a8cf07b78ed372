/* rope.cu -- queries and keys on their way to attention: QK-norm, z = x rstd w, then each pair
 * (z_i, z_{i+C/2}) turned by position * freq[i]; and the gradients of both.  Rows (T,H+G,C), ld
 * apart.
 *
 * Bound: memory, 2 T (H+G) C forward and turning back, 3 T (H+G) C for dx with a norm.  A block has
 * all heads of a token and takes several tokens at a time: a thread has the same 2 V elements of
 * one head in each, so their turns, made once a token, come from shared memory, weights and sums
 * of the weight gradient stay in registers, and every element is read once.  The angle is reduced
 * in f64, since positions reach far beyond what f32 keeps of a turn. */
#include "ptx.cuh"
#include "real.cuh"

enum {
    V = 8,       /* elements of either half of a head a thread has */
    MOST = 640,  /* threads a block: leaves a thread 96 registers */
    FORWARD = 4, /* tokens at a time */
    BACKWARD = 2
};
enum norm { NORM_NONE, NORM_HEAD, NORM_WHOLE };

/* What a thread works on: elements at .. at + V of a half of a head. */
struct seat {
    int head, at, left; /* left: elements from `at` to the end of the half; <= 0: idle */
    int kind;           /* 0 of queries, 1 of keys */
};
static __device__ __forceinline__ struct seat seat_of(const struct qk &n, int lanes)
{
    int head = (int)(blockIdx.y * (blockDim.x / lanes) + threadIdx.x / lanes);
    int at = (int)threadIdx.x % lanes * V;
    int idle = head >= n.h + n.g || threadIdx.x >= blockDim.x / lanes * lanes;
    return {head, at, idle ? 0 : (int)(n.c / 2) - at, head >= n.h};
}

/* V elements of both halves; W of them at a time, or with W = 1 as many as are left. */
template <int W>
struct both {
    chunk<real, W> x[2][V / W];
    __device__ __forceinline__ float at(int half, int i) const
    {
        return f32(x[half][i / W].x[i % W]);
    }
};
template <int W>
static __device__ __forceinline__ struct both<W> fetch(const real *p, int64_t half, int left) {
    struct both<W> out = {
    };
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int i = 0; i < V; i += W)
            if (i < left)
                out.x[s][i / W] = *(const chunk<real, W> *)(p + s * half + i);
    return out;
} template <int W, typename T>
static __device__ __forceinline__ void put(T *p, const float (&x)[2][V], int64_t half, int left)
{
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int i = 0; i < V; i += W)
            if (i < left)
                store_n<W>(p + s * half + i, &x[s][i]);
}

/* turn (N,2,half rounded up to V) cos and sin of N tokens, which are `by` apart. */
template <int N>
static __device__ __forceinline__ void turns(float *turn, int pitch, int half,
                                             const int32_t *position, const stat *freq,
                                             int64_t first, int64_t by, int64_t t)
{
    for (int i = (int)threadIdx.x; i < N * half; i += (int)blockDim.x) {
        int b = i / half, j = i - b * half;
        if (first + b * by >= t)
            break;
        double turned = (double)position[first + b * by] * (double)freq[j] * 0.15915494309189535;
        float s, c;
        sincospif(2 * (float)(turned - rint(turned)), &s, &c);
        turn[b * 2 * pitch + j] = c;
        turn[(b * 2 + 1) * pitch + j] = s;
    }
}

/* Each thread's N sums become those of its head, or of all heads of its kind. */
template <int N>
static __device__ __forceinline__ void head_sums(float (&sum)[N], int lanes)
{
#pragma unroll
    for (int b = 0; b < N; b++)
        for (int i = lanes / 2; i; i >>= 1)
            sum[b] += __shfl_xor_sync(~0u, sum[b], i);
}
template <int N>
static __device__ __forceinline__ void kind_sums(float (&sum)[N], int kind)
{
    __shared__ float part[N][2][MOST / 32];
    int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
#pragma unroll
    for (int b = 0; b < N; b++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            float x = warp_sum(kind == k ? sum[b] : 0);
            if (threadIdx.x % 32 == 0)
                part[b][k][warp] = x;
        }
    __syncthreads();
#pragma unroll
    for (int b = 0; b < N; b++) {
        sum[b] = 0;
        for (int i = 0; i < warps; i++)
            sum[b] += part[b][kind][i];
    }
}

static __device__ __forceinline__ int64_t weight_at(const struct qk &n, enum norm norm,
                                                    struct seat s)
{
    return (norm == NORM_WHOLE ? s.head : s.kind) * n.c + s.at;
}
static __device__ __forceinline__ int64_t norm_at(const struct qk &n, enum norm norm, struct seat s,
                                                  int64_t token)
{
    return norm == NORM_WHOLE ? token * 2 + s.kind : token * (n.h + n.g) + s.head;
}
/* Elements of the thread's norm, on all ranks. */
static __device__ __forceinline__ float span_of(const struct qk &n, enum norm norm, struct seat s)
{
    return (float)(norm == NORM_WHOLE ? (s.kind ? n.g : n.h) * n.c * n.ranks : n.c);
}
/* One thread a norm writes its rstd. */
static __device__ __forceinline__ bool is_first(const struct qk &n, enum norm norm, struct seat s)
{
    return s.at == 0 && s.left > 0 && (norm == NORM_HEAD || s.head == 0 || s.head == n.h);
}

template <int W, enum norm NORM>
static __global__ void __launch_bounds__(MOST)
    rope_kernel(real *y, stat *rstd, const real *x, const stat *square, const int32_t *position,
                const stat *freq, int64_t t, struct qk n, int lanes)
{
    extern __shared__ __align__(16) float turn[];
    const struct seat s = seat_of(n, lanes);
    const int half = (int)(n.c / 2), pitch = (half + V - 1) / V * V;
    const int64_t first = (int64_t)blockIdx.x * FORWARD, at = s.head * n.c + s.at;
    struct both<W> in[FORWARD], w;
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
    struct both<W> w;
    float dw[2][V] = {};
    if (NORM != NORM_NONE)
        w = fetch<W>((const real *)n.w + weight_at(n, NORM, s), half, s.left);
    for (int64_t first = blockIdx.x; first < t; first += BACKWARD * QK_PARTS) {
        struct both<W> in[BACKWARD], grad[BACKWARD];
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

/* How heads are dealt to threads: `lanes` of them a head, a power of two. */
struct deal {
    int lanes;
    unsigned threads, blocks;
};
static struct deal deal_of(const char *who, const struct qk *n)
{
    struct deal d = {1, 0, 0};
    int64_t heads = n->h + n->g;
    while (d.lanes * V < n->c / 2)
        d.lanes *= 2;
    int64_t each = MIN(heads, MOST / d.lanes);
    if (d.lanes > 32 || (n->w && each < heads))
        die("%s: %lld heads of %lld in one norm are more than a block can hold", who,
            (long long)heads, (long long)n->c);
    d.threads = (unsigned)(ceil_div(each * d.lanes, 32) * 32);
    each = d.threads / d.lanes;
    d.blocks = (unsigned)ceil_div(heads, each);
    return d;
}
static int is_wide_qk(const void *p, const struct qk *n)
{
    return is_wide(p, n->ld) && n->c / 2 % V == 0;
}
static size_t turn_bytes(const struct qk *n, int tokens)
{
    return (size_t)(tokens * 2 * ceil_div(n->c / 2, V) * V) * sizeof(float);
}
static enum norm norm_of(const struct qk *n)
{
    return !n->w ? NORM_NONE : n->whole ? NORM_WHOLE : NORM_HEAD;
}

#define BY_NORM(kernel, w)                                                                         \
    {                                                                                              \
        kernel<w, NORM_NONE>, kernel<w, NORM_HEAD>, kernel<w, NORM_WHOLE>                          \
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
