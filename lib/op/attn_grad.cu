/* attn_grad.cu -- causal softmax attention over spans, backward.
 *
 * P = exp(scale q k^T - lse), dV = P^T dO, dS = scale P (dO V^T - delta) with delta = <dO, O>, dQ =
 * dS K, dK = dS^T Q.  Bound: tensor cores, 10 C operations a query, head and key seen.  cuDNN does
 * it for bf16 where spans are whole, or see keys of their own with a key head for each query head;
 * it adds to dQ in no fixed order.  For the same bits again and for other spans attn_grad_mma.cuh
 * does (bf16 heads of 64 and 128).  The kernels here are the plain ones: one goes by queries and
 * makes dq, another goes by keys and makes dk and dv, and nothing is added atomically. */
#include "attn_cudnn.cuh"
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
        int64_t t = item / x.h, head = item % x.h, kv = head / (x.h / x.g);
        int i = span_of(s, t);
        int64_t end = keys_end(s, i, t);
        float q[PER_LANE], g[PER_LANE], b[PER_LANE], sum[PER_LANE] = {};
        row_load(q, y.q + t * x.ldq + head * x.c, x.c);
        row_load(g, y.d_o + item * x.cv, x.cv);
        row_load(b, y.o + item * x.cv, x.cv);
        float delta = row_dot(g, b), lse = y.lse[item];
        for (int64_t j = s.k_beg[i]; j < end; j++) {
            row_load(b, y.v + j * x.ldk + kv * x.cv, x.cv);
            float dp = row_dot(g, b);
            row_load(b, y.k + j * x.ldk + kv * x.c, x.c);
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
        int64_t j = item / x.g, kv = item % x.g;
        int64_t at_k = j * x.ldk + kv * x.c, at_v = j * x.ldk + kv * x.cv;
        float k[PER_LANE], v[PER_LANE], q[PER_LANE], g[PER_LANE], b[PER_LANE];
        float sum_k[PER_LANE] = {}, sum_v[PER_LANE] = {};
        row_load(k, y.k + at_k, x.c);
        row_load(v, y.v + at_v, x.cv);
        for (int i = 0; i < s.n; i++) {
            if (j < s.k_beg[i] || j >= s.k_end[i])
                continue;
            int64_t beg = s.q_at[i], end = s.q_at[i + 1];
            /* the first query that sees key j is as far from the end as the key is */
            for (int64_t t = MAX(beg, end - (s.k_end[i] - j)); t < end; t++)
                for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
                    int64_t row = t * x.h + head;
                    row_load(q, y.q + t * x.ldq + head * x.c, x.c);
                    row_load(g, y.d_o + row * x.cv, x.cv);
                    row_load(b, y.o + row * x.cv, x.cv);
                    float p = expf(row_dot(q, k) * x.scale - y.lse[row]);
                    float ds = p * (row_dot(g, v) - row_dot(g, b)) * x.scale;
#pragma unroll
                    for (int c = 0; c < PER_LANE; c++) {
                        sum_v[c] += p * g[c];
                        sum_k[c] += ds * q[c];
                    }
                }
        }
        row_store(dk + at_k, sum_k, x.c);
        row_store(dv + at_v, sum_v, x.cv);
    }
}

/* ---- by cuDNN ---- */

/* The gradient p^T x of keys or values: of each query head, then added up over those that share. */
static void keys_grad(struct attn_graph *a, int64_t id, struct dnn_tensor p, struct dnn_tensor x)
{
    struct dnn_graph *g = &a->g;
    const struct attn_shape *y = &a->x;
    struct dnn_view turned = dnn_turned(dnn_dense(y->spans, y->h, y->queries, y->keys));
    struct dnn_tensor pt = reshape(g, inside(g, DNN_BF16, turned), p), heads;
    struct dnn_tensor out = id == AT_DV ? v_rows(a, id) : k_rows(a, id);
    if (y->h == y->g) {
        matmul(g, out, pt, x, a->keys, {}, a->queries);
        return;
    }
    heads = inside(g, DNN_BF16, dnn_dense(y->spans, y->h, y->keys, id == AT_DV ? y->cv : y->c));
    matmul(g, heads, pt, x, a->keys, {}, a->queries);
    reduce(g, out, DNN_SUM, heads);
}

static void attn_grad_graph(struct attn_graph *a)
{
    struct dnn_graph *g = &a->g;
    const struct attn_shape *x = &a->x;
    struct dnn_tensor q = q_rows(a, AT_Q), kt = k_columns(a, AT_K), vt = v_columns(a, AT_V);
    struct dnn_tensor o = o_rows(a, AT_O), d_o = o_rows(a, AT_DO), k, s, p, ds, delta, sum;

    delta = inside(g, DNN_F32, dnn_dense(x->spans, x->h, x->queries, x->cv));
    delta = pointwise(g, delta, DNN_MUL, d_o, o);
    delta = reduce(g, column(a), DNN_SUM, delta);
    delta = pointwise(g, of_heads(a, AT_DELTA), DNN_MUL, delta, scalar(g, AT_ONE));

    s = matmul(g, scores(a, DNN_F32), q, kt, a->queries, a->keys, {});
    s = pointwise(g, scores(a, DNN_F32), DNN_MUL, s, a->scale);
    s = masked(a, pointwise(g, scores(a, DNN_F32), DNN_SUB, s, of_heads(a, AT_LSE)));
    p = pointwise(g, scores(a, DNN_F32), DNN_EXP, s);
    keys_grad(a, AT_DV, p, d_o);

    ds = matmul(g, scores(a, DNN_F32), d_o, vt, a->queries, a->keys, {});
    ds = pointwise(g, scores(a, DNN_F32), DNN_SUB, ds, delta);
    ds = pointwise(g, scores(a, DNN_F32), DNN_MUL, ds, p);
    ds = pointwise(g, scores(a, DNN_F32), DNN_MUL, ds, a->scale);
    keys_grad(a, AT_DK, ds, q);

    k = reshape(g, inside(g, DNN_BF16, k_view(x), a->from_k), kt);
    /* it takes the rows of this sum to be where those of dq are */
    sum = stored(g, AT_DQ_SUM, DNN_F32, rows_view(x->spans, x->h, x->queries, x->c, x->ldq),
                 a->from_q);
    sum = matmul(g, sum, ds, k, a->queries, {}, a->keys);
    pointwise(g, q_rows(a, AT_DQ), DNN_SAME, sum);
}

