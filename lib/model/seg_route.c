/* seg_route.c -- h2 = norm(x1), and which experts it goes to with what weight.
 *
 * The router's weights are replicated over TP and each rank routes its own tokens, so only the
 * counts of an accounting group (a packed row) cross ranks: those that hold the row, TP x CP. */
#include "model/model_priv.h"

static const int32_t *own_groups(const struct task_context *t)
{
    return t->b->group + t->m->mesh.i_tp * local_tokens(t);
}

static struct router router_of(const struct task_context *t)
{
    const struct config *c = &t->m->cfg;
    return (struct router){.k = c->k,
                           .sigmoid = c->sigmoid,
                           .norm = c->norm_gate,
                           .scale = c->gate_scale,
                           .groups = c->expert_groups,
                           .limit = c->group_limit,
                           .best = c->group_best,
                           .bias = weights(t)->w[P_ROUTER_BIAS]};
}

void route_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, e = m->cfg.experts, k = m->cfg.k, a = t->b->groups;
    int64_t ssz = stat_size(m);

    post_norm(t);
    void *logits = scratch(t, n * e * ssz); /* S (Tl,E) */
    m->op->gemm(t->l, stat_mat(m, logits, n, e), real_mat(m, saved_fetch(s, SLOT_H2), n, d),
                real_mat(m, weights(t)->w[P_ROUTER], e, d), 0, 1, 0);

    /* count (A,E) and psum (A,E) side by side, so that one call sums both; a model that does not
     * train has no losses that ask for them */
    struct router router = router_of(t);
    int counted = weights(t)->g[P_ROUTER] != NULL;
    char *count = counted ? saved_keep(s, SLOT_COUNT, 2 * a * e * ssz) : NULL;
    char *psum = counted ? count + a * e * ssz : NULL;
    void *lse = saved_keep(s, SLOT_ROUTE_LSE, n * ssz);
    m->op->route(t->l, saved_keep(s, SLOT_INDEX, n * k * sizeof(int32_t)),
                 saved_keep(s, SLOT_GATE, n * k * ssz), saved_keep(s, SLOT_PROB, n * e * ssz), lse,
                 count, psum, logits, own_groups(t), n, e, a, &router);
    drop_choices(t);
    if (!counted)
        return;
    comm_all_reduce(m->comm[GROUP_TP_CP], t->l, count, 2 * a * e, m->op->stat, COMM_SUM);
    if (m->load) /* in the type of statistics all is a sum over rows like any other */
        m->op->bias_wgrad(t->l, stat_mat(m, (char *)m->load + t->layer * e * ssz, 1, e), count, a,
                          1);
    m->op->route_loss(t->l, (char *)m->loss + LOSS_AUX * ssz, count, psum, lse, own_groups(t), n, e,
                      k, a);
}

void route_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, e = m->cfg.experts;

    struct router router = router_of(t);
    void *dlogits = saved_keep(s, SLOT_DLOGITS, n * e * stat_size(m)); /* S (Tl,E) */
    m->op->route_dgrad(t->l, dlogits, saved_fetch(s, SLOT_DGATE), saved_fetch(s, SLOT_PROB),
                       saved_fetch(s, SLOT_ROUTE_LSE), saved_fetch(s, SLOT_INDEX),
                       saved_fetch(s, SLOT_COUNT), own_groups(t), m->coef, n, e, t->b->groups,
                       &router);
    void *dh2 =
        saved_fetch(s, SLOT_DH2); /* R (Tl,D) from the experts; the router's part is added */
    m->op->gemm(t->l, real_mat(m, dh2, n, d), stat_mat(m, dlogits, n, e),
                real_mat(m, weights(t)->w[P_ROUTER], e, d), 0, 0, 1);
    post_norm_dgrad(t);
}

void route_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, e = m->cfg.experts;

    m->op->gemm(t->l, grad_mat(m, weights(t)->g[P_ROUTER], e, d),
                stat_mat(m, saved_fetch(s, SLOT_DLOGITS), n, e), real_mat(m, post_normed(t), n, d),
                1, 0, t->add);
    static const enum slot done[] = {SLOT_INDEX, SLOT_GATE,  SLOT_PROB,    SLOT_ROUTE_LSE,
                                     SLOT_COUNT, SLOT_DGATE, SLOT_DLOGITS, SLOT_KEPT};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
    post_norm_done(t);
}
