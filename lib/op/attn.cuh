/* attn.cuh -- spans on the device, shared by attention forward (attn.cu) and backward
 * (attn_grad.cu). */
#ifndef ATTN_CUH
#define ATTN_CUH

#include "real.cuh"

struct heads { /* sizes and strides of q (Tq,H,C) and of k (Tk,G,C), v (Tk,G,Cv) */
    int h, g, c, cv;
    int64_t ldq, ldk;
    float scale;
};

/* The span of query t < q_at[n]: the last that begins at or before it, which is not an empty one.
 */
static __device__ __forceinline__ int span_of(const struct spans &s, int64_t t)
{
    int low = 0, high = (int)s.n;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (s.q_at[mid] <= t)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* The key after the last that query t of span i sees (bottom-right causal); at most k_beg: none. */
static __device__ __forceinline__ int64_t keys_end(const struct spans &s, int i, int64_t t)
{
    return s.k_end[i] - (s.q_at[i + 1] - 1 - t);
}

enum { LANES = 32, MOST_C = 256, PER_LANE = MOST_C / LANES };

/* Elements lane, lane + 32, ... of a row of C as floats, 0 beyond. */
static __device__ __forceinline__ void row_load(float *x, const real *p, int c)
{
    int lane = threadIdx.x % LANES;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        x[i] = lane + i * LANES < c ? f32(p[lane + i * LANES]) : 0;
}
static __device__ __forceinline__ void row_store(real *p, const float *x, int c)
{
    int lane = threadIdx.x % LANES;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        if (lane + i * LANES < c)
            store(p + lane + i * LANES, x[i]);
}
static __device__ __forceinline__ float row_dot(const float *a, const float *b)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        sum += a[i] * b[i];
    return warp_sum(sum);
}

#endif
