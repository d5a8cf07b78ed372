/* post_norm.c -- x1 = x + what attention gave, h2 = norm(x1): what every layer's second half begins
 * with, be it a router or a dense network.
 *
 * h2 is kept until forward has used it and made again for the weight gradients: two passes over x1,
 * and no other layer holds it when memory is needed most. */
#include "model/model_priv.h"

void post_norm(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d;
    void *h2 = saved_keep(s, SLOT_H2, n * d * real_size(m)), *x1 = saved_fetch(s, SLOT_X1);
    m->op->add_rmsnorm(t->l, h2, saved_keep(s, SLOT_RSTD2, n * stat_size(m)), x1,
                       saved_fetch(s, SLOT_X), x1, weights(t)->w[P_NORM2], n, d, m->cfg.eps);
}

void post_norm_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d;
    m->op->rmsnorm_grad(t->l, saved_keep(s, SLOT_DX1, n * d * real_size(m)),
                        grad_mat(m, weights(t)->g[P_NORM2], 1, d), saved_fetch(s + 1, SLOT_DX),
                        saved_fetch(s, SLOT_DH2), saved_fetch(s, SLOT_X1), weights(t)->w[P_NORM2],
                        saved_fetch(s, SLOT_RSTD2), n, t->add);
}

void *post_normed(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d;
    if (saved_holds(s, SLOT_H2))
        return saved_fetch(s, SLOT_H2);
    /* no slot changes hands in a weight gradient while tokens travel (schedule.c) */
    int64_t bytes = n * d * real_size(m);
    void *h2 = alone(t) ? saved_keep(s, SLOT_H2, bytes) : scratch(t, bytes);
    m->op->rmsnorm(t->l, h2, scratch(t, n * stat_size(m)), saved_fetch(s, SLOT_X1),
                   weights(t)->w[P_NORM2], n, d, m->cfg.eps);
    return h2;
}

void post_norm_done(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    saved_release(s, SLOT_H2);
    saved_release(s, SLOT_RSTD2);
    saved_release(s, SLOT_DH2);
    saved_release(s + 1, SLOT_DX); /* the layer above is done with */
}
