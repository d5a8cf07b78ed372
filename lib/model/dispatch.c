/* dispatch.c -- the token dispatcher: hidden states to the ranks that hold their experts, and back.
 *
 * Over the group ETP x EP a token's row goes once to every rank that holds (a part of) one of its
 * chosen experts, however many of them are there; the rank answers with one row, its experts'
 * weighted sum, and the answers are added at home.  Backward is the same traffic in the same two
 * directions, so there are two movements, fan_out and fan_in, and four segments made of them. Alone
 * in its group a rank moves nothing: the slots share their memory, and the experts' sums are the
 * layer's output at once.
 *
 * Three ways: "rows" counts which rows go where, exchanges the counts through the host and the rows
 * by variable all-to-all; it sends no row in vain.  "all" sends every row to every rank: where
 * nearly all are wanted there (8 experts of 64 a token, on 2 ranks: 99.8 %) that costs next to
 * nothing, nothing needs to be counted, and the host is not asked, so a step can be captured.
 * "window" does both: GPUs write the wanted rows into each other's memory, where row i of rank r
 * lies as r Tl + i, whether the others come or not. */
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

static const char *const ways[DISPATCH_WAYS] = {
    [DISPATCH_ROWS] = "rows", [DISPATCH_ALL] = "all", [DISPATCH_WINDOW] = "window"};

const char *model_dispatch_name(const struct model *m)
{
    return ways[m->dispatch];
}

void model_dispatch(struct model *m, const char *how)
{
    m->any_dispatch = 0;
    for (int i = 0; i < DISPATCH_WAYS; i++)
        if (!strcmp(how, ways[i])) {
            m->dispatch = (enum dispatch_way)i;
            return;
        }
    if (strcmp(how, "auto"))
        die_misused("--dispatch %s: there is no such way (auto, rows, all or window)", how);
    m->dispatch = wanted_share(m) >= 0.75 ? DISPATCH_ALL : DISPATCH_ROWS;
    m->any_dispatch = 1; /* model_window() may find a better one */
}

/* Bytes of a window's half, for all that travels together of n rows. */
static int64_t half_of(const struct model *m, int64_t n)
{
    int64_t row = m->cfg.d * real_size(m) + m->cfg.k * (stat_size(m) + (int64_t)sizeof(int32_t));
    return window_half(comm_size(m->comm[GROUP_ETP_EP]), n, row);
}

static int wants_windows(const struct model *m)
{
    return (m->dispatch == DISPATCH_WINDOW || m->any_dispatch) &&
           comm_size(m->comm[GROUP_ETP_EP]) > 1;
}

int64_t model_window_bytes(const struct model *m, int64_t n)
{
    return wants_windows(m) ? window_bytes(half_of(m, n)) : 0;
}

void model_window(struct model *m, struct lane *l, int64_t n)
{
    const char *why;
    if (!wants_windows(m) || m->window_rows >= n)
        return;
    struct window *w = window_open(m->comm[GROUP_ETP_EP], l, half_of(m, n), &why);
    int any = m->any_dispatch;
    m->any_dispatch = 0;
    if (!w && any)
        return;
    if (!w)
        die_misused("--dispatch window: group %s has no windows: %s (auto, rows and all need none)",
                    mesh_group_name(GROUP_ETP_EP), why);
    m->dispatch = DISPATCH_WINDOW;
    m->window = xrealloc(m->window, (m->windows + 1) * sizeof *m->window);
    m->window[m->windows++] = w;
    m->window_rows = n;
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

static struct window_part travels(void *out, const void *in, int64_t cols, enum dtype type)
{
    return (struct window_part){out, in, NULL, cols, type};
}

/* there: I32 (R,K) choices of the rows that are or were received; NULL when they are part 1. */
static struct window_rows rows_of(const struct task_context *t, const int32_t *there)
{
    return (struct window_rows){.index = saved_fetch(&t->s[t->layer], SLOT_KEPT),
                                .there = there,
                                .n = local_tokens(t),
                                .k = t->m->cfg.k,
                                .el = t->m->el,
                                .share = t->m->mesh.etp};
}

/* Rows of each part's `in` (Tl, cols) to the ranks that want them -> out (R, cols). */
static void fan_out(struct task_context *t, const int32_t *there, const struct window_part *part,
                    int parts)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), sent = sum(s->sent, comm_size(group_of(t)));
    if (m->dispatch == DISPATCH_WINDOW) {
        struct window_rows rows = rows_of(t, there);
        window_out(m->window[m->windows - 1], t->l, &rows, part, parts);
        return;
    }
    for (const struct window_part *p = part; p < part + parts; p++) {
        if (m->dispatch == DISPATCH_ALL) {
            comm_all_gather(group_of(t), t->l, p->out, p->in, n * p->cols, p->type);
            continue;
        }
        int64_t row_bytes = p->cols * dtype_size(p->type);
        void *rows = scratch(t, sent * row_bytes);
        m->op->gather_rows(t->l, mat(rows, p->type, sent, p->cols), mat(p->in, p->type, n, p->cols),
                           saved_fetch(s, SLOT_SEND_ROW));
        comm_all_to_all(group_of(t), t->l, p->out, s->recvd, rows, s->sent, row_bytes);
    }
}

