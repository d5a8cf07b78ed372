/* seg_latent.c -- multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).
 *
 * Keys and values come from a latent of a token, c_kv = norm(down x), through a product that is cut
 * by heads over TP; so do queries, or straight from x.  A head's query and key have a part without
 * positions, which is its own, and a part that turns; that part of the key comes from x and all
 * heads share it.
 *
 * What is down is small: every rank of TP makes it whole, from all tokens, and its gradient is a
 * part of a sum, as that of x is.  Under context parallelism the latent and the shared key travel,
 * not the heads made of them.  Kept: what is down before its norms, queries, o, lse; keys and
 * values are made again in backward.  The cache of decoding holds the heads' keys and values, not
 * the latent. */
#include "model/model_priv.h"

/* Of the latents' norms, whatever rms_norm_eps says, as in the models' own code. */
#define EPS 1e-6

/* What is down: queries (T,q_rank), keys and values (T,kv_rank), the shared key (T,c_turn). */
enum part { PART_Q, PART_KV, PART_SHARED, PARTS };

static int64_t part_cols(const struct model *m, enum part i)
{
    const struct config *c = &m->cfg;
    return i == PART_Q ? c->q_rank : i == PART_KV ? c->kv_rank : c->c_turn;
}

static int64_t cols_before(const struct model *m, enum part end)
{
    int64_t n = 0;
    for (enum part i = 0; i < end; i++)
        n += part_cols(m, i);
    return n;
}

static int64_t down_bytes(const struct task_context *t)
{
    return t->b->t * cols_before(t->m, PARTS) * real_size(t->m);
}

/* The part in a block of such, R (T,cols); its rows of the matrix that makes it, (cols,D) from p
 * on, in elements of `size` bytes. */
static struct mat part_of(const struct task_context *t, void *block, enum part i)
{
    struct model *m = t->m;
    return real_mat(m, (char *)block + t->b->t * cols_before(m, i) * real_size(m), t->b->t,
                    part_cols(m, i));
}
static void *part_rows(const struct model *m, void *p, enum part i, int64_t size)
{
    return (char *)p + cols_before(m, i) * m->cfg.d * size;
}

/* norm of queries' or keys' latent: R (T,rank) scratch. */
static struct mat down_normed(struct task_context *t, enum part i)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct mat x = part_of(t, saved_fetch(s, SLOT_LATENT), i), y = x;
    char *rstd = (char *)saved_fetch(s, SLOT_LATENT_RSTD) + i * t->b->t * stat_size(m);
    y.data = scratch(t, x.rows * x.cols * real_size(m));
    m->op->rmsnorm(t->l, y.data, rstd, x.data, weights(t)->w[i == PART_Q ? P_Q_NORM : P_KV_NORM],
                   x.rows, x.cols, EPS);
    return y;
}

/* What keys are made of, of all tokens that this step's queries see. */
struct source {
    struct mat latent, shared; /* R (tokens,kv_rank), R (tokens,c_turn) */
};
static struct source source_of(struct task_context *t)
{
    struct model *m = t->m;
    const struct context *c = t->b->context;
    struct source x = {down_normed(t, PART_KV),
                       part_of(t, saved_fetch(&t->s[t->layer], SLOT_LATENT), PART_SHARED)};
    if (!c)
        return x;
    x.latent.data = context_gather(t, x.latent, x.shared);
    x.shared.data = (char *)x.latent.data + x.latent.cols * real_size(m);
    x.latent.rows = x.shared.rows = c->tokens;
    x.latent.ld = x.shared.ld = x.latent.cols + x.shared.cols;
    return x;
}

static int64_t kv_cols(const struct model *m) /* of keys and values as attention takes them */
{
    return m->h * (m->c + m->cv);
}
static struct mat kv_weight(const struct task_context *t)
{
    const struct config *c = &t->m->cfg;
    return real_mat(t->m, weights(t)->w[P_KV], t->m->h * (c->c_own + c->cv), c->kv_rank);
}

/* Keys of x's tokens, the values behind them in a row: R (tokens,HC+HCv) scratch. */
static char *heads_of(struct task_context *t, const struct source *x)
{
    struct model *m = t->m;
    struct mat w = kv_weight(t);
    int64_t n = x->latent.rows;
    void *b = scratch(t, n * w.rows * real_size(m)); /* R (tokens,H,c_own+Cv) */
    m->op->gemm(t->l, real_mat(m, b, n, w.rows), x->latent, w, 0, 1, 0);
    void *kv = scratch(t, n * kv_cols(m) * real_size(m));
    m->op->join_heads(t->l, kv, b, x->shared.data, n, m->h, m->c, m->cv, m->cfg.c_turn,
                      x->shared.ld);
    return kv;
}