/* The gradients of queries that see no key, and of keys that no query sees: a warp a row. */
static __global__ void unseen_kernel(real *dq, real *dk, real *dv, struct spans s, struct heads x,
                                     int64_t tk)
{
    int64_t warps = (int64_t)gridDim.x * WARPS, queries = s.q_at[s.n];
    for (int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; t < tk; t += warps) {
        int i = t < queries ? span_of(s, t) : 0;
        if (t < queries && keys_end(s, i, t) <= s.k_beg[i])
            row_zero(dq + t * x.ldq, x.h * x.c);
        if (t < queries && s.k_beg[i] <= t && t < s.k_end[i])
            continue;
        row_zero(dk + t * x.ldk, x.g * x.c);
        row_zero(dv + t * x.ldk, x.g * x.cv);
    }
}

/* Spans of any length whose query heads share key heads are left out: there cuDNN 9.19 keeps dk and
 * dv of each query head in memory, and begins a span at H/G times where it begins in dk. */
static int attn_grad_by_cudnn(struct lane *l, real *dq, real *dk, real *dv, struct given y,
                              struct spans s, struct heads x, int64_t tk)
{
    struct attn_shape shape = shape_of(s, x, 1);
    const struct dnn_plan *p = NULL;
    if ((s.whole || x.h == x.g) &&
        dnn_takes(x, (uintptr_t)dq | (uintptr_t)dk | (uintptr_t)dv | (uintptr_t)y.d_o |
                         (uintptr_t)y.q | (uintptr_t)y.k | (uintptr_t)y.v | (uintptr_t)y.o |
                         (uintptr_t)y.lse))
        p = attn_plan_of(l, &shape, attn_grad_graph);
    if (!p)
        return 0;
    struct arena_mark mark = arena_mark(&l->scratch);
    void *at[AT_IDS] = {};
    at[AT_Q] = (void *)y.q, at[AT_K] = (void *)y.k, at[AT_V] = (void *)y.v;
    at[AT_O] = (void *)y.o, at[AT_DO] = (void *)y.d_o, at[AT_LSE] = (void *)y.lse;
    at[AT_DQ] = dq, at[AT_DK] = dk, at[AT_DV] = dv;
    at[AT_DELTA] = lane_take<float>(l, tk * x.h);
    at[AT_DQ_SUM] = lane_take<float>(l, tk * x.ldq);
    unsigned blocks = (unsigned)cuda_lane(l)->processors * 8;
    unseen_kernel<<<blocks, WARPS * LANES, 0, stream(l)>>>(dq, dk, dv, s, x, tk);
    if (s.whole) {
        at[AT_LSE] = lane_take<stat>(l, tk * x.h);
        turn_kernel<<<blocks, 256, 0, stream(l)>>>((stat *)at[AT_LSE], y.lse, s.n, s.queries, x.h);
    }
    attn_plan_run(l, p, shape, s, x, at);
    launched("attn_dgrad", "%s", p->what);
    arena_back(&l->scratch, mark);
    return 1;
}

extern "C" void OPNAME(attn_dgrad)(struct lane *l, void *dq, void *dk, void *dv, const void *d_o,
                                   const void *q, const void *k, const void *v, const void *o,
                                   const void *lse, struct spans s, int64_t tk, int64_t h,
                                   int64_t g, int64_t c, int64_t cv, int64_t ldq, int64_t ldk,
                                   double scale)
{
    struct heads x = {(int)h, (int)g, (int)c, (int)cv, ldq, ldk, (float)scale};
    struct given y = {(const real *)d_o, (const real *)q, (const real *)k,
                      (const real *)v,   (const real *)o, (const stat *)lse};
    unsigned blocks = (unsigned)cuda_lane(l)->processors * 16;
    if (c > MOST_C)
        die("attn_dgrad: heads of %lld; these kernels take up to %d", (long long)c, MOST_C);
    if (s.n && s.self && !l->deterministic &&
        attn_grad_by_cudnn(l, (real *)dq, (real *)dk, (real *)dv, y, s, x, tk))
        return;
    if (mma_attn_dgrad(l, dq, dk, dv, d_o, q, k, v, o, lse, s, x, tk))
        return;
    if (s.n)
        attn_dq_kernel<<<blocks, WARPS * LANES, 0, stream(l)>>>((real *)dq, y, s, x);
    attn_dkv_kernel<<<blocks, WARPS * LANES, 0, stream(l)>>>((real *)dk, (real *)dv, y, s, x, tk);
    launched("attn_dgrad", "%lld,%lld,%lld,%lld", (long long)s.n, (long long)h, (long long)g,
             (long long)c);
}
