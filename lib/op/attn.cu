/* attn.cu -- causal softmax attention over spans, forward: o = softmax(scale q k^T) v by head.
 *
 * Bound: tensor cores, 4 C operations a query, head and key seen.  cuDNN does it for bf16; the
 * kernel here is the plain one, for what cuDNN does not take and as a witness: a warp takes a query
 * of a head and goes through its keys with a running maximum. */
#include "attn_cudnn.cuh"
#include "attn_one.cuh"

enum { WARPS = 4 };

static __global__ void attn_kernel(real *o, stat *lse, const real *q, const real *k, const real *v,
                                   struct spans s, struct heads x)
{
    int64_t items = (int64_t)s.q_at[s.n] * x.h, warps = (int64_t)gridDim.x * WARPS;
    for (int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; item < items;
         item += warps) {
        int64_t t = item / x.h, head = item % x.h, kv = head / (x.h / x.g);
        int i = span_of(s, t);
        int64_t end = keys_end(s, i, t);
        float a[PER_LANE], b[PER_LANE], sum[PER_LANE] = {}, max = -INFINITY, all = 0;
        row_load(a, q + t * x.ldq + head * x.c, x.c);
        for (int64_t j = s.k_beg[i]; j < end; j++) {
            row_load(b, k + j * x.ldk + kv * x.c, x.c);
            float score = row_dot(a, b) * x.scale, top = fmaxf(max, score);
            float shrink = expf(max - top), p = expf(score - top);
            row_load(b, v + j * x.ldk + kv * x.cv, x.cv);
#pragma unroll
            for (int c = 0; c < PER_LANE; c++)
                sum[c] = sum[c] * shrink + p * b[c];
            all = all * shrink + p;
            max = top;
        }
#pragma unroll
        for (int c = 0; c < PER_LANE; c++)
            sum[c] = all > 0 ? sum[c] / all : 0;
        row_store(o + item * x.cv, sum, x.cv);
        if (threadIdx.x % LANES == 0)
            lse[item] = max + logf(all);
    }
}

/* ---- by cuDNN ---- */

static void attn_graph(struct attn_graph *a)
{
    struct dnn_graph *g = &a->g;
    struct dnn_tensor q = q_rows(a, AT_Q), kt = k_columns(a, AT_K), v = v_rows(a, AT_V);
    struct dnn_tensor s, p, max, sum;

    s = matmul(g, scores(a, DNN_F32), q, kt, a->queries, a->keys, {});
    s = masked(a, pointwise(g, scores(a, DNN_F32), DNN_MUL, s, a->scale));

    max = reduce(g, column(a), DNN_MOST, s);
    p = pointwise(g, scores(a, DNN_F32), DNN_SUB, s, max);
    p = pointwise(g, scores(a, DNN_F32), DNN_EXP, p);
    sum = reduce(g, column(a), DNN_SUM, p);
    pointwise(g, of_heads(a, AT_LSE), DNN_ADD, max, pointwise(g, column(a), DNN_LOG, sum));
    p = pointwise(g, scores(a, DNN_BF16), DNN_DIV, p, sum);

    matmul(g, o_rows(a, AT_O), p, v, a->queries, {}, a->keys);
}

/* What queries give that see no key, a warp each. */
static __global__ void unseeing_kernel(real *o, stat *lse, struct spans s, struct heads x)
{
    int64_t warps = (int64_t)gridDim.x * WARPS;
    for (int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; t < s.q_at[s.n];
         t += warps) {
        int i = span_of(s, t);
        if (keys_end(s, i, t) > s.k_beg[i])
            continue;
        row_zero(o + t * x.h * x.cv, x.h * x.cv);
        for (int h = threadIdx.x % LANES; h < x.h; h += LANES)
            lse[t * x.h + h] = -INFINITY;
    }
}

static int attn_by_cudnn(struct lane *l, void *o, void *lse, const void *q, const void *k,
                         const void *v, struct spans s, struct heads x)
{
    struct attn_shape shape = shape_of(s, x, 0);
    const struct dnn_plan *p = NULL;
    if (dnn_takes(x, (uintptr_t)o | (uintptr_t)lse | (uintptr_t)q | (uintptr_t)k | (uintptr_t)v))
        p = attn_plan_of(l, &shape, attn_graph);
    if (!p)
        return 0;
    struct arena_mark mark = arena_mark(&l->scratch);
    void *at[AT_IDS] = {};
    at[AT_Q] = (void *)q, at[AT_K] = (void *)k, at[AT_V] = (void *)v;
    at[AT_O] = o, at[AT_LSE] = lse;
    unsigned blocks = (unsigned)cuda_lane(l)->processors * 8;
    if (s.whole)
        at[AT_LSE] = lane_take<stat>(l, s.n * s.queries * x.h);
    else
        unseeing_kernel<<<blocks, WARPS * LANES, 0, stream(l)>>>((real *)o, (stat *)lse, s, x);
    attn_plan_run(l, p, shape, s, x, at);
    if (s.whole)
        turn_kernel<<<blocks, 256, 0, stream(l)>>>((stat *)lse, (stat *)at[AT_LSE], s.n, x.h,
                                                   s.queries);
    launched("attn", "%s", p->what);
    arena_back(&l->scratch, mark);
    return 1;
}

extern "C" void OPNAME(attn)(struct lane *l, void *o, void *lse, const void *q, const void *k,
                             const void *v, struct spans s, int64_t h, int64_t g, int64_t c,
                             int64_t cv, int64_t ldq, int64_t ldk, double scale)
{
    struct heads x = {(int)h, (int)g, (int)c, (int)cv, ldq, ldk, (float)scale};
    if (c > MOST_C)
        die("attn: heads of %lld; these kernels take up to %d", (long long)c, MOST_C);
    if (!s.n || one_attn(l, o, lse, q, k, v, s, x) || attn_by_cudnn(l, o, lse, q, k, v, s, x))
        return;
    attn_kernel<<<cuda_lane(l)->processors * 16, WARPS * LANES, 0, stream(l)>>>(
        (real *)o, (stat *)lse, (const real *)q, (const real *)k, (const real *)v, s, x);
    launched("attn", "%lld,%lld,%lld,%lld", (long long)s.n, (long long)h, (long long)g,
             (long long)c);
}
