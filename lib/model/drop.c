/* drop.c -- experts of limited capacity: which of the router's choices they have room for.
 *
 * An expert's room is that of an accounting group, so whose choices are dropped depends on all of
 * the group's tokens.  They lie on the ranks of TP x CP: these gather each other's choices and
 * gates, a few bytes a token, and each finds by itself what becomes of all of them.  So the same
 * choices are dropped under every mapping. */
#include "model/model_priv.h"

#include <math.h>

int64_t expert_room(const struct task_context *t)
{
    const struct model *m = t->m;
    int64_t groups = t->b->groups, tokens = local_tokens(t) * comm_size(m->comm[GROUP_TP_CP]);
    double mean = (double)((tokens + groups - 1) / groups * m->cfg.k) / (double)m->cfg.experts;
    return groups * (int64_t)ceil(mean * m->capacity - 1e-9);
}

/* What all ranks hold of an array (Tl,K), in the order of the whole rows: scratch. */
static void *gather(struct task_context *t, const void *own, enum dtype type)
{
    struct model *m = t->m;
    const struct context *c = t->b->context;
    int64_t n = local_tokens(t), k = m->cfg.k, whole = n * comm_size(m->comm[GROUP_TP_CP]);
    void *all = scratch(t, whole * k * dtype_size(type)); /* as the ranks hold them */
    comm_all_gather(m->comm[GROUP_TP_CP], t->l, all, own, n * k, type);
    if (!c)
        return all;
    void *rows = scratch(t, whole * k * dtype_size(type));
    m->op->gather_rows(t->l, mat(rows, type, whole, k), mat(all, type, whole, k), c->from);
    return rows;
}

/* The rows of this rank again. */
static void part(struct task_context *t, int32_t *own, int32_t *whole, int64_t tokens)
{
    struct model *m = t->m;
    const struct context *c = t->b->context;
    int64_t n = local_tokens(t), k = m->cfg.k, first = n * comm_rank(m->comm[GROUP_TP_CP]);
    if (c)
        m->op->gather_rows(t->l, mat(own, DT_I32, n, k), mat(whole, DT_I32, tokens, k),
                           c->to + first);
    else
        t->l->dev->copy(t->l, own, whole + first * k, n * k * (int64_t)sizeof *own);
}

void drop_choices(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), k = m->cfg.k, tokens = n * comm_size(m->comm[GROUP_TP_CP]);
    if (!(m->capacity > 0)) {
        saved_share(s, SLOT_KEPT, s, SLOT_INDEX);
        return;
    }
    int32_t *kept = saved_keep(s, SLOT_KEPT, n * k * (int64_t)sizeof *kept), *all = kept;
    const void *index = saved_fetch(s, SLOT_INDEX), *gate = saved_fetch(s, SLOT_GATE);
    if (tokens > n) {
        index = gather(t, index, DT_I32);
        gate = gather(t, gate, m->op->stat);
        all = scratch(t, tokens * k * (int64_t)sizeof *all);
    }
    m->op->drop(t->l, all, (char *)m->loss + LOSS_DROPPED * stat_size(m), index, gate, tokens,
                m->cfg.experts, k, t->b->groups, m->capacity);
    if (tokens > n)
        part(t, kept, all, tokens);
}
