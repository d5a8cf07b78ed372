/* seg_score.c -- a reward model's head: out[t] = score . norm(x[t]), in the place of
 * log-probabilities.
 *
 * The weights are one row, so every rank of TP scores its own tokens and only the scores are
 * gathered. */
#include "model/model_priv.h"

static void *normed(struct task_context *t, void *rstd)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d;
    void *h = scratch(t, n * d * real_size(m)); /* R (Tl,D) */
    m->op->rmsnorm(t->l, h, rstd, saved_fetch(&t->s[t->layer], SLOT_X), weights(t)->w[P_NORM], n, d,
                   m->cfg.eps);
    return h;
}

void score_forward(struct task_context *t)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d;
    void *h = normed(t, scratch(t, n * stat_size(m)));
    void *own = own_block(m, t->b->logp, n * stat_size(m));
    m->op->gemm(t->l, stat_mat(m, own, n, 1), real_mat(m, h, n, d),
                real_mat(m, weights(t)->w[P_SCORE], 1, d), 0, 1, 0);
    comm_all_gather(m->comm[GROUP_TP], t->l, t->b->logp, own, n, m->op->stat);
}

void score_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct weights *w = weights(t);
    int64_t n = local_tokens(t), d = m->cfg.d;
    void *rstd = scratch(t, n * stat_size(m)), *h = normed(t, rstd);
    void *dh = scratch(t, n * d * real_size(m)); /* R (Tl,D) */
    struct mat dout = stat_mat(m, own_block(m, t->b->dlogp, n * stat_size(m)), n, 1);
    m->op->gemm(t->l, real_mat(m, dh, n, d), dout, real_mat(m, w->w[P_SCORE], 1, d), 0, 0, 0);
    m->op->gemm(t->l, grad_mat(m, w->g[P_SCORE], 1, d), dout, real_mat(m, h, n, d), 1, 0, t->add);
    void *x = saved_fetch(s, SLOT_X);
    m->op->rmsnorm_grad(t->l, saved_keep(s, SLOT_DX, n * d * real_size(m)),
                        grad_mat(m, w->g[P_NORM], 1, d), NULL, dh, x, w->w[P_NORM], rstd, n,
                        t->add);
    saved_release(s, SLOT_X);
}
