/* head.cu -- log-probabilities of labels from slices of the vocabulary, and the gradient of the
 * logits.
 *
 * part = { max, sum exp(logit - max), logit of the label } of logits (T,V); dlogits = dlogp (onehot
 * - exp(logits - lse)).  Bound: memory, T V read once forward, read and written backward.  A block
 * takes a token. */
#include "real.cuh"

enum { THREADS = 512 };

/* Joins a maximum and a sum of exponentials below it with another such pair. */
static __device__ __forceinline__ void join(float *max, float *sum, float m, float s)
{
    float top = fmaxf(*max, m);
    *sum = (*max == -INFINITY ? 0 : *sum * __expf(*max - top)) +
           (m == -INFINITY ? 0 : s * __expf(m - top));
    *max = top;
}

template <int V, typename T>
static __global__ void part_kernel(stat *part, const T *logits, const int32_t *label, int64_t v,
                                   int64_t v0)
{
    __shared__ float maxima[THREADS / 32], sums[THREADS / 32];
    int64_t t = blockIdx.x, at = label[t] - v0;
    const T *x = logits + t * v;
    float max = -INFINITY, sum = 0, a[V];
    for (int64_t j = threadIdx.x * V; j < v; j += THREADS * V) {
        load_n<V>(a, x + j);
        float top = a[0], part = 0;
#pragma unroll
        for (int i = 1; i < V; i++)
            top = fmaxf(top, a[i]);
        top = fmaxf(top, max);
#pragma unroll
        for (int i = 0; i < V; i++)
            part += __expf(a[i] - top);
        sum = sum * __expf(max - top) + part;
        max = top;
    }
#pragma unroll
    for (int i = 16; i; i >>= 1) {
        float m = __shfl_xor_sync(~0u, max, i), s = __shfl_xor_sync(~0u, sum, i);
        join(&max, &sum, m, s);
    }
    if (threadIdx.x % 32 == 0) {
        maxima[threadIdx.x / 32] = max;
        sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int i = 1; i < THREADS / 32; i++)
        join(&max, &sum, maxima[i], sums[i]);
    part[t * 3] = max;
    part[t * 3 + 1] = sum;
    part[t * 3 + 2] = label[t] >= 0 && at >= 0 && at < v ? f32(x[at]) : 0;
}

template <typename T>
static void part_rows(struct lane *l, stat *part, const struct mat *m, const int32_t *label,
                      int64_t v0)
{
    enum { V = 16 / sizeof(T) };
    const T *logits = (const T *)m->data;
    int wide = (uintptr_t)logits % 16 == 0 && m->cols % V == 0;
    (wide ? part_kernel<V, T> : part_kernel<1, T>)<<<(unsigned)m->rows, THREADS, 0, stream(l)>>>(
        part, logits, label, m->cols, v0);
    launched("lse_part", "%lld,%lld", (long long)m->rows, (long long)m->cols);
}

extern "C" void OPNAME(lse_part)(struct lane *l, void *part, struct mat logits,
                                 const int32_t *label, int64_t v0)
{
    if (!logits.rows)
        return;
    if (logits.type == DT_F32)
        part_rows<stat>(l, (stat *)part, &logits, label, v0);
    else
        part_rows<real>(l, (stat *)part, &logits, label, v0);
}

static __global__ void join_kernel(stat *logp, stat *lse, const stat *part, const int32_t *label,
                                   int64_t t, int64_t p)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float max = -INFINITY, sum = 0, logit = 0;
    if (i >= t)
        return;
    for (int64_t j = 0; j < p; j++)
        max = fmaxf(max, part[(j * t + i) * 3]);
    for (int64_t j = 0; j < p; j++) {
        const stat *s = part + (j * t + i) * 3;
        sum += s[1] * expf(s[0] - max);
        logit += s[2];
    }
    lse[i] = max + logf(sum);
    logp[i] = label[i] < 0 ? 0 : logit - max - logf(sum);
}

extern "C" void OPNAME(lse_join)(struct lane *l, void *logp, void *lse, const void *part,
                                 const int32_t *label, int64_t t, int64_t p)
{
    if (!t)
        return;
    join_kernel<<<blocks_of(t, 256), 256, 0, stream(l)>>>((stat *)logp, (stat *)lse,
                                                          (const stat *)part, label, t, p);
    launched("lse_join", "%lld,%lld", (long long)t, (long long)p);
}

/* A thread reads what it then writes, so dlogits may lie where logits do. */
template <int V, typename T>
static __global__ void logits_dgrad_kernel(real *dlogits, const T *logits, const stat *lse,
                                           const stat *dlogp, const int32_t *label, int64_t v,
                                           int64_t v0)
{
    int64_t t = blockIdx.x, at = label[t] - v0;
    float d = label[t] < 0 ? 0 : dlogp[t], shift = lse[t], a[V];
    for (int64_t j = threadIdx.x * V; j < v; j += THREADS * V) {
        if (d != 0)
            load_n<V>(a, logits + t * v + j);
#pragma unroll
        for (int i = 0; i < V; i++)
            a[i] = d == 0 ? 0 : d * ((j + i == at ? 1.0f : 0.0f) - __expf(a[i] - shift));
        store_n<V>(dlogits + t * v + j, a);
    }
}

template <typename T>
static void dgrad_rows(struct lane *l, real *dlogits, const struct mat *m, const stat *lse,
                       const stat *dlogp, const int32_t *label, int64_t v0)
{
    enum { V = 16 / sizeof(T) };
    const T *logits = (const T *)m->data;
    int wide = ((uintptr_t)logits | (uintptr_t)dlogits) % 16 == 0 && m->cols % V == 0;
    (wide ? logits_dgrad_kernel<V, T>
          : logits_dgrad_kernel<1, T>)<<<(unsigned)m->rows, THREADS, 0, stream(l)>>>(
        dlogits, logits, lse, dlogp, label, m->cols, v0);
    launched("logits_dgrad", "%lld,%lld", (long long)m->rows, (long long)m->cols);
}

extern "C" void OPNAME(logits_dgrad)(struct lane *l, struct mat dlogits, struct mat logits,
                                     const void *lse, const void *dlogp, const int32_t *label,
                                     int64_t v0)
{
    if (!logits.rows)
        return;
    if (logits.type == DT_F32)
        dgrad_rows<stat>(l, (real *)dlogits.data, &logits, (const stat *)lse, (const stat *)dlogp,
                         label, v0);
    else
        dgrad_rows<real>(l, (real *)dlogits.data, &logits, (const stat *)lse, (const stat *)dlogp,
                         label, v0);
}
