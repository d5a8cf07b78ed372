/* seg_join.c -- where a layer that predicts further tokens begins (DeepSeek-V3, arXiv 2412.19437,
 * section 2.2): x = Wjoin [norm(embedding of the next token); norm(h)], h the hidden states that
 * the head before it reads, its norm included.
 *
 * Tokens of the batch are the next ones already (batch_host_shift()); the last of a document has
 * none, and an embedding of 0.  What h has of the gradient is taken through the head's norm
 * here, and the head adds its own to it: the gradient of a norm is linear. */
#include "model/model_priv.h"

/* Both halves, normed, and what they are made of: R (Tl,D) each, S (Tl) each; scratch. */
struct halves {
    void *hidden, *h, *e;
    void *rstd, *h_rstd, *e_rstd;
};

static void *norm(struct task_context *t, void *rstd, const void *x, const void *w)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d;
    void *y = scratch(t, n * d * real_size(m));
    m->op->rmsnorm(t->l, y, rstd, x, w, n, d, m->cfg.eps);
    return y;
}

static struct halves halves_of(struct task_context *t)
{
    int64_t bytes = local_tokens(t) * stat_size(t->m);
    struct halves x = {
        .rstd = scratch(t, bytes), .h_rstd = scratch(t, bytes), .e_rstd = scratch(t, bytes)};
    x.hidden =
        norm(t, x.rstd, saved_fetch(&t->s[t->layer - 1], SLOT_X), t->m->at[t->layer - 1].w[P_NORM]);
    x.h = norm(t, x.h_rstd, x.hidden, weights(t)->w[P_JOIN_H]);
    x.e = norm(t, x.e_rstd, saved_fetch(&t->s[t->layer], SLOT_NEXT), weights(t)->w[P_JOIN_E]);
    return x;
}

/* The columns of (D,2D) that one half meets: of the embedding 0, of hidden states 1. */
static struct mat half(const struct model *m, void *p, enum dtype type, int i)
{
    int64_t d = m->cfg.d;
    struct mat w = mat((char *)p + i * d * dtype_size(type), type, d, d);
    w.ld = 2 * d;
    return w;
}

void join_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, bytes = n * d * real_size(m);
    embed_tokens(t, saved_keep(s, SLOT_NEXT, bytes));
    struct halves in = halves_of(t);
    struct mat x = real_mat(m, saved_keep(s, SLOT_X, bytes), n, d);
    void *w = weights(t)->w[P_JOIN];
    m->op->gemm(t->l, x, real_mat(m, in.e, n, d), half(m, w, m->op->real, 0), 0, 1, 0);
    m->op->gemm(t->l, x, real_mat(m, in.h, n, d), half(m, w, m->op->real, 1), 0, 1, 1);
}

void join_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer], *before = s - 1;
    struct weights *w = weights(t), *head = w - 1;
    int64_t n = local_tokens(t), d = m->cfg.d, bytes = n * d * real_size(m);
    struct halves in = halves_of(t);
    struct mat dx = real_mat(m, saved_fetch(s, SLOT_DX), n, d);
    const void *half_in[] = {in.e, in.h};
    void *dhalf[] = {scratch(t, bytes), scratch(t, bytes)};
    for (int i = 0; i < 2; i++) {
        m->op->gemm(t->l, real_mat(m, dhalf[i], n, d), dx, half(m, w->w[P_JOIN], m->op->real, i), 0,
                    0, 0);
        m->op->gemm(t->l, half(m, w->g[P_JOIN], m->grad_type, i), dx, real_mat(m, half_in[i], n, d),
                    1, 0, t->add);
    }
    m->op->rmsnorm_grad(t->l, dhalf[0], grad_mat(m, w->g[P_JOIN_E], 1, d), NULL, dhalf[0],
                        saved_fetch(s, SLOT_NEXT), w->w[P_JOIN_E], in.e_rstd, n, t->add);
    m->op->rmsnorm_grad(t->l, dhalf[1], grad_mat(m, w->g[P_JOIN_H], 1, d), NULL, dhalf[1],
                        in.hidden, w->w[P_JOIN_H], in.h_rstd, n, t->add);
    m->op->rmsnorm_grad(t->l, saved_keep(before, SLOT_DX, bytes),
                        grad_mat(m, head->g[P_NORM], 1, d), NULL, dhalf[1],
                        saved_fetch(before, SLOT_X), head->w[P_NORM], in.rstd, n, t->add);
    embed_tokens_wgrad(t, dhalf[0]);
    saved_release(s, SLOT_NEXT);
    saved_release(s, SLOT_DX);
}
