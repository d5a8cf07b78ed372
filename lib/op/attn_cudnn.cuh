/* attn_cudnn.cuh -- attention by cuDNN, for bf16: spans as its batch, the mask, and plans kept.
 *
 * To cuDNN a span is an entry of a batch.  Where it begins and how long it is stand in arrays on
 * the device (`ragged`), so one plan serves all spans within its bounds; making one takes a fifth
 * of a second, so bounds are rounded up and a run meets few.  Where all spans are whole, strides
 * say where they begin, which is some 6 % faster, and the arrays are not there.
 *
 * Queries that see no key are left out of their span and get their 0 here: so a span that sees its
 * own rows only is square, and its mask is the plain causal one. */
#ifndef ATTN_CUDNN_CUH
#define ATTN_CUDNN_CUH

#include "attn.cuh"
#include "cudnn.cuh"

#include <stdlib.h>

enum { LEAST_LENGTH = 1024, WIDEST_HEAD = 128 };

struct attn_shape { /* what a plan depends on */
    int64_t grad, whole;
    int64_t spans, queries, keys; /* bounds */
    int64_t h, g, c, cv, ldq, ldk;
};
struct attn_plan {
    struct attn_shape shape;
    struct dnn_plan plan;
};

/* clang-format off */
enum { /* ids of what a plan is given */
    AT_SCALE = 1, AT_MINUS_INF, AT_ONE,
    AT_Q, AT_K, AT_V, AT_O, AT_LSE, AT_DO, AT_DQ, AT_DK, AT_DV,
    AT_DELTA,                 /* (Tq,H) f32: <dO, O> */
    AT_DQ_SUM,                /* (Tq,H,C), rows ldq apart, f32 */
    AT_QUERIES, AT_KEYS,      /* (spans) I32: how many */
    AT_FROM_Q, AT_FROM_K, AT_FROM_O, AT_FROM_LSE, /* (spans+1) I64: first element */
    AT_IDS
};
/* clang-format on */

/* ---- graphs ---- */

struct attn_graph {
    struct dnn_graph g;
    struct attn_shape x;
    struct dnn_tensor queries, keys, from_q, from_k, from_o, from_lse; /* if ragged */
    struct dnn_tensor scale, minus_inf;
};

/* A batch of spans in rows, as (spans, heads, rows, c). */
static inline struct dnn_view rows_view(int64_t spans, int64_t heads, int64_t rows, int64_t c,
                                        int64_t ld)
{
    return (struct dnn_view){{spans, heads, rows, c}, {rows * ld, c, ld, 1}};
}
static inline struct dnn_tensor q_rows(struct attn_graph *a, int64_t id) /* q, dq */
{
    const struct attn_shape *x = &a->x;
    return stored(&a->g, id, DNN_BF16, rows_view(x->spans, x->h, x->queries, x->c, x->ldq),
                  a->from_q);
}
static inline struct dnn_tensor o_rows(struct attn_graph *a, int64_t id) /* o, dO */
{
    const struct attn_shape *x = &a->x;
    return stored(&a->g, id, DNN_BF16, rows_view(x->spans, x->h, x->queries, x->cv, x->h * x->cv),
                  a->from_o);
}
static inline struct dnn_view k_view(const struct attn_shape *x)
{
    return rows_view(x->spans, x->g, x->keys, x->c, x->ldk);
}
static inline struct dnn_view v_view(const struct attn_shape *x)
{
    return rows_view(x->spans, x->g, x->keys, x->cv, x->ldk);
}
static inline struct dnn_tensor k_rows(struct attn_graph *a, int64_t id) /* dk */
{
    return stored(&a->g, id, DNN_BF16, k_view(&a->x), a->from_k);
}
static inline struct dnn_tensor v_rows(struct attn_graph *a, int64_t id) /* v, dv */
{
    return stored(&a->g, id, DNN_BF16, v_view(&a->x), a->from_k);
}
static inline struct dnn_tensor k_columns(struct attn_graph *a, int64_t id) /* k^T */
{
    return stored(&a->g, id, DNN_BF16, dnn_turned(k_view(&a->x)), a->from_k);
}
static inline struct dnn_tensor v_columns(struct attn_graph *a, int64_t id) /* v^T */
{
    return stored(&a->g, id, DNN_BF16, dnn_turned(v_view(&a->x)), a->from_k);
}
/* A number for each query and head.  cuDNN 9.19 keeps to rows of heads only where spans are ragged.
 */