/* Those of the tokens here join the cache, where attention finds all it sees. */
static char *cached(struct task_context *t, char *kv)
{
    struct model *m = t->m;
    struct cache *cache = t->b->cache;
    if (!cache)
        return kv;
    m->op->scatter_rows(t->l, real_mat(m, cache->kv[t->layer], cache->rows, kv_cols(m)),
                        real_mat(m, kv, t->b->t, kv_cols(m)), t->b->cache_row);
    return cache->kv[t->layer];
}

static struct mat queries_weight(const struct task_context *t)
{
    const struct config *c = &t->m->cfg;
    return real_mat(t->m, weights(t)->w[P_Q], t->m->h * t->m->c, c->q_rank ? c->q_rank : c->d);
}

static void turn(struct task_context *t, void *y, int64_t heads, int64_t c, int back)
{
    t->m->op->turn_pairs(t->l, y, t->b->position, t->m->freq, t->b->t, heads, c, t->m->cfg.c_turn,
                         t->m->turned, back);
}

void latent_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = t->b->t, d = m->cfg.d, rsz = real_size(m), ssz = stat_size(m);

    struct mat x =
        real_mat(m, attn_normed(t, saved_keep(s, SLOT_RSTD1, local_tokens(t) * ssz)), n, d);
    void *down = saved_keep(s, SLOT_LATENT, down_bytes(t));
    saved_keep(s, SLOT_LATENT_RSTD, 2 * n * ssz);
    for (enum part i = 0; i < PARTS; i++)
        if (part_cols(m, i))
            m->op->gemm(
                t->l, part_of(t, down, i), x,
                real_mat(m, part_rows(m, weights(t)->w[P_LATENT], i, rsz), part_cols(m, i), d), 0,
                1, 0);
    turn(t, part_of(t, down, PART_SHARED).data, 1, m->cfg.c_turn, 0);
    void *q = saved_keep(s, SLOT_QKV, n * m->h * m->c * rsz); /* R (T,HC) */
    m->op->gemm(t->l, real_mat(m, q, n, m->h * m->c), m->cfg.q_rank ? down_normed(t, PART_Q) : x,
                queries_weight(t), 0, 1, 0);
    turn(t, q, m->h, m->c, 0);

    struct source from = source_of(t);
    char *k = cached(t, heads_of(t, &from)), *v = k + m->h * m->c * rsz;
    void *o = saved_keep(s, SLOT_O, n * m->h * m->cv * rsz);
    m->op->attn(t->l, o, saved_keep(s, SLOT_LSE, n * m->h * ssz), q, k, v, attn_spans(t->b), m->h,
                m->h, m->c, m->cv, m->h * m->c, kv_cols(m), m->scale);
    attn_out(t);
}

/* The gradient of a latent before its norm, from dy of what came out, and the norm's. */
static void norm_dgrad(struct task_context *t, enum part i, const void *dy)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    enum role role = i == PART_Q ? P_Q_NORM : P_KV_NORM;
    struct mat x = part_of(t, saved_fetch(s, SLOT_LATENT), i);
    char *rstd = (char *)saved_fetch(s, SLOT_LATENT_RSTD) + i * t->b->t * stat_size(m);
    m->op->rmsnorm_grad(t->l, part_of(t, saved_fetch(s, SLOT_DLATENT), i).data,
                        grad_mat(m, weights(t)->g[role], 1, x.cols), NULL, dy, x.data,
                        weights(t)->w[role], rstd, x.rows, t->add);
}

