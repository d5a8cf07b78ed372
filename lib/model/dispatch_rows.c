/* dispatch_rows.c -- rows counted: the host knows which row goes where, and no row is sent in vain.
 */
#include "model/dispatch.h"

#include <stdlib.h>

void exchange_out(struct task_context *t, const struct window_part *p)
{
    struct saved *s = &t->s[t->layer];
    int64_t sent = rows_sent(t), row_bytes = p->cols * dtype_size(p->type);
    void *rows = scratch(t, sent * row_bytes);
    t->m->op->gather_rows(t->l, mat(rows, p->type, sent, p->cols),
                          mat(p->in, p->type, local_tokens(t), p->cols),
                          saved_fetch(s, SLOT_SEND_ROW));
    comm_all_to_all(dispatch_group(t), t->l, p->out, s->recvd, rows, s->sent, row_bytes);
}

void exchange_back(struct task_context *t, const struct window_part *part, int parts,
                   const int32_t *place)
{
    struct saved *s = &t->s[t->layer];
    int64_t sent = rows_sent(t);
    for (const struct window_part *p = part; p < part + parts; p++) {
        int64_t row_bytes = p->cols * dtype_size(p->type);
        void *rows = scratch(t, sent * row_bytes);
        comm_all_to_all(dispatch_group(t), t->l, rows, s->sent, p->in, s->recvd, row_bytes);
        t->m->op->gather_sum(t->l, mat(p->out, p->type, local_tokens(t), p->cols), p->res,
                             mat(rows, p->type, sent, p->cols), place,
                             comm_size(dispatch_group(t)));
    }
}

/* SLOT_SEND_ROW: the row sent as number i, rank by rank; SLOT_SEND_PLACE: number of row t to rank
 * r, or -1. */
static void plan(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    const struct dev_ops *dev = t->l->dev;
    int64_t n = local_tokens(t), k = m->cfg.k;
    int ranks = comm_size(dispatch_group(t)), etp = m->mesh.etp;

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
    comm_all_to_all(dispatch_group(t), NULL, s->recvd, one, s->sent, one, sizeof *s->sent);

    dev->put(t->l, saved_keep(s, SLOT_SEND_ROW, sent * sizeof *row), row, sent * sizeof *row);
    dev->put(t->l, saved_keep(s, SLOT_SEND_PLACE, n * ranks * sizeof *place), place,
             n * ranks * sizeof *place);
    dev->wait(t->l); /* the host arrays have been read */
    free(index), free(one), free(row), free(place);
}

static void out(struct task_context *t, const int32_t *there, const struct window_part *part,
                int parts)
{
    for (int i = 0; i < parts; i++)
        exchange_out(t, &part[i]);
}

static void back(struct task_context *t, const struct window_part *part, int parts)
{
    exchange_back(t, part, parts, saved_fetch(&t->s[t->layer], SLOT_SEND_PLACE));
}

const struct dispatcher dispatch_rows = {"rows", 1, plan, out, back};