static inline struct dnn_tensor of_heads(struct attn_graph *a, int64_t id) /* lse, delta */
{
    const struct attn_shape *x = &a->x;
    return stored(&a->g, id, DNN_F32,
                  x->whole ? dnn_dense(x->spans, x->h, x->queries, 1)
                           : rows_view(x->spans, x->h, x->queries, 1, x->h),
                  a->from_lse);
}
/* (spans, H, queries, keys), and a number for each of its rows. */
static inline struct dnn_tensor scores(struct attn_graph *a, cudnnDataType_t type)
{
    return inside(&a->g, type, dnn_dense(a->x.spans, a->x.h, a->x.queries, a->x.keys));
}
static inline struct dnn_tensor column(struct attn_graph *a)
{
    return inside(&a->g, DNN_F32, dnn_dense(a->x.spans, a->x.h, a->x.queries, 1));
}

static inline void attn_graph_begin(struct attn_graph *a, const struct attn_shape *x)
{
    struct dnn_graph *g = &a->g;
    memset(a, 0, sizeof *a);
    a->x = *x;
    snprintf(g->what, sizeof g->what, "%s of %lld spans to %lldx%lld, %lld/%lld heads of %lld%s",
             x->grad ? "attn_dgrad" : "attn", (long long)x->spans, (long long)x->queries,
             (long long)x->keys, (long long)x->h, (long long)x->g, (long long)x->c,
             x->whole ? ", whole" : "");
    a->scale = scalar(g, AT_SCALE);
    a->minus_inf = scalar(g, AT_MINUS_INF);
    if (x->whole)
        return;
    struct dnn_view of_span = dnn_dense(x->spans, 1, 1, 1), ends = dnn_dense(x->spans + 1, 1, 1, 1);
    a->queries = stored(g, AT_QUERIES, DNN_I32, of_span);
    a->keys = stored(g, AT_KEYS, DNN_I32, of_span);
    a->from_q = stored(g, AT_FROM_Q, DNN_I64, ends);
    a->from_k = stored(g, AT_FROM_K, DNN_I64, ends);
    a->from_o = stored(g, AT_FROM_O, DNN_I64, ends);
    a->from_lse = stored(g, AT_FROM_LSE, DNN_I64, ends);
}

static inline struct dnn_tensor index_in(struct attn_graph *a, struct dnn_tensor s, int64_t axis)
{
    return pointwise(&a->g, scores(a, DNN_I32), DNN_INDEX, s, {}, {}, axis);
}
/* s where truth, else -inf. */
static inline struct dnn_tensor where(struct attn_graph *a, struct dnn_tensor s,
                                      struct dnn_tensor truth)
{
    return pointwise(&a->g, scores(a, DNN_F32), DNN_SELECT, s, a->minus_inf, truth);
}

/* s where query and key are in the span, then where the query sees the key.  cuDNN knows the mask
 * by the order of these operations.  The backward kernel takes twice as long for the mask of a span
 * with more keys than queries, so it gets square ones only. */
static inline struct dnn_tensor masked(struct attn_graph *a, struct dnn_tensor s)
{
    struct dnn_graph *g = &a->g;
    struct dnn_tensor row, key;
    if (!a->x.whole) {
        row = index_in(a, s, 2);
        key = index_in(a, s, 3);
        row = pointwise(g, scores(a, DNN_TRUTH), DNN_LESS, row, a->queries);
        key = pointwise(g, scores(a, DNN_TRUTH), DNN_LESS, key, a->keys);
        s = where(a, s, pointwise(g, scores(a, DNN_TRUTH), DNN_AND, row, key));
    }
    row = index_in(a, s, 2);
    key = index_in(a, s, 3);
    if (!a->x.whole && !a->x.grad) {
        row = pointwise(g, scores(a, DNN_I32), DNN_ADD, row, a->keys, {}, 3);
        row = pointwise(g, scores(a, DNN_I32), DNN_SUB, row, a->queries, {}, 3);
    }
    return where(a, s, pointwise(g, scores(a, DNN_TRUTH), DNN_AT_LEAST, row, key));
}

/* ---- spans ---- */

/* What remains of span i: its last queries, as many as see a key. */
static __device__ __forceinline__ int queries_seeing(const struct spans &s, int64_t i)
{
    return MIN(s.q_at[i + 1] - s.q_at[i], MAX(0, s.k_end[i] - s.k_beg[i]));
}

/* Entries of at[AT_QUERIES] and after; those behind the last span are empty and begin where it
 * ends: cuDNN wants beginnings that do not fall. */
static __global__ void span_arrays_kernel(int32_t *queries, int32_t *keys, int64_t *from_q,
                                          int64_t *from_k, int64_t *from_o, int64_t *from_lse,
                                          struct spans s, struct heads x, int64_t bound)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i > bound)
        return;
    int n = i < s.n ? queries_seeing(s, i) : 0;
    int64_t q = s.q_at[MIN(i + 1, s.n)] - n, k = i < s.n ? s.k_beg[i] : s.k_end[s.n - 1];
    from_q[i] = q * x.ldq;
    from_k[i] = k * x.ldk;
    from_o[i] = q * x.h * x.cv;
    from_lse[i] = q * x.h;
    if (i < bound) {
        queries[i] = n;
        keys[i] = n ? s.k_end[i] - s.k_beg[i] : 0;
    }
}

