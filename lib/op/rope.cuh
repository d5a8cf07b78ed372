/* rope.cuh -- what rope.cu and rope_grad.cu share: who works on which elements of queries and keys
 * (rows (T,H+G,C), ld apart), how far each pair turns, and sums over a head or all of a kind.
 *
 * A block has all heads of a token and takes several tokens at a time: a thread has the same 2 V
 * elements of one head in each, so their turns, made once a token, come from shared memory, weights
 * and sums of the weight gradient stay in registers, and every element is read once.  The angle is
 * reduced in f64, since positions reach far beyond what f32 keeps of a turn. */
#ifndef ROPE_CUH
#define ROPE_CUH

#include "ptx.cuh"
#include "real.cuh"

enum {
    V = 8,     /* elements of either half of a head a thread has */
    MOST = 640 /* threads a block: leaves a thread 96 registers */
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
static __device__ __forceinline__ both<W> fetch(const real *p, int64_t half, int left)
{
    both<W> out = {};
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int i = 0; i < V; i += W)
            if (i < left)
                out.x[s][i / W] = *(const chunk<real, W> *)(p + s * half + i);
    return out;
}
template <int W, typename T>
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

/* ---- launching ---- */

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

#endif
