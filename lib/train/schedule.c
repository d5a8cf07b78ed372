/* schedule.c -- a step as a list of tasks.
 *
 * All that distinguishes one pipeline schedule from another is the order of this list.  A layer's tokens
 * travel on the communication lane and everything else is computed on the other; where a task needs what
 * the other lane makes, it names that task. */
#include "train/train.h"

#include <stdlib.h>

static void add(struct schedule *s, enum segment seg, enum pass pass, int layer, int micro)
{
    int comm = seg == SEG_DISPATCH || seg == SEG_COMBINE || seg == SEG_RECV || seg == SEG_SEND;
    struct task t = {seg, pass, comm ? LANE_COMM : LANE_COMPUTE, layer, micro, -1, 0};
    if (!segment_run[seg][pass])
        return;
    if (s->n && s->task[s->n - 1].lane != t.lane)
        t.after = s->n - 1;
    s->task = xrealloc(s->task, (s->n + 1) * sizeof *s->task);
    s->task[s->n++] = t;
}

static const enum segment layer_segments[] = {SEG_ATTN, SEG_ROUTE, SEG_DISPATCH, SEG_EXPERTS,
                                              SEG_COMBINE};

static void add_forward(struct schedule *s, const struct mesh *m, int64_t layers, int micro,
                        int head /* SEG_HEAD, SEG_SCORE, or -1 for none */)
{
    add(s, m->i_pp == 0 ? SEG_EMBED : SEG_RECV, PASS_FORWARD, 0, micro);
    for (int l = 0; l < layers; l++)
        for (int64_t i = 0; i < ARRAY_LEN(layer_segments); i++)
            add(s, layer_segments[i], PASS_FORWARD, l, micro);
    if (m->i_pp + 1 < m->pp)
        add(s, SEG_SEND, PASS_FORWARD, layers, micro);
    else if (head >= 0)
        add(s, head, PASS_FORWARD, layers, micro);
}

static void add_backward(struct schedule *s, const struct mesh *m, int64_t layers, int micro,
                         enum segment head)
{
    add(s, m->i_pp + 1 < m->pp ? SEG_SEND : head, PASS_DGRAD, layers, micro);
    for (int l = layers - 1; l >= 0; l--)
        for (int64_t i = ARRAY_LEN(layer_segments) - 1; i >= 0; i--) {
            add(s, layer_segments[i], PASS_DGRAD, l, micro);
            add(s, layer_segments[i], PASS_WGRAD, l, micro);
        }
    if (m->i_pp == 0)
        add(s, SEG_EMBED, PASS_WGRAD, 0, micro);
    else
        add(s, SEG_RECV, PASS_DGRAD, 0, micro);
    s->task[s->n - 1].last_of_micro = 1;
}

void schedule_1f1b(struct schedule *s, const struct mesh *m, int64_t layers, int64_t micros,
                   enum segment head, int head_forward)
{
    int64_t ahead = MIN(m->pp - 1 - m->i_pp, micros); /* forwards before the first backward */
    *s = (struct schedule){.in_flight = ahead + 1};
    for (int64_t i = 0; i < micros + ahead; i++) {
        if (i < micros)
            add_forward(s, m, layers, i, head_forward ? (int)head : -1);
        if (i >= ahead)
            add_backward(s, m, layers, i - ahead, head);
    }
}

void schedule_forward(struct schedule *s, const struct mesh *m, int64_t layers, int64_t micros,
                      enum segment head)
{
    *s = (struct schedule){.in_flight = 1};
    for (int64_t i = 0; i < micros; i++) {
        add_forward(s, m, layers, i, head);
        s->task[s->n - 1].last_of_micro = 1;
    }
}

void schedule_release(struct schedule *s)
{
    free(s->task);
}