/* ---- plans ---- */

static inline int64_t bound_of(int64_t n, int64_t least)
{
    while (least < n)
        least *= 2;
    return least;
}

/* The plan for a shape, made by `graph` when it is met first; NULL: cuDNN has none. */
static inline const struct dnn_plan *attn_plan_of(struct lane *l, const struct attn_shape *shape,
                                                  void (*graph)(struct attn_graph *a))
{
    struct cuda_lane *c = cuda_lane(l);
    struct attn_plan *p = c->attn;
    while (p < c->attn + c->attns && memcmp(&p->shape, shape, sizeof *shape))
        p++;
    if (p == c->attn + c->attns) {
        static struct dnn_plan none = {"cuDNN"};
        if (!c->dnn) {
            dnn(&none, cudnnCreate(&c->dnn));
            dnn(&none, cudnnSetStream(c->dnn, c->stream));
        }
        struct attn_graph a;
        attn_graph_begin(&a, shape);
        graph(&a);
        c->attn = (struct attn_plan *)xrealloc(c->attn, (size_t)(c->attns + 1) * sizeof *p);
        p = &c->attn[c->attns++];
        *p = (struct attn_plan){*shape, dnn_plan_make(&a.g, c->dnn)};
    }
    return p->plan.desc ? &p->plan : NULL;
}

/* Whether cuDNN may be asked: heads and rows that it can load 16 bytes at a time, of latent
 * attention those of DeepSeek's models. */
static inline int dnn_takes(const struct heads &x, uintptr_t pointers /* of all tensors, or-ed */)
{
    int usual = x.c % 16 == 0 && x.c <= WIDEST_HEAD && x.cv == x.c;
    int latent = x.c == 192 && x.cv == 128;
    return REAL_TYPE == DT_BF16 && (usual || latent) && x.ldq % 8 == 0 && x.ldk % 8 == 0 &&
           pointers % 16 == 0;
}

static inline struct attn_shape shape_of(const struct spans &s, const struct heads &x, int grad)
{
    struct attn_shape y = {grad, s.whole, s.n,  s.queries, s.keys, x.h,
                           x.g,  x.c,     x.cv, x.ldq,     x.ldk};
    if (!s.whole) {
        y.spans = bound_of(s.n, 1);
        y.queries = bound_of(s.queries, LEAST_LENGTH);
        y.keys = grad ? y.queries : bound_of(s.keys, LEAST_LENGTH);
    }
    return y;
}

/* Zeroes a row of n elements, 16 bytes at a time, by a warp. */
static __device__ __forceinline__ void row_zero(real *p, int64_t n)
{
    for (int64_t i = threadIdx.x % LANES; i < n * (int64_t)sizeof(real) / 16; i += LANES)
        ((uint4 *)p)[i] = make_uint4(0, 0, 0, 0);
}

/* y (spans,B,A) = x (spans,A,B): between cuDNN's order of lse and ours. */
static __global__ void turn_kernel(stat *y, const stat *x, int64_t n, int64_t a, int64_t b)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * a * b;
         i += (int64_t)gridDim.x * blockDim.x)
        y[i] = x[i / (a * b) * a * b + i % a * b + i / a % b];
}

template <typename T>
static T *lane_take(struct lane *l, int64_t n)
{
    return (T *)arena_take(&l->scratch, n * (int64_t)sizeof(T));
}

/* Runs the plan on the tensors in `at`, to which are added those of the spans. */
static inline void attn_plan_run(struct lane *l, const struct dnn_plan *p,
                                 const struct attn_shape &shape, struct spans s, struct heads x,
                                 void **at)
{
    float one = 1, minus_inf = -INFINITY;
    at[AT_SCALE] = &x.scale;
    at[AT_ONE] = &one;
    at[AT_MINUS_INF] = &minus_inf;
    if (!shape.whole) {
        int64_t ends = shape.spans + 1;
        for (int id = AT_QUERIES; id < AT_IDS; id++)
            at[id] = lane_take<int64_t>(l, ends);
        span_arrays_kernel<<<blocks_of(ends, 256), 256, 0, stream(l)>>>(
            (int32_t *)at[AT_QUERIES], (int32_t *)at[AT_KEYS], (int64_t *)at[AT_FROM_Q],
            (int64_t *)at[AT_FROM_K], (int64_t *)at[AT_FROM_O], (int64_t *)at[AT_FROM_LSE], s, x,
            shape.spans);
        launched("attn", "%lld", (long long)shape.spans);
    }
    dnn_plan_run(p, cuda_lane(l)->dnn, at, lane_take<char>(l, p->workspace));
}

#endif
