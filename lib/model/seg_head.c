/* seg_head.c -- per-token log-probabilities of the labels, and their gradient, without ever holding
 * the logits: a chunk of tokens at a time.
 *
 * The vocabulary is cut over TP; three numbers a token cross ranks.  dgrad makes each chunk's
 * logits again, so it also writes logp: a loss that knows dL/dlogp beforehand (weighted NLL does)
 * skips the forward pass.  The weight gradient is taken in the same sweep, since the chunk's
 * dlogits are too large to keep for later.  The heads of layers that predict further tokens have
 * the same weights, and go backward before this one. */
#include "model/model_priv.h"

/* Tokens: at 32k vocabulary 128 MiB of f32 logits.  A GPU has more memory and more to gain: every
 * chunk reads and writes the whole weight gradient.  There a chunk takes the same memory whatever
 * the logits' type, so that validation takes no more than training did. */
static int64_t chunk_tokens(const struct task_context *t, enum dtype type)
{
    return MIN(t->l->dev->is_host ? 1024 : 16384 / dtype_size(type), t->b->t);
}

struct chunk {
    int64_t at, n;
    struct mat logits; /* (n,V) */
    char *lse;         /* S (n) */
};

void *head_hidden(struct task_context *t, void *rstd)
{
    struct model *m = t->m;
    int64_t n = local_tokens(t), d = m->cfg.d;
    char *all = scratch(t, t->b->t * d * real_size(m));
    char *own = own_block(m, all, n * d * real_size(m));
    m->op->rmsnorm(t->l, own, rstd, saved_fetch(&t->s[t->layer], SLOT_X), weights(t)->w[P_NORM], n,
                   d, m->cfg.eps);
    gather_tp(t, all, own, n);
    return all;
}

/* Memory for any chunk, taken once; part holds the three numbers of every TP rank. */
static struct chunk chunk_init(struct task_context *t, enum dtype type, char **part)
{
    int64_t n = chunk_tokens(t, type), ssz = stat_size(t->m);
    *part = scratch(t, t->m->mesh.tp * n * 3 * ssz);
    void *logits = scratch(t, n * t->m->v * dtype_size(type));
    return (struct chunk){0, 0, mat(logits, type, n, t->m->v), scratch(t, n * ssz)};
}

/* The next chunk; 0 when there is none. */
static int chunk_next(const struct task_context *t, struct chunk *c)
{
    c->at += c->n;
    c->n = c->logits.rows = MIN(chunk_tokens(t, c->logits.type), t->b->t - c->at);
    return c->n > 0;
}

/* Logits, lse and logp of the chunk. */
static void chunk_logits(struct task_context *t, struct chunk *c, char *part, const char *hidden)
{
    struct model *m = t->m;
    int64_t d = m->cfg.d, ssz = stat_size(m);
    const int32_t *label = t->b->label + c->at;
    m->op->gemm(t->l, c->logits, real_mat(m, hidden + c->at * d * real_size(m), c->n, d),
                real_mat(m, weights(t)->w[P_HEAD], m->v, d), 0, 1, 0);
    char *own = own_block(m, part, c->n * 3 * ssz);
    m->op->lse_part(t->l, own, c->logits, label, m->v0);
    comm_all_gather(m->comm[GROUP_TP], t->l, part, own, c->n * 3, m->op->stat);
    m->op->lse_join(t->l, (char *)t->b->logp + c->at * ssz, c->lse, part, label, c->n, m->mesh.tp);
}

void head_forward(struct task_context *t)
{
    char *part, *hidden = head_hidden(t, scratch(t, local_tokens(t) * stat_size(t->m)));
    struct chunk c = chunk_init(t, t->m->op->stat, &part);
    while (chunk_next(t, &c))
        chunk_logits(t, &c, part, hidden);
}

/* Logits are of the activations' type here, and become their own gradient. */

void head_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct weights *w = weights(t);
    int64_t n = local_tokens(t), d = m->cfg.d, rsz = real_size(m), ssz = stat_size(m);
    char *rstd = scratch(t, n * ssz);
    char *part, *hidden = head_hidden(t, rstd);
    char *dhidden = scratch(t, t->b->t * d * rsz); /* R (T,D) partial over TP */
    struct chunk c = chunk_init(t, m->op->real, &part);

    while (chunk_next(t, &c)) {
        chunk_logits(t, &c, part, hidden);
        m->op->logits_dgrad(t->l, c.logits, c.logits, c.lse, (char *)t->b->dlogp + c.at * ssz,
                            t->b->label + c.at, m->v0);
        m->op->gemm(t->l, real_mat(m, dhidden + c.at * d * rsz, c.n, d), c.logits,
                    real_mat(m, w->w[P_HEAD], m->v, d), 0, 0, 0);
        m->op->gemm(t->l, grad_mat(m, w->g[P_HEAD], m->v, d), c.logits,
                    real_mat(m, hidden + c.at * d * rsz, c.n, d), 1, 0,
                    t->add || c.at > 0 || t->layer + 1 < model_slots(m));
    }
    char *own = own_block(m, dhidden, n * d * rsz);
    scatter_tp(t, own, dhidden, n);
    void *x = saved_fetch(s, SLOT_X);
    void *further = saved_holds(s, SLOT_DX) ? saved_fetch(s, SLOT_DX) : NULL; /* seg_join.c */
    m->op->rmsnorm_grad(t->l, further ? further : saved_keep(s, SLOT_DX, n * d * rsz),
                        grad_mat(m, w->g[P_NORM], 1, d), further, own, x, w->w[P_NORM], rstd, n,
                        t->add || further);
    saved_release(s, SLOT_X);
}
