/* dispatch_all.c -- every row to every rank.  Where nearly all are wanted there (8 experts of 64 a
 * token, on 2 ranks: 99.8 %) that costs next to nothing, and nothing needs to be counted. */
#include "model/dispatch.h"

#include <stdlib.h>

/* Row i of rank r's answers is r Tl + i. */
static void plan(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), ranks = comm_size(dispatch_group(t));
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

static void out(struct task_context *t, const int32_t *there, const struct window_part *part,
                int parts)
{
    for (const struct window_part *p = part; p < part + parts; p++)
        comm_all_gather(dispatch_group(t), t->l, p->out, p->in, local_tokens(t) * p->cols, p->type);
}

static void back(struct task_context *t, const struct window_part *part, int parts)
{
    exchange_back(t, part, parts, t->m->everywhere);
}

const struct dispatcher dispatch_all = {"all", 0, plan, out, back};
