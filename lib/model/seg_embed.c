/* seg_embed.c -- x = the embedding rows of the tokens.  The vocabulary is cut over TP: each rank
 * fills in the rows it has, and the sum over TP leaves each with its share of the tokens. */
#include "model/model_priv.h"

void embed_forward(struct task_context *t)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m);
    void *x = saved_keep(t->s, SLOT_X, n * d * rsz);
    char *all = m->mesh.tp == 1 ? x : scratch(t, t->b->t * d * rsz); /* R (T,D) */
    m->op->embed(t->l, all, t->b->token, m->at[m->layers].w[P_EMBED], t->b->t, d, m->v, m->v0);
    if (m->mesh.tp == 1)
        return;
    char *own = own_block(m, all, n * d * rsz);
    scatter_tp(t, own, all, n);
    t->l->dev->copy(t->l, x, own, n * d * rsz);
}

void embed_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m);
    char *dx = saved_fetch(t->s, SLOT_DX);
    if (m->mesh.tp > 1) {
        dx = scratch(t, t->b->t * d * rsz);
        gather_tp(t, dx, saved_fetch(t->s, SLOT_DX), n);
    }
    int tied = m->cfg.tied && !m->cfg.reward; /* the head has written its part */
    m->op->embed_wgrad(t->l, grad_mat(m, m->at[m->layers].g[P_EMBED], m->v, d), t->b->token, dx,
                       t->b->t, m->v0, t->add || tied);
    saved_release(t->s, SLOT_DX);
}
