/* seg_experts.c -- the SwiGLU experts held here, applied to the rows received.
 *
 * Which ranks the rows came from is the dispatcher's business; here are R rows, for each its K
 * choices (experts of other ranks among them, and -1 for none) and gate weights.  Kept: the
 * received rows and the pre-activation H only, whose gradient takes its place; gathered rows and
 * activations are made again inside the gradient kernels. */
#include "model/model_priv.h"

static int64_t map_capacity(const struct task_context *t, int64_t r)
{
    const struct model *m = t->m;
    int64_t live = r * MIN(m->cfg.k, m->el);
    if (m->capacity > 0) /* of each rank's micro-batch */
        live = MIN(live, m->el * comm_size(m->comm[GROUP_ETP_EP]) * expert_room(t));
    int64_t rows = live + m->el * (ROW_ALIGN - 1);
    return (rows + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
}

void experts_forward(struct task_context *t)
{
    struct model *m = t->m;
    const struct op *op = m->op;
    struct saved *s = &t->s[t->layer];
    int64_t r = s->received, k = m->cfg.k, e = m->el, d = m->cfg.d, f = m->f, rsz = real_size(m);
    int64_t rows = s->map_rows = map_capacity(t, r);

    int32_t *at = saved_keep(s, SLOT_MAP_AT, (e + 1) * sizeof *at);
    int32_t *count = saved_keep(s, SLOT_MAP_COUNT, e * sizeof *count);
    int32_t *source = saved_keep(s, SLOT_MAP_SOURCE, rows * sizeof *source);
    int32_t *place = saved_keep(s, SLOT_MAP_PLACE, r * k * sizeof *place);
    op->row_map(t->l, at, count, source, place, saved_fetch(s, SLOT_RINDEX), r, k, m->mesh.i_ep * e,
                e, rows);

    void *h = saved_keep(s, SLOT_H, rows * 2 * f * rsz);
    void *a = scratch(t, rows * f * rsz); /* R (M,F) */
    op->experts_up(t->l, h, a, saved_fetch(s, SLOT_RX), weights(t)->w[P_UP],
                   saved_fetch(s, SLOT_RGATE), at, count, source, r * k, e, k, d, f);
    void *y = scratch(t, rows * d * rsz); /* R (M,D) */
    op->experts_down(t->l, y, a, weights(t)->w[P_DOWN], at, count, r * k, e, d, f);
    const void *res;
    void *out = answers(t, &res); /* R (R,D) */
    op->gather_sum(t->l, real_mat(m, out, r, d), res, real_mat(m, y, rows, d), place, k);
}

void experts_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    const struct op *op = m->op;
    struct saved *s = &t->s[t->layer];
    int64_t r = s->received, k = m->cfg.k, e = m->el, d = m->cfg.d, f = m->f, rsz = real_size(m);
    const int32_t *at = saved_fetch(s, SLOT_MAP_AT), *count = saved_fetch(s, SLOT_MAP_COUNT);
    const int32_t *source = saved_fetch(s, SLOT_MAP_SOURCE);

    void *h = saved_fetch(s, SLOT_H), *dh = h;
    saved_share(s, SLOT_DH, s, SLOT_H);
    op->experts_dh(t->l, dh, saved_keep(s, SLOT_A, s->map_rows * f * rsz),
                   saved_keep(s, SLOT_DRGATE, r * k * stat_size(m)), saved_fetch(s, SLOT_DRY),
                   weights(t)->w[P_DOWN], h, saved_fetch(s, SLOT_RGATE), at, count, source, r, e, k,
                   d, f);
    void *dx = scratch(t, s->map_rows * d * rsz); /* R (M,D) */
    op->experts_dx(t->l, dx, dh, weights(t)->w[P_UP], at, count, e, d, f);
    op->gather_sum(t->l, real_mat(m, saved_keep(s, SLOT_DRX, r * d * rsz), r, d), NULL,
                   real_mat(m, dx, s->map_rows, d), saved_fetch(s, SLOT_MAP_PLACE), k);
}

void experts_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t k = m->cfg.k, e = m->el, d = m->cfg.d, f = m->f;
    const int32_t *at = saved_fetch(s, SLOT_MAP_AT), *count = saved_fetch(s, SLOT_MAP_COUNT);
    const int32_t *source = saved_fetch(s, SLOT_MAP_SOURCE);
    void *squares = t->add ? NULL : m->squares;

    m->op->experts_down_wgrad(t->l, grad_mat(m, weights(t)->g[P_DOWN], e * d, f),
                              saved_fetch(s, SLOT_DRY), saved_fetch(s, SLOT_A), at, count, source,
                              s->received * k, e, k, t->add, squares);
    saved_release(s, SLOT_A);
    m->op->experts_up_wgrad(t->l, grad_mat(m, weights(t)->g[P_UP], e * 2 * f, d),
                            saved_fetch(s, SLOT_DH), received(t), at, count, source,
                            s->received * k, e, k, t->add, squares);
    static const enum slot done[] = {SLOT_RX,        SLOT_RINDEX,    SLOT_RGATE,
                                     SLOT_MAP_AT,    SLOT_MAP_COUNT, SLOT_MAP_SOURCE,
                                     SLOT_MAP_PLACE, SLOT_DRY,       SLOT_DH};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
}
