/* attn.cu -- causal softmax attention over spans, forward: o = softmax(scale q k^T) v by head.
 *
 * Bound: tensor cores, 4 C operations a query, head and key seen.  The kernel here is the plain
 * one, for any head size and as a witness: a warp takes a query of a head and goes through its keys
 * with a running maximum.  attn_mma.cuh takes bf16 heads of 64 and 128. */
#include "attn.cuh"
#include "attn_mma.cuh"
#include "attn_one.cuh"

enum { WARPS = 4 };

static __global__ void attn_kernel(real *o, stat *lse, const real *q, const real *k, const real *v,
                                   struct spans s, struct heads x)
{
    int64_t items = (int64_t)s.q_at[s.n] * x.h, warps = (int64_t)gridDim.x * WARPS;
    for (int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; item < items;
         item += warps) {
        int64_t t = item / x.h, head = item % x.h, kv = head / (x.h / x.g) * x.c;
        int i = span_of(s, t);
        int64_t end = keys_end(s, i, t);
        float a[PER_LANE], b[PER_LANE], sum[PER_LANE] = {}, max = -INFINITY, all = 0;
        row_load(a, q + t * x.ldq + head * x.c, x.c);
        for (int64_t j = s.k_beg[i]; j < end; j++) {
            row_load(b, k + j * x.ldk + kv, x.c);
            float score = row_dot(a, b) * x.scale, top = fmaxf(max, score);
            float shrink = expf(max - top), p = expf(score - top);
            row_load(b, v + j * x.ldk + kv, x.c);
#pragma unroll
            for (int c = 0; c < PER_LANE; c++)
                sum[c] = sum[c] * shrink + p * b[c];
            all = all * shrink + p;
            max = top;
        }
#pragma unroll
        for (int c = 0; c < PER_LANE; c++)
            sum[c] = all > 0 ? sum[c] / all : 0;
        row_store(o + item * x.c, sum, x.c);
        if (threadIdx.x % LANES == 0)
            lse[item] = max + logf(all);
    }
}

extern "C" void OPNAME(attn)(struct lane *l, void *o, void *lse, const void *q, const void *k,
                             const void *v, struct spans s, int64_t h, int64_t g, int64_t c,
                             int64_t ldq, int64_t ldk, double scale)
{
    struct heads x = {(int)h, (int)g, (int)c, ldq, ldk, (float)scale};
    if (c > MOST_C)
        die("attn: heads of %lld; these kernels take up to %d", (long long)c, MOST_C);
    if (!s.n || one_attn(l, o, lse, q, k, v, s, x) || mma_attn(l, o, lse, q, k, v, s, x))
        return;
    attn_kernel<<<cuda_lane(l)->processors * 16, WARPS * LANES, 0, stream(l)>>>(
        (real *)o, (stat *)lse, (const real *)q, (const real *)k, (const real *)v, s, x);
    launched("attn", "%lld,%lld,%lld,%lld", (long long)s.n, (long long)h, (long long)g,
             (long long)c);
}
