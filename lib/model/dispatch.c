/* dispatch.c -- the token dispatcher: hidden states to the ranks that hold their experts, and back.
 *
 * Over the group ETP x EP a token's row goes once to every rank that holds (a part of) one of its
 * chosen experts, however many of them are there; the rank answers with one row, its experts'
 * weighted sum, and the answers are added at home.  Backward is the same traffic in the same two
 * directions, so there are two movements, fan_out and fan_in, and four segments made of them. Alone
 * in its group a rank moves nothing: the slots share their memory, and the experts' sums are the
 * layer's output at once.
 *
 * Two ways: "rows" counts which rows go where, exchanges the counts through the host and the rows
 * by variable all-to-all; it sends no row in vain.  "all" sends every row to every rank: where
 * nearly all are wanted there (8 experts of 64 a token, on 2 ranks: 99.8 %) that costs next to
 * nothing, nothing needs to be counted, and the host is not asked, so a step can be captured. */
#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

/* Of a token's k experts, drawn from all alike, none is on a given rank with a chance of
 * (E - El)! (E - k)! / (E! (E - El - k)!). */
static double wanted_share(const struct model *m)
{
    double none = 1;
    for (int64_t i = 0; i < m->cfg.k; i++)
        none *= (double)MAX(m->cfg.experts - m->el - i, 0) / (double)(m->cfg.experts - i);
    return 1 - none;
}

void model_dispatch(struct model *m, const char *how)
{
    int all = !strcmp(how, "all");
    if (!all && strcmp(how, "rows") && strcmp(how, "auto"))
        die_misused("--dispatch %s: there is no such way (auto, rows or all)", how);
    m->to_all = all || (strcmp(how, "rows") && wanted_share(m) >= 0.75);
}

static int64_t sum(const int64_t *v, int64_t n)
{
    int64_t s = 0;
    for (int64_t i = 0; i < n; i++)
        s += v[i];
    return s;
}

static struct comm *group_of(const struct task_context *t)
{
    return t->m->comm[GROUP_ETP_EP];
}

/* Rows of `in` (Tl, row) to the ranks that want them -> (R, row). */
static void fan_out(struct task_context *t, void *out, struct mat in)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    if (m->to_all) {
        comm_all_gather(group_of(t), t->l, out, in.data, in.rows * in.cols, in.type);
        return;
    }
    int64_t sent = sum(s->sent, comm_size(group_of(t))), row_bytes = in.cols * dtype_size(in.type);
    void *rows = scratch(t, sent * row_bytes);
    m->op->gather_rows(t->l, mat(rows, in.type, sent, in.cols), in, saved_fetch(s, SLOT_SEND_ROW));
    comm_all_to_all(group_of(t), t->l, out, s->recvd, rows, s->sent, row_bytes);
}

/* The answers to received rows, `in` (R, row), home again and added to res: out (Tl, row). */
static void fan_in(struct task_context *t, struct mat out, const void *res, const void *in)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int n = comm_size(group_of(t));
    int64_t sent = sum(s->sent, n), row_bytes = out.cols * dtype_size(out.type);
    void *rows = scratch(t, sent * row_bytes);
    comm_all_to_all(group_of(t), t->l, rows, s->sent, in, s->recvd, row_bytes);
    m->op->gather_sum(t->l, out, res, mat(rows, out.type, sent, out.cols),
                      m->to_all ? m->everywhere : saved_fetch(s, SLOT_SEND_PLACE), n);
}

/* Every row to every rank: row i of rank r's answers is r Tl + i. */
static void plan_all(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), ranks = comm_size(group_of(t));
    for (int64_t r = 0; r < ranks; r++)
        s->sent[r] = s->recvd[r] = n;
    if (m->everywhere_rows == n)
        return;
    int64_t bytes = n * ranks * (int64_t)sizeof(int32_t);
    int32_t *place = xmalloc((size_t)bytes);
    for (int64_t i = 0; i < n * ranks; i++)
        place[i] = (int32_t)(i % ranks * n + i / ranks);
    if (m->everywhere)
        t->l->dev->free(m->everywhere);
    m->everywhere = lane_alloc(t->l, bytes, "the dispatcher");
    t->l->dev->put(t->l, m->everywhere, place, bytes);
    t->l->dev->wait(t->l);
    m->everywhere_rows = n;
    free(place);
}

/* Which rows go where, from the router's choices: s->sent and s->recvd, SLOT_SEND_ROW (the row sent
 * as number i, rank by rank) and SLOT_SEND_PLACE (number of row t to rank r, or -1). */
