/* dispatch.h -- what a way for tokens to reach their experts' ranks is: one file and a table each.
 *
 * Over the group ETP x EP a token's row goes once to every rank that holds (a part of) one of its
 * chosen experts, however many of them are there; the rank answers with one row, its experts'
 * weighted sum, and the answers are added at home.  Backward is the same traffic in the same two
 * directions, so a way is a plan, made anew in each forward pass, and two movements. */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "model/model_priv.h"

struct dispatcher {
    const char *name;
    int asks_host; /* a step that uses it cannot be captured */
    /* From the choices in SLOT_KEPT: s->sent and s->recvd, zeroed before, and what else the
     * movements need. */
    void (*plan)(struct task_context *t);
    /* Rows of each part's `in` (Tl, cols) to the ranks that want them -> out (R, cols).  there: I32
     * (R,K) choices of the rows that were received; NULL when these are part 1, and part 0 the
     * rows. */
    void (*out)(struct task_context *t, const int32_t *there, const struct window_part *part,
                int parts);
    /* The answers to received rows, each part's `in` (R, cols), home again: out (Tl, cols) = res +
     * them. */
    void (*back)(struct task_context *t, const struct window_part *part, int parts);
};
extern const struct dispatcher dispatch_rows, dispatch_all, dispatch_padded, dispatch_window;

static inline struct comm *dispatch_group(const struct task_context *t)
{
    return t->m->comm[GROUP_ETP_EP];
}
static inline int64_t rows_sent(const struct task_context *t)
{
    int64_t sum = 0;
    for (int i = 0; i < comm_size(dispatch_group(t)); i++)
        sum += t->s[t->layer].sent[i];
    return sum;
}

/* dispatch_rows.c: s->sent and s->recvd rows by all-to-all, gathered by SLOT_SEND_ROW; and their
 * answers, which `place`, I32 (Tl, ranks), says where to find: -1 for none. */
void exchange_out(struct task_context *t, const struct window_part *part);
void exchange_back(struct task_context *t, const struct window_part *part, int parts,
                   const int32_t *place);

#endif