/* From keys' and values' gradients, R (tokens,HC+HCv), those of what they were made of. */
static void source_dgrad(struct task_context *t, const struct source *from, const void *dkv)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct mat w = kv_weight(t), shared = part_of(t, saved_fetch(s, SLOT_DLATENT), PART_SHARED);
    int64_t n = from->latent.rows, rsz = real_size(m), rank = w.cols;
    struct mat latent = real_mat(m, scratch(t, t->b->t * rank * rsz), t->b->t, rank);
    struct source d = {latent, shared}; /* alone; else of all tokens, side by side */
    if (t->b->context) {
        d = *from;
        d.latent.data = scratch(t, n * d.latent.ld * rsz);
        d.shared.data = (char *)d.latent.data + rank * rsz;
    }
    void *db = saved_keep(s, SLOT_DKV, n * w.rows * rsz);
    m->op->part_heads(t->l, db, d.shared.data, dkv, n, m->h, m->c, m->cv, m->cfg.c_turn,
                      d.shared.ld);
    m->op->gemm(t->l, d.latent, real_mat(m, db, n, w.rows), w, 0, 0, 0);
    if (t->b->context)
        context_scatter(t, latent, shared, d.latent.data);
    turn(t, shared.data, 1, m->cfg.c_turn, 1);
    norm_dgrad(t, PART_KV, latent.data);
}

void latent_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = t->b->t, d = m->cfg.d, rsz = real_size(m), rank = m->cfg.q_rank;

    void *d_o = attn_out_dgrad(t); /* R (T,HCv) */
    struct source from = source_of(t);
    char *kv = heads_of(t, &from), *dkv = scratch(t, from.latent.rows * kv_cols(m) * rsz);
    int64_t v = m->h * m->c * rsz;
    void *down = saved_keep(s, SLOT_DLATENT, down_bytes(t));
    void *dq = saved_keep(s, SLOT_DQKV, n * m->h * m->c * rsz);
    m->op->attn_dgrad(t->l, dq, dkv, dkv + v, d_o, saved_fetch(s, SLOT_QKV), kv, kv + v,
                      saved_fetch(s, SLOT_O), saved_fetch(s, SLOT_LSE), attn_spans(t->b),
                      from.latent.rows, m->h, m->h, m->c, m->cv, m->h * m->c, kv_cols(m), m->scale);
    source_dgrad(t, &from, dkv);
    turn(t, dq, m->h, m->c, 1);

    /* R (T,D), a part of the sum over TP; without a rank queries come from x themselves */
    struct mat dx = real_mat(m, scratch(t, n * d * rsz), n, d), dq_rows;
    struct mat into = rank ? real_mat(m, scratch(t, n * rank * rsz), n, rank) : dx;
    dq_rows = real_mat(m, dq, n, m->h * m->c);
    m->op->gemm(t->l, into, dq_rows, queries_weight(t), 0, 0, 0);
    if (rank)
        norm_dgrad(t, PART_Q, into.data);
    for (enum part i = 0; i < PARTS; i++)
        if (part_cols(m, i))
            m->op->gemm(
                t->l, dx, part_of(t, down, i),
                real_mat(m, part_rows(m, weights(t)->w[P_LATENT], i, rsz), part_cols(m, i), d), 0,
                0, i > PART_Q || !rank);
    attn_in_dgrad(t, dx.data);
}

void latent_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct weights *w = weights(t);
    int64_t n = t->b->t, d = m->cfg.d, gsz = dtype_size(m->grad_type);

    attn_out_wgrad(t);
    struct mat x = real_mat(m, attn_normed(t, scratch(t, local_tokens(t) * stat_size(m))), n, d);
    void *down = saved_fetch(s, SLOT_DLATENT);
    for (enum part i = 0; i < PARTS; i++)
        if (part_cols(m, i))
            m->op->gemm(t->l, grad_mat(m, part_rows(m, w->g[P_LATENT], i, gsz), part_cols(m, i), d),
                        part_of(t, down, i), x, 1, 0, t->add);
    struct mat q = m->cfg.q_rank ? down_normed(t, PART_Q) : x, up = kv_weight(t);
    m->op->gemm(t->l, grad_mat(m, w->g[P_Q], m->h * m->c, q.cols),
                real_mat(m, saved_fetch(s, SLOT_DQKV), n, m->h * m->c), q, 1, 0, t->add);
    struct source from = source_of(t);
    m->op->gemm(t->l, grad_mat(m, w->g[P_KV], up.rows, up.cols),
                real_mat(m, saved_fetch(s, SLOT_DKV), from.latent.rows, up.rows), from.latent, 1, 0,
                t->add);
    static const enum slot done[] = {
        SLOT_X,   SLOT_RSTD1, SLOT_QKV,  SLOT_LATENT,  SLOT_LATENT_RSTD, SLOT_O, SLOT_LSE,
        SLOT_DY1, SLOT_DX1,   SLOT_DQKV, SLOT_DLATENT, SLOT_DKV,         SLOT_X1};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
}
