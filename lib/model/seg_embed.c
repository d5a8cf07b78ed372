/* seg_embed.c -- x = the embedding rows of the tokens.  The vocabulary is cut over TP: each rank
 * fills in the rows it has, and the sum over TP leaves each with its share of the tokens. */
#include "model/model_priv.h"

void embed_tokens(struct task_context *t, void *x)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m);
    char *all = m->mesh.tp == 1 ? x : scratch(t, t->b->t * d * rsz); /* R (T,D) */
    m->op->embed(t->l, all, t->b->token, m->at[m->layers].w[P_EMBED], t->b->t, d, m->v, m->v0);
    if (m->mesh.tp == 1)
        return;
    char *own = own_block(m, all, n * d * rsz);
    scatter_tp(t, own, all, n);
    t->l->dev->copy(t->l, x, own, n * d * rsz);
}

/* Whether the gradient has been written in this micro-batch: by a head that it is tied to, or by
 * layers further on. */
static int is_begun(const struct task_context *t)
{
    const struct model *m = t->m;
    int last = m->mesh.i_pp == m->mesh.pp - 1;
    return (m->cfg.tied && !m->cfg.reward && last) || (m->further && t->layer + 2 < model_slots(m));
}

void embed_tokens_wgrad(struct task_context *t, void *dx)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m);
    char *all = dx;
    if (m->mesh.tp > 1) {
        all = scratch(t, t->b->t * d * rsz);
        gather_tp(t, all, dx, n);
    }
    m->op->embed_wgrad(t->l, grad_mat(m, m->at[m->layers].g[P_EMBED], m->v, d), t->b->token, all,
                       t->b->t, m->v0, t->add || is_begun(t));
}

void embed_forward(struct task_context *t)
{
    int64_t bytes = local_tokens(t) * t->m->cfg.d * real_size(t->m);
    embed_tokens(t, saved_keep(t->s, SLOT_X, bytes));
}

void embed_wgrad(struct task_context *t)
{
    embed_tokens_wgrad(t, saved_fetch(t->s, SLOT_DX));
    saved_release(t->s, SLOT_DX);
}
