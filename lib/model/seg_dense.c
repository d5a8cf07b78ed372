/* seg_dense.c -- the network that takes every token: the second half of a layer without experts,
 * and what stands beside the experts (shared experts).  y = g down(silu(u) v) with (u, v) = up h2;
 * g is 1, or sigmoid(w h2) where the shared expert has a gate.
 *
 * It is cut over TP by its inner width, as attention is by heads: a rank takes all tokens of its TP
 * group, and what it makes of them is a part of a sum.  The gate is computed by every rank, and its
 * gradient from each one's part of the sum, which adds up as the others do.
 *
 * Beside experts it runs before tokens travel; its sum x1 + y is what the experts' answers are
 * added to, and backward adds to the gradient that came home from them.  Kept: h before the
 * activation. */
#include "model/model_priv.h"

/* It is the layer's second half, with nothing beside it. */
static int is_whole(const struct task_context *t)
{
    return weights(t)->w[P_ROUTER] == NULL;
}

static int64_t width(const struct task_context *t)
{
    const struct config *c = &t->m->cfg;
    return (is_whole(t) ? c->f_dense : c->f_shared) / t->m->mesh.tp;
}

/* h2 of all tokens of the TP group: R (T,D). */
static void *inputs(struct task_context *t)
{
    struct model *m = t->m;
    void *own = post_normed(t);
    if (m->mesh.tp == 1)
        return own;
    void *all = scratch(t, t->b->t * m->cfg.d * real_size(m));
    gather_tp(t, all, own, local_tokens(t));
    return all;
}

/* Where this rank's part of a sum over TP is added up, R (T,D), on top of start (Tl,D), which may
 * be out or NULL; scatter_tp() then sums it into out. */
static void *part_of_sum(struct task_context *t, void *out, const void *start)
{
    struct model *m = t->m;
    int64_t own_bytes = local_tokens(t) * m->cfg.d * real_size(m);
    char *y = m->mesh.tp == 1 ? out : scratch(t, m->mesh.tp * own_bytes);
    char *own = own_block(m, y, own_bytes);
    if (start && m->mesh.tp > 1)
        t->l->dev->zero(t->l, y, m->mesh.tp * own_bytes);
    if (start && own != start)
        t->l->dev->copy(t->l, own, start, own_bytes);
    return y;
}

void dense_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), all = t->b->t, d = m->cfg.d, f = width(t), rsz = real_size(m);
    if (is_whole(t))
        post_norm(t);

    struct mat x = real_mat(m, inputs(t), all, d);
    void *h = saved_keep(s, SLOT_DENSE_H, all * 2 * f * rsz), *z = NULL;
    m->op->gemm(t->l, real_mat(m, h, all, 2 * f), x,
                real_mat(m, weights(t)->w[P_DENSE_UP], 2 * f, d), 0, 1, 0);
    if (weights(t)->w[P_SHARED_GATE]) {
        z = saved_keep(s, SLOT_DENSE_Z, all * stat_size(m)); /* S (T) */
        m->op->gemm(t->l, stat_mat(m, z, all, 1), x,
                    real_mat(m, weights(t)->w[P_SHARED_GATE], 1, d), 0, 1, 0);
    }
    void *a = scratch(t, all * f * rsz); /* R (T,F) */
    m->op->swiglu(t->l, a, h, z, all, f);
    void *out =
        is_whole(t) ? saved_keep(s + 1, SLOT_X, n * d * rsz) : saved_keep(s, SLOT_X2, n * d * rsz);
    void *y = part_of_sum(t, out, saved_fetch(s, SLOT_X1));
    m->op->gemm(t->l, real_mat(m, y, all, d), real_mat(m, a, all, f),
                real_mat(m, weights(t)->w[P_DENSE_DOWN], d, f), 0, 1, 1);
    scatter_tp(t, out, y, n);
    if (is_whole(t))
        saved_release(s, SLOT_H2);
}

void dense_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), all = t->b->t, d = m->cfg.d, f = width(t), rsz = real_size(m);

    /* dy is needed whole by both gradients. */
    if (m->mesh.tp == 1)
        saved_share(s, SLOT_DENSE_DY, s + 1, SLOT_DX);
    else
        gather_tp(t, saved_keep(s, SLOT_DENSE_DY, all * d * rsz), saved_fetch(s + 1, SLOT_DX), n);
    void *da = scratch(t, all * f * rsz); /* R (T,F) */
    m->op->gemm(t->l, real_mat(m, da, all, f), real_mat(m, saved_fetch(s, SLOT_DENSE_DY), all, d),
                real_mat(m, weights(t)->w[P_DENSE_DOWN], d, f), 0, 0, 0);
    void *dh = saved_keep(s, SLOT_DENSE_DH, all * 2 * f * rsz), *z = NULL, *dz = NULL;
    if (weights(t)->w[P_SHARED_GATE]) {
        z = saved_fetch(s, SLOT_DENSE_Z);
        dz = saved_keep(s, SLOT_DENSE_DZ, all * stat_size(m));
    }
    m->op->swiglu_dgrad(t->l, dh, saved_keep(s, SLOT_DENSE_A, all * f * rsz), dz, da,
                        saved_fetch(s, SLOT_DENSE_H), z, all, f);
    saved_release(s, SLOT_DENSE_H);
    saved_release(s, SLOT_DENSE_Z);

    int add = !is_whole(t);
    void *dh2 = add ? saved_fetch(s, SLOT_DH2) : saved_keep(s, SLOT_DH2, n * d * rsz);
    void *dx = part_of_sum(t, dh2, add ? dh2 : NULL);
    m->op->gemm(t->l, real_mat(m, dx, all, d), real_mat(m, dh, all, 2 * f),
                real_mat(m, weights(t)->w[P_DENSE_UP], 2 * f, d), 0, 0, add);
    if (dz)
        m->op->gemm(t->l, real_mat(m, dx, all, d), stat_mat(m, dz, all, 1),
                    real_mat(m, weights(t)->w[P_SHARED_GATE], 1, d), 0, 0, 1);
    scatter_tp(t, dh2, dx, n);
    if (is_whole(t))
        post_norm_dgrad(t);
}

void dense_wgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct weights *w = weights(t);
    int64_t all = t->b->t, d = m->cfg.d, f = width(t);

    m->op->gemm(t->l, grad_mat(m, w->g[P_DENSE_DOWN], d, f),
                real_mat(m, saved_fetch(s, SLOT_DENSE_DY), all, d),
                real_mat(m, saved_fetch(s, SLOT_DENSE_A), all, f), 1, 0, t->add);
    struct mat x = real_mat(m, inputs(t), all, d);
    m->op->gemm(t->l, grad_mat(m, w->g[P_DENSE_UP], 2 * f, d),
                real_mat(m, saved_fetch(s, SLOT_DENSE_DH), all, 2 * f), x, 1, 0, t->add);
    if (w->g[P_SHARED_GATE])
        m->op->gemm(t->l, grad_mat(m, w->g[P_SHARED_GATE], 1, d),
                    stat_mat(m, saved_fetch(s, SLOT_DENSE_DZ), all, 1), x, 1, 0, t->add);
    static const enum slot done[] = {SLOT_DENSE_DY, SLOT_DENSE_A, SLOT_DENSE_DH, SLOT_DENSE_DZ};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
    if (is_whole(t))
        post_norm_done(t);
}
