/* attn_ends.c -- what attention of every kind begins and ends with: the norm of x, gathered over
 * TP, and the product with Wout, summed over TP; and the gradients of both.
 *
 * Heads are cut over TP, tokens between the blocks too: so x is gathered and y reduced. */
#include "model/model_priv.h"

void *attn_normed(struct task_context *t, void *rstd)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d;
    char *all = scratch(t, t->b->t * d * real_size(m));
    char *own = own_block(m, all, n * d * real_size(m));
    m->op->rmsnorm(t->l, own, rstd, saved_fetch(&t->s[t->layer], SLOT_X), weights(t)->w[P_NORM1], n,
                   d, m->cfg.eps);
    gather_tp(t, all, own, n);
    return all;
}

struct spans attn_spans(const struct batch *b)
{
    int self = !b->context && !b->cache;
    return (struct spans){b->q_at, b->k_beg, b->k_end,         b->spans,        b->queries,
                          b->keys, self,     self && b->whole, b->cache != NULL};
}

void attn_out(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), all = t->b->t, d = m->cfg.d, wide = m->h * m->cv;
    char *own = saved_keep(s, SLOT_X1, n * d * real_size(m));
    char *y = m->mesh.tp == 1 ? own : scratch(t, all * d * real_size(m)); /* R (T,D), a part */
    m->op->gemm(t->l, real_mat(m, y, all, d), real_mat(m, saved_fetch(s, SLOT_O), all, wide),
                real_mat(m, weights(t)->w[P_OUT], d, wide), 0, 1, 0);
    scatter_tp(t, own, y, n);
}

void *attn_out_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), all = t->b->t, d = m->cfg.d, wide = m->h * m->cv;
    /* dy is needed whole by both gradients; alone on TP it is dx1 itself. */
    if (m->mesh.tp == 1)
        saved_share(s, SLOT_DY1, s, SLOT_DX1);
    else
        gather_tp(t, saved_keep(s, SLOT_DY1, all * d * real_size(m)), saved_fetch(s, SLOT_DX1), n);
    void *d_o = scratch(t, all * wide * real_size(m));
    m->op->gemm(t->l, real_mat(m, d_o, all, wide), real_mat(m, saved_fetch(s, SLOT_DY1), all, d),
                real_mat(m, weights(t)->w[P_OUT], d, wide), 0, 0, 0);
    return d_o;
}

void attn_in_dgrad(struct task_context *t, char *dx)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m);
    char *own = own_block(m, dx, n * d * rsz);
    scatter_tp(t, own, dx, n);
    m->op->rmsnorm_grad(t->l, saved_keep(s, SLOT_DX, n * d * rsz),
                        grad_mat(m, weights(t)->g[P_NORM1], 1, d), saved_fetch(s, SLOT_DX1), own,
                        saved_fetch(s, SLOT_X), weights(t)->w[P_NORM1], saved_fetch(s, SLOT_RSTD1),
                        n, t->add);
}

void attn_out_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t all = t->b->t, d = m->cfg.d, wide = m->h * m->cv;
    m->op->gemm(t->l, grad_mat(m, weights(t)->g[P_OUT], d, wide),
                real_mat(m, saved_fetch(s, SLOT_DY1), all, d),
                real_mat(m, saved_fetch(s, SLOT_O), all, wide), 1, 0, t->add);
}
