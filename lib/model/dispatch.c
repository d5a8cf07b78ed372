/* dispatch.c -- the token dispatcher: hidden states to the ranks that hold their experts, and back.
 *
 * Over the group ETP x EP a token's row goes once to every rank that holds (a part of) one of its
 * chosen experts, however many of them are there; the rank answers with one row, its experts'
 * weighted sum, and the answers are added at home.  Backward is the same traffic in the same two
 * directions, so there are two movements, fan_out and fan_in, and four segments made of them. Alone
 * in its group a rank moves nothing: the slots share their memory, and the experts' sums are the
 * layer's output at once.
 *
 * This implementation exchanges counts through the host and rows by variable all-to-all: portable,
 * multi-node, no padding. */
#include "model/model_priv.h"

#include <stdlib.h>

static int64_t sum(const int64_t *v, int64_t n)
{
    int64_t s = 0;
    for (int64_t i = 0; i < n; i++)
        s += v[i];
    return s;
}

/* Rows of `in` (Tl, row) to the ranks that want them -> (R, row). */
static void fan_out(struct task_context *t, void *out, struct mat in)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int n = comm_size(m->comm[GROUP_ETP_EP]);
    int64_t sent = sum(s->sent, n), row_bytes = in.cols * dtype_size(in.type);
    void *rows = scratch(t, sent * row_bytes);
    m->op->gather_rows(t->l, mat(rows, in.type, sent, in.cols), in, saved_fetch(s, SLOT_SEND_ROW));
    comm_all_to_all(m->comm[GROUP_ETP_EP], t->l, out, s->recvd, rows, s->sent, row_bytes);
}

/* The answers to received rows, `in` (R, row), home again and added to res: out (Tl, row). */
static void fan_in(struct task_context *t, struct mat out, const void *res, const void *in)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int n = comm_size(m->comm[GROUP_ETP_EP]);
    int64_t sent = sum(s->sent, n), row_bytes = out.cols * dtype_size(out.type);
    void *rows = scratch(t, sent * row_bytes);
    comm_all_to_all(m->comm[GROUP_ETP_EP], t->l, rows, s->sent, in, s->recvd, row_bytes);
    m->op->gather_sum(t->l, out, res, mat(rows, out.type, sent, out.cols),
                      saved_fetch(s, SLOT_SEND_PLACE), n);
}

/* Which rows go where, from the router's choices: s->sent and s->recvd, SLOT_SEND_ROW (the row sent
 * as number i, rank by rank), SLOT_SEND_PLACE (number of row t to rank r, or -1), and the choices
 * as each receiver numbers its experts. */
static void plan(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    struct comm *group = m->comm[GROUP_ETP_EP];
    const struct dev_ops *dev = t->l->dev;
    int64_t n = local_tokens(t), k = m->cfg.k;
    int ranks = comm_size(group), etp = m->mesh.etp;

    int32_t *index = xmalloc(n * k * sizeof *index);
    dev->get(t->l, index, saved_fetch(s, SLOT_KEPT), n * k * sizeof *index);
    dev->wait(t->l);

    int64_t *one = xmalloc(ranks * sizeof *one);
    int32_t *row = xmalloc(n * ranks * sizeof *row);
    int32_t *place = xmalloc(n * ranks * sizeof *place);
    int32_t *choice = xmalloc(n * ranks * k * sizeof *choice);
    int64_t sent = 0;
    free(s->sent), free(s->recvd);
    s->sent = xcalloc(ranks, sizeof *s->sent);
    s->recvd = xcalloc(ranks, sizeof *s->recvd);
    for (int r = 0; r < ranks; r++) {
        int64_t first = r / etp * m->el; /* the rank's experts are first .. first + El */
        one[r] = 1;
        for (int64_t i = 0; i < n; i++) {
            int wanted = 0;
            for (int64_t j = 0; j < k; j++) {
                int64_t e = index[i * k + j] - first;
                int here = index[i * k + j] >= 0 && e >= 0 && e < m->el;
                choice[sent * k + j] = here ? e : -1;
                wanted |= here;
            }
            place[i * ranks + r] = wanted ? sent : -1;
            if (wanted)
                row[sent++] = i, s->sent[r]++;
        }
    }
    comm_all_to_all(group, NULL, s->recvd, one, s->sent, one, sizeof *s->sent);
    s->received = sum(s->recvd, ranks);

    dev->put(t->l, saved_keep(s, SLOT_SEND_ROW, sent * sizeof *row), row, sent * sizeof *row);
    dev->put(t->l, saved_keep(s, SLOT_SEND_PLACE, n * ranks * sizeof *place), place,
             n * ranks * sizeof *place);
    int32_t *choice_dev = scratch(t, sent * k * sizeof *choice);
    dev->put(t->l, choice_dev, choice, sent * k * sizeof *choice);
    comm_all_to_all(group, t->l, saved_keep(s, SLOT_RINDEX, s->received * k * sizeof *choice),
                    s->recvd, choice_dev, s->sent, k * sizeof *choice);
    dev->wait(t->l); /* the host arrays have been read */
    free(index), free(one), free(row), free(place), free(choice);
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

void combine_forward(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), d = m->cfg.d;
    if (!alone(t))
        fan_in(t, real_mat(m, saved_keep(s + 1, SLOT_X, n * d * real_size(m)), n, d),
               beside_experts(t), saved_fetch(s, SLOT_RY));
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
