/* seg_attn.c -- attention(norm(x)) Wout, grouped-query attention with rotary positions and QK-norm
 * before them in the families that have it; seg_route.c adds x as it takes the next norm.
 *
 * Kept: x, rstd, qkv, o, lse.  The normed input is computed again in the weight gradient; it costs
 * two passes over x and saves a tensor of its size.
 *
 * Without QK-norm qkv is turned in place, since turning back is exact.  A norm's gradient needs
 * what went into it, and that cannot be had from what came out: where a weight is small, dividing
 * by it brings up the rounding of the element it was turned with.  So qkv is kept as the product
 * gave it, attention sees normed and turned queries and keys in scratch memory, and backward makes
 * these again, in one pass that is small beside the products. */
#include "model/model_priv.h"

struct heads { /* where queries, keys and values lie in rows of (H + 2G) C */
    char *q, *k, *v;
    int64_t ld;
};

static struct heads heads_in(const struct model *m, void *qkv)
{
    int64_t rsz = real_size(m);
    struct heads h = {qkv, NULL, NULL, (m->h + 2 * m->g) * m->c};
    h.k = h.q + m->h * m->c * rsz;
    h.v = h.k + m->g * m->c * rsz;
    return h;
}

static int64_t qkv_bytes(const struct task_context *t)
{
    return t->b->t * (t->m->h + 2 * t->m->g) * t->m->c * real_size(t->m);
}

/* Queries and keys as rope takes them. */
static struct qk qk_of(const struct task_context *t)
{
    const struct model *m = t->m;
    return (struct qk){m->h,
                       m->g,
                       m->c,
                       (m->h + 2 * m->g) * m->c,
                       weights(t)->w[P_QKNORM],
                       m->cfg.qk_whole,
                       m->mesh.tp,
                       m->cfg.eps};
}

/* S (T,2) over all heads where a norm spans those of other ranks too; else NULL. */
static void *dots_over_tp(struct task_context *t, const struct qk *n, const void *a, const void *b)
{
    struct model *m = t->m;
    if (!n->w || !n->whole || n->ranks == 1)
        return NULL;
    void *dot = scratch(t, t->b->t * 2 * stat_size(m));
    m->op->qk_dots(t->l, dot, a, b, t->b->t, n);
    comm_all_reduce(m->comm[GROUP_TP], t->l, dot, t->b->t * 2, m->op->stat, COMM_SUM);
    return dot;
}

/* As attention sees them, and the norms' rstd, S (T,norms) scratch.  What is to be kept stays as it
 * is, with the values; otherwise qkv changes in place. */
static struct heads turned(struct task_context *t, struct heads qkv, int keep, void **rstd)
{
    struct model *m = t->m;
    const struct batch *b = t->b;
    struct qk n = qk_of(t);
    struct heads to = qkv;
    if (keep) {
        to = heads_in(m, scratch(t, qkv_bytes(t))); /* values are a hole in these rows */
        to.v = qkv.v;
    }
    *rstd = n.w ? scratch(t, b->t * qk_norms(&n) * stat_size(m)) : NULL;
    m->op->rope(t->l, to.q, *rstd, qkv.q, dots_over_tp(t, &n, qkv.q, qkv.q), b->position, m->freq,
                b->t, &n);
    return to;
}

/* Keys or values, as h has them, or both: R (T,cols). */
static struct mat rows_of(const struct task_context *t, const void *p, int64_t cols, int64_t ld)
{
    struct mat x = real_mat(t->m, p, t->b->t, cols);
    x.ld = ld;
    return x;
}

static struct heads with_kv(const struct model *m, struct heads h, void *kv)
{
    return (struct heads){h.q, kv, (char *)kv + m->g * m->c * real_size(m), 2 * m->g * m->c};
}

/* The keys and values that this step's queries see: its own; under context parallelism those of the
 * whole rows; when decoding those in the cache, which its own join first. */
static struct heads keys_of(struct task_context *t, struct heads h)
{
    struct model *m = t->m;
    struct cache *cache = t->b->cache;
    int64_t wide = m->g * m->c;
    if (t->b->context)
        return with_kv(m, h,
                       context_gather(t, rows_of(t, h.k, wide, h.ld), rows_of(t, h.v, wide, h.ld)));
    if (!cache)
        return h;
    m->op->scatter_rows(t->l, real_mat(m, cache->kv[t->layer], cache->rows, 2 * wide),
                        rows_of(t, h.k, 2 * wide, h.ld), t->b->cache_row);
    return with_kv(m, h, cache->kv[t->layer]);
}

