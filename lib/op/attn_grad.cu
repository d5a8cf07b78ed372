/* attn_grad.cu -- causal softmax attention over spans, backward.
 *
 * P = exp(scale q k^T - lse), dV = P^T dO, dS = scale P (dO V^T - delta) with delta = <dO, O>, dQ =
 * dS K, dK = dS^T Q.  Nothing is added atomically: one kernel goes by queries and makes dq, another
 * goes by keys and makes dk and dv.  Bound: tensor cores, 14 C operations a query, head and key
 * seen.  The kernels here are the plain ones; attn_grad_mma.cuh takes bf16 heads of 64 and 128. */
#include "attn.cuh"
#include "attn_grad_mma.cuh"

enum { WARPS = 4 };

struct given { /* what the gradient is taken of and from */
    const real *d_o, *q, *k, *v, *o;
    const stat *lse;
};

static __global__ void attn_dq_kernel(real *dq, struct given y, struct spans s, struct heads x)
{
    int64_t items = (int64_t)s.q_at[s.n] * x.h, warps = (int64_t)gridDim.x * WARPS;
    for (int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; item < items;
         item += warps) {
        int64_t t = item / x.h, head = item % x.h, kv = head / (x.h / x.g) * x.c;
        int i = span_of(s, t);
        int64_t end = keys_end(s, i, t);
        float q[PER_LANE], g[PER_LANE], b[PER_LANE], sum[PER_LANE] = {};
        row_load(q, y.q + t * x.ldq + head * x.c, x.c);
        row_load(g, y.d_o + item * x.c, x.c);
        row_load(b, y.o + item * x.c, x.c);
        float delta = row_dot(g, b), lse = y.lse[item];
        for (int64_t j = s.k_beg[i]; j < end; j++) {
            row_load(b, y.v + j * x.ldk + kv, x.c);
            float dp = row_dot(g, b);
            row_load(b, y.k + j * x.ldk + kv, x.c);
            float ds = expf(row_dot(q, b) * x.scale - lse) * (dp - delta) * x.scale;
#pragma unroll
            for (int c = 0; c < PER_LANE; c++)
                sum[c] += ds * b[c];
        }
        row_store(dq + t * x.ldq + head * x.c, sum, x.c);
    }
}

static __global__ void attn_dkv_kernel(real *dk, real *dv, struct given y, struct spans s,
                                       struct heads x, int64_t tk)
{
    int64_t items = tk * x.g, warps = (int64_t)gridDim.x * WARPS;
    int group = x.h / x.g;
    for (int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; item < items;
         item += warps) {
        int64_t j = item / x.g, kv = item % x.g, at = j * x.ldk + kv * x.c;
        float k[PER_LANE], v[PER_LANE], q[PER_LANE], g[PER_LANE], b[PER_LANE];
        float sum_k[PER_LANE] = {}, sum_v[PER_LANE] = {};
        row_load(k, y.k + at, x.c);
        row_load(v, y.v + at, x.c);
        for (int i = 0; i < s.n; i++) {
            if (j < s.k_beg[i] || j >= s.k_end[i])
                continue;
            int64_t beg = s.q_at[i], end = s.q_at[i + 1];
            /* the first query that sees key j is as far from the end as the key is */
            for (int64_t t = MAX(beg, end - (s.k_end[i] - j)); t < end; t++)
                for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
                    int64_t row = t * x.h + head;
                    row_load(q, y.q + t * x.ldq + head * x.c, x.c);
                    row_load(g, y.d_o + row * x.c, x.c);
                    row_load(b, y.o + row * x.c, x.c);
                    float p = expf(row_dot(q, k) * x.scale - y.lse[row]);
                    float ds = p * (row_dot(g, v) - row_dot(g, b)) * x.scale;
#pragma unroll
                    for (int c = 0; c < PER_LANE; c++) {
                        sum_v[c] += p * g[c];
                        sum_k[c] += ds * q[c];
                    }
                }
        }
        row_store(dk + at, sum_k, x.c);
        row_store(dv + at, sum_v, x.c);
    }
}

extern "C" void OPNAME(attn_dgrad)(struct lane *l, void *dq, void *dk, void *dv, const void *d_o,
                                   const void *q, const void *k, const void *v, const void *o,
                                   const void *lse, struct spans s, int64_t tk, int64_t h,
                                   int64_t g, int64_t c, int64_t ldq, int64_t ldk, double scale)
{
    struct heads x = {(int)h, (int)g, (int)c, ldq, ldk, (float)scale};
    struct given y = {(const real *)d_o, (const real *)q, (const real *)k,
                      (const real *)v,   (const real *)o, (const stat *)lse};
    unsigned blocks = (unsigned)cuda_lane(l)->processors * 16;
    if (c > MOST_C)
        die("attn_dgrad: heads of %lld; these kernels take up to %d", (long long)c, MOST_C);
    if (mma_attn_dgrad(l, dq, dk, dv, d_o, q, k, v, o, lse, s, x, tk))
        return;
    if (s.n)
        attn_dq_kernel<<<blocks, WARPS * LANES, 0, stream(l)>>>((real *)dq, y, s, x);
    attn_dkv_kernel<<<blocks, WARPS * LANES, 0, stream(l)>>>((real *)dk, (real *)dv, y, s, x, tk);
    launched("attn_dgrad", "%lld,%lld,%lld,%lld", (long long)s.n, (long long)h, (long long)g,
             (long long)c);
}