/* The answers to received rows, each part's `in` (R, cols), home again: out (Tl, cols) = res +
 * them. */
static void fan_in(struct task_context *t, const struct window_part *part, int parts)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int n = comm_size(group_of(t));
    if (m->dispatch == DISPATCH_WINDOW) {
        struct window_rows rows = rows_of(t, saved_fetch(s, SLOT_RINDEX));
        window_back(m->window[m->windows - 1], t->l, &rows, part, parts);
        return;
    }
    const int32_t *place =
        m->dispatch == DISPATCH_ALL ? m->everywhere : saved_fetch(s, SLOT_SEND_PLACE);
    for (const struct window_part *p = part; p < part + parts; p++) {
        int64_t sent = sum(s->sent, n), row_bytes = p->cols * dtype_size(p->type);
        void *rows = scratch(t, sent * row_bytes);
        comm_all_to_all(group_of(t), t->l, rows, s->sent, p->in, s->recvd, row_bytes);
        m->op->gather_sum(t->l, mat(p->out, p->type, local_tokens(t), p->cols), p->res,
                          mat(rows, p->type, sent, p->cols), place, n);
    }
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

static void plan_window(struct task_context *t)
{
    for (int r = 0; r < comm_size(group_of(t)); r++)
        t->s[t->layer].recvd[r] = local_tokens(t); /* room for them all */
    model_window(t->m, t->l, local_tokens(t));
}

static void plan(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    int ranks = comm_size(group_of(t));
    free(s->sent), free(s->recvd);
    s->sent = xcalloc(ranks, sizeof *s->sent);
    s->recvd = xcalloc(ranks, sizeof *s->recvd);
    static void (*const plans[DISPATCH_WAYS])(struct task_context * t) = {plan_rows, plan_all,
                                                                          plan_window};
    plans[t->m->dispatch](t);
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
        struct window_part part[] = {
            travels(saved_keep(s, SLOT_RX, s->received * d * real_size(m)), saved_fetch(s, SLOT_H2),
                    d, m->op->real),
            travels(saved_keep(s, SLOT_RINDEX, s->received * k * (int64_t)sizeof(int32_t)),
                    saved_fetch(s, SLOT_KEPT), k, DT_I32),
            travels(saved_keep(s, SLOT_RGATE, s->received * k * stat_size(m)),
                    saved_fetch(s, SLOT_GATE), k, m->op->stat)};
        fan_out(t, NULL, part, ARRAY_LEN(part));
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
    if (alone(t)) {
        saved_release(s, SLOT_RX); /* h2 itself, which backward makes again */
    } else {
        struct window_part part = travels(saved_keep(s + 1, SLOT_X, n * d * real_size(m)),
                                          saved_fetch(s, SLOT_RY), d, m->op->real);
        part.res = beside_experts(t);
        fan_in(t, &part, 1);
    }
    saved_release(s, SLOT_H2);
    saved_release(s, SLOT_RY);
    saved_release(s, SLOT_X2);
}

void combine_dgrad(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t d = m->cfg.d;
    if (alone(t)) {
        saved_share(s, SLOT_DRY, s + 1, SLOT_DX);
    } else {
        struct window_part part = travels(saved_keep(s, SLOT_DRY, s->received * d * real_size(m)),
                                          saved_fetch(s + 1, SLOT_DX), d, m->op->real);
        fan_out(t, saved_fetch(s, SLOT_RINDEX), &part, 1);
    }
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
        struct window_part part[] = {travels(saved_keep(s, SLOT_DH2, n * d * real_size(m)),
                                             saved_fetch(s, SLOT_DRX), d, m->op->real),
                                     travels(saved_keep(s, SLOT_DGATE, n * k * stat_size(m)),
                                             saved_fetch(s, SLOT_DRGATE), k, m->op->stat)};
        fan_in(t, part, ARRAY_LEN(part));
    }
    static const enum slot done[] = {SLOT_DRX, SLOT_DRGATE, SLOT_SEND_ROW, SLOT_SEND_PLACE};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
}
