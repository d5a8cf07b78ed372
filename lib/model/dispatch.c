/* dispatch.c -- the token dispatcher: hidden states to the ranks that hold their experts, and back,
 * by one of several ways (dispatch.h), as four segments made of two movements.
 *
 * Alone in its group a rank moves nothing: the slots share their memory, and the experts' sums are
 * the layer's output at once. */
#include "model/dispatch.h"

#include <stdlib.h>
#include <string.h>

static const struct dispatcher *const ways[] = {&dispatch_rows, &dispatch_all, &dispatch_padded,
                                                &dispatch_window};

/* Of a token's k experts, drawn from all alike, none is on a given rank with a chance of
 * (E - El)! (E - k)! / (E! (E - El - k)!). */
static double wanted_share(const struct model *m)
{
    double none = 1;
    for (int64_t i = 0; i < m->cfg.k; i++)
        none *= (double)MAX(m->cfg.experts - m->el - i, 0) / (double)(m->cfg.experts - i);
    return 1 - none;
}

const char *model_dispatch_name(const struct model *m)
{
    return m->dispatch->name;
}

int model_asks_host(const struct model *m)
{
    return m->dispatch->asks_host && comm_size(m->comm[GROUP_ETP_EP]) > 1;
}

void model_dispatch(struct model *m, const char *how)
{
    m->any_dispatch = !strcmp(how, "auto"); /* model_window() may find a better one */
    m->dispatch = wanted_share(m) >= 0.75 ? &dispatch_all : &dispatch_rows;
    if (m->any_dispatch)
        return;
    m->dispatch = NULL;
    for (int64_t i = 0; i < ARRAY_LEN(ways); i++)
        if (!strcmp(how, ways[i]->name))
            m->dispatch = ways[i];
    if (!m->dispatch)
        die_misused("--dispatch %s: there is no such way (auto, rows, all, padded or window)", how);
    if (m->dispatch == &dispatch_padded && !(m->capacity > 0))
        die_misused("--dispatch padded: its buffers are as large as --capacity says, which is 0");
}

/* Bytes of a window's half, for all that travels together of n rows. */
static int64_t half_of(const struct model *m, int64_t n)
{
    int64_t row = m->cfg.d * real_size(m) + m->cfg.k * (stat_size(m) + (int64_t)sizeof(int32_t));
    return window_half(comm_size(m->comm[GROUP_ETP_EP]), n, row);
}

static int wants_windows(const struct model *m)
{
    return (m->dispatch == &dispatch_window || m->any_dispatch) &&
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
        die_misused(
            "--dispatch window: group %s has no windows: %s (auto, rows, all and padded need none)",
            mesh_group_name(GROUP_ETP_EP), why);
    m->dispatch = &dispatch_window;
    m->window = xrealloc(m->window, (m->windows + 1) * sizeof *m->window);
    m->window[m->windows++] = w;
    m->window_rows = n;
}

static struct window_part travels(void *out, const void *in, int64_t cols, enum dtype type)
{
    return (struct window_part){out, in, NULL, cols, type};
}

static void plan(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    int ranks = comm_size(dispatch_group(t));
    free(s->sent), free(s->recvd);
    s->sent = xcalloc(ranks, sizeof *s->sent);
    s->recvd = xcalloc(ranks, sizeof *s->recvd);
    t->m->dispatch->plan(t);
    s->received = 0;
    for (int i = 0; i < ranks; i++)
        s->received += s->recvd[i];
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
        m->dispatch->out(t, NULL, part, ARRAY_LEN(part));
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
        m->dispatch->back(t, &part, 1);
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
        m->dispatch->out(t, saved_fetch(s, SLOT_RINDEX), &part, 1);
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
        m->dispatch->back(t, part, ARRAY_LEN(part));
    }
    static const enum slot done[] = {SLOT_DRX, SLOT_DRGATE, SLOT_SEND_ROW, SLOT_SEND_PLACE};
    for (int64_t i = 0; i < ARRAY_LEN(done); i++)
        saved_release(s, done[i]);
}