static void plan_rows(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    const struct dev_ops *dev = t->l->dev;
    int64_t n = local_tokens(t), k = m->cfg.k;
    int ranks = comm_size(group_of(t)), etp = m->mesh.etp;

    int32_t *index = xmalloc(n * k * sizeof *index);
    dev->get(t->l, index, saved_fetch(s, SLOT_KEPT), n * k * sizeof *index);
    dev->wait(t->l);

    int64_t *one = xmalloc(ranks * sizeof *one);
    int32_t *row = xmalloc(n * ranks * sizeof *row);
    int32_t *place = xmalloc(n * ranks * sizeof *place);
    int64_t sent = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t first = r / etp * m->el; /* the rank's experts are first .. first + El */
        one[r] = 1;
        for (int64_t i = 0; i < n; i++) {
            int wanted = 0;
            for (int64_t j = 0; j < k; j++)
                wanted |= index[i * k + j] >= first && index[i * k + j] < first + m->el;
            place[i * ranks + r] = wanted ? sent : -1;
            if (wanted)
                row[sent++] = i, s->sent[r]++;
        }
    }
    comm_all_to_all(group_of(t), NULL, s->recvd, one, s->sent, one, sizeof *s->sent);

    dev->put(t->l, saved_keep(s, SLOT_SEND_ROW, sent * sizeof *row), row, sent * sizeof *row);
    dev->put(t->l, saved_keep(s, SLOT_SEND_PLACE, n * ranks * sizeof *place), place,
             n * ranks * sizeof *place);
    dev->wait(t->l); /* the host arrays have been read */
    free(index), free(one), free(row), free(place);
}

static void plan(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    int ranks = comm_size(group_of(t));
    free(s->sent), free(s->recvd);
    s->sent = xcalloc(ranks, sizeof *s->sent);
    s->recvd = xcalloc(ranks, sizeof *s->recvd);
    if (t->m->to_all)
        plan_all(t);
    else
        plan_rows(t);
    s->received = sum(s->recvd, ranks);
}

void dispatch_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, k = m->cfg.k;

    if (alone(t)) {
        s->received = n;
        saved_share(s, SLOT_RX, s, SLOT_H2);
        saved_share(s, SLOT_RINDEX, s, SLOT_KEPT);
        saved_share(s, SLOT_RGATE, s, SLOT_GATE);
    } else {
        plan(t);
        fan_out(t, saved_keep(s, SLOT_RX, s->received * d * real_size(m)),
                real_mat(m, saved_fetch(s, SLOT_H2), n, d));
        fan_out(t, saved_keep(s, SLOT_RINDEX, s->received * k * (int64_t)sizeof(int32_t)),
                mat(saved_fetch(s, SLOT_KEPT), DT_I32, n, k));
        fan_out(t, saved_keep(s, SLOT_RGATE, s->received * k * stat_size(m)),
                stat_mat(m, saved_fetch(s, SLOT_GATE), n, k));
        saved_release(s, SLOT_H2);
    }
}

void *answers(struct task_context *t, const void **res)
{
    struct saved *s = &t->s[t->layer];
    int64_t row_bytes = t->m->cfg.d * real_size(t->m);
    *res = alone(t) ? beside_experts(t) : NULL;
    return alone(t) ? saved_keep(s + 1, SLOT_X, local_tokens(t) * row_bytes)
                    : saved_keep(s, SLOT_RY, s->received * row_bytes);
}

void *received(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    return alone(t) ? post_normed(t) : saved_fetch(s, SLOT_RX);
}

void combine_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d;
    if (!alone(t))
        fan_in(t, real_mat(m, saved_keep(s + 1, SLOT_X, n * d * real_size(m)), n, d),
               beside_experts(t), saved_fetch(s, SLOT_RY));
    else
        saved_release(s, SLOT_RX); /* h2 itself, which backward makes again */
    saved_release(s, SLOT_H2);
    saved_release(s, SLOT_RY);
    saved_release(s, SLOT_X2);
}

void combine_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d;
    if (alone(t))
        saved_share(s, SLOT_DRY, s + 1, SLOT_DX);
    else
        fan_out(t, saved_keep(s, SLOT_DRY, s->received * d * real_size(m)),
                real_mat(m, saved_fetch(s + 1, SLOT_DX), n, d));
}

void dispatch_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d, k = m->cfg.k;
    if (alone(t)) {
        saved_share(s, SLOT_DH2, s, SLOT_DRX);
        saved_share(s, SLOT_DGATE, s, SLOT_DRGATE);
    } else {
        fan_in(t, real_mat(m, saved_keep(s, SLOT_DH2, n * d * real_size(m)), n, d), NULL,
               saved_fetch(s, SLOT_DRX));
        fan_in(t, stat_mat(m, saved_keep(s, SLOT_DGATE, n * k * stat_size(m)), n, k), NULL,
               saved_fetch(s, SLOT_DRGATE));
    }
    static const enum slot done[] = {SLOT_DRX, SLOT_DRGATE, SLOT_SEND_ROW, SLOT_SEND_PLACE};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
}