void attn_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    const struct batch *b = t->b;
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m), ssz = stat_size(m);

    void *x = attn_normed(t, saved_keep(s, SLOT_RSTD1, n * ssz)); /* R (T,D) */
    struct heads h = heads_in(m, saved_keep(s, SLOT_QKV, qkv_bytes(t)));
    m->op->gemm(t->l, real_mat(m, h.q, b->t, h.ld), real_mat(m, x, b->t, d),
                real_mat(m, weights(t)->w[P_QKV], h.ld, d), 0, 1, 0);
    if (weights(t)->w[P_QKV_BIAS])
        m->op->add_bias(t->l, h.q, weights(t)->w[P_QKV_BIAS], b->t, h.ld);
    int keep = weights(t)->g[P_QKNORM] && !b->cache; /* no backward pass sees a cache */
    void *rstd;
    h = turned(t, h, keep, &rstd);

    void *o = saved_keep(s, SLOT_O, b->t * m->h * m->c * rsz);
    void *lse = saved_keep(s, SLOT_LSE, b->t * m->h * ssz);
    struct heads kv = keys_of(t, h);
    m->op->attn(t->l, o, lse, h.q, kv.k, kv.v, attn_spans(b), m->h, m->g, m->c, m->c, h.ld, kv.ld,
                m->scale);
    attn_out(t);
}

void attn_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    const struct batch *b = t->b;
    int64_t d = m->cfg.d, rsz = real_size(m);

    void *d_o = attn_out_dgrad(t); /* R (T,HC) */

    struct qk qk = qk_of(t);
    struct heads qkv = heads_in(m, saved_fetch(s, SLOT_QKV)), h = qkv;
    void *rstd = NULL, *part = NULL;
    if (qk.w) {
        h = turned(t, qkv, 1, &rstd);
        part = saved_keep(s, SLOT_DQKNORM, QK_PARTS * qk_weights(&qk) * stat_size(m));
    }
    struct heads dh = heads_in(m, saved_keep(s, SLOT_DQKV, qkv_bytes(t)));
    struct heads kv = keys_of(t, h), dkv = dh;
    int64_t keys = b->context ? b->context->tokens : b->t;
    if (b->context)
        dkv = with_kv(m, dh, scratch(t, keys * 2 * m->g * m->c * rsz)); /* R (tokens,2GC) */
    m->op->attn_dgrad(t->l, dh.q, dkv.k, dkv.v, d_o, h.q, kv.k, kv.v, saved_fetch(s, SLOT_O),
                      saved_fetch(s, SLOT_LSE), attn_spans(b), keys, m->h, m->g, m->c, m->c, h.ld,
                      kv.ld, m->scale);
    if (b->context)
        context_scatter(t, rows_of(t, dh.k, m->g * m->c, dh.ld),
                        rows_of(t, dh.v, m->g * m->c, dh.ld), dkv.k);
    m->op->rope_dgrad(t->l, dh.q, part, dh.q, qkv.q, rstd, dots_over_tp(t, &qk, dh.q, h.q),
                      b->position, m->freq, b->t, &qk);

    char *dx = scratch(t, b->t * d * rsz); /* R (T,D) partial over TP */
    m->op->gemm(t->l, real_mat(m, dx, b->t, d), real_mat(m, dh.q, b->t, dh.ld),
                real_mat(m, weights(t)->w[P_QKV], dh.ld, d), 0, 0, 0);
    attn_in_dgrad(t, dx);
}

void attn_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct weights *w = weights(t);
    int64_t n = local_tokens(t), d = m->cfg.d, wide = (m->h + 2 * m->g) * m->c;
    struct qk qk = qk_of(t);

    attn_out_wgrad(t);
    void *x = attn_normed(t, scratch(t, n * stat_size(m)));
    m->op->gemm(t->l, grad_mat(m, w->g[P_QKV], wide, d),
                real_mat(m, saved_fetch(s, SLOT_DQKV), t->b->t, wide), real_mat(m, x, t->b->t, d),
                1, 0, t->add);
    if (w->g[P_QKV_BIAS])
        m->op->bias_wgrad(t->l, grad_mat(m, w->g[P_QKV_BIAS], 1, wide), saved_fetch(s, SLOT_DQKV),
                          t->b->t, t->add);
    if (qk.w)
        m->op->rope_wgrad(t->l, grad_mat(m, w->g[P_QKNORM], 1, qk_weights(&qk)),
                          saved_fetch(s, SLOT_DQKNORM), t->add);
    static const enum slot done[] = {SLOT_X,   SLOT_RSTD1, SLOT_QKV,  SLOT_O,       SLOT_LSE,
                                     SLOT_DY1, SLOT_DX1,   SLOT_DQKV, SLOT_DQKNORM, SLOT_X1};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
}
