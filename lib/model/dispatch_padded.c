/* dispatch_padded.c -- buffers of one size, where experts have limited capacity: of an accounting
 * group an expert takes so many choices at most, so no rank has more rows for another than that
 * times its experts, and buffers of as many rows are exchanged whatever is in them.  So the host
 * knows all counts beforehand.  A row of padding has no choices (-1), and nobody works on it. */
#include "model/dispatch.h"

static void plan(struct task_context *t)
{
    struct model *m = t->m;
    struct saved *s = &t->s[t->layer];
    int64_t n = local_tokens(t), k = m->cfg.k, ranks = comm_size(dispatch_group(t));
    int64_t room = n, each = (int64_t)sizeof(int32_t);
    if (m->capacity > 0)
        room = MIN(n, m->el * expert_room(t));
    for (int64_t r = 0; r < ranks; r++)
        s->sent[r] = s->recvd[r] = room;
    int32_t *row = saved_keep(s, SLOT_SEND_ROW, ranks * room * each);
    int32_t *place = saved_keep(s, SLOT_SEND_PLACE, n * ranks * each);
    int32_t *there = saved_keep(s, SLOT_SEND_INDEX, ranks * room * k * each);
    m->op->pack_rows(t->l, row, there, place, saved_fetch(s, SLOT_KEPT), n, k, ranks, m->mesh.etp,
                     m->el, room);
}

static void out(struct task_context *t, const int32_t *there, const struct window_part *part,
                int parts)
{
    struct saved *s = &t->s[t->layer];
    for (int i = 0; i < parts; i++) {
        if (there || i != 1) {
            exchange_out(t, &part[i]);
            continue;
        }
        comm_all_to_all(dispatch_group(t), t->l, part[i].out, s->recvd,
                        saved_fetch(s, SLOT_SEND_INDEX), s->sent,
                        part[i].cols * dtype_size(part[i].type));
        saved_release(s, SLOT_SEND_INDEX);
    }
}

static void back(struct task_context *t, const struct window_part *part, int parts)
{
    exchange_back(t, part, parts, saved_fetch(&t->s[t->layer], SLOT_SEND_PLACE));
}

const struct dispatcher dispatch_padded = {"padded", 0, plan, out, back};
