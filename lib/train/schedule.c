/* schedule.c -- a step as a list of tasks.
 *
 * All that distinguishes one pipeline schedule from another is the order of this list.  A layer's
 * tokens travel on the lane of tokens and everything else is computed on the other; where a
 * task needs what the other lane makes, it names that task.
 *
 * In backward, weight gradients are computed while tokens travel: a weight gradient stands behind
 * the task of the other lane that its data gradient made way for, and is not waited for.  It keeps
 * no slot, so no memory changes hands that the other lane may still be at work on. */
#include "train/train.h"

#include <stdlib.h>

/* Whether a segment's work is on the lane of tokens. */
static int travels(int seg)
{
    return seg == SEG_DISPATCH || seg == SEG_COMBINE;
}

static int last_segment(const struct model *m, int layer)
{
    struct layer_segments s = layer_segments(m, layer);
    return s.list[s.n - 1];
}

static void add(struct schedule *s, enum segment seg, enum pass pass, int layer, int micro)
{
    int comm = travels(seg);
    struct task t = {seg, pass, comm ? LANE_TOKENS : LANE_COMPUTE, layer, micro, -1, 0, 0};
    if (!segment_run[seg][pass])
        return;
    if (comm || pass != PASS_WGRAD)
        for (int64_t i = s->n - 1; t.after < 0 && i >= 0 && i >= s->n - 2; i--)
            if (s->task[i].lane != t.lane)
                t.after = i;
    if (t.after >= 0)
        s->task[t.after].awaited = 1;
    s->task = xrealloc(s->task, (s->n + 1) * sizeof *s->task);
    s->task[s->n++] = t;
}

/* Where a chunk lies: its stage's layers lo .. hi, and whether the model begins or ends with it. */
struct place {
    int lo, hi, first, last;
};

static struct place place_of(const struct model *m, int64_t chunk)
{
    const struct mesh *x = &m->mesh;
    return (struct place){m->chunk[chunk], m->chunk[chunk + 1], chunk == 0 && x->i_pp == 0,
                          chunk + 1 == m->chunks && x->i_pp + 1 == x->pp};
}

static void add_layers(struct schedule *s, const struct model *m, int lo, int hi, int micro)
{
    for (int l = lo; l < hi; l++) {
        struct layer_segments layer = layer_segments(m, l);
        for (int64_t i = 0; i < layer.n; i++)
            add(s, layer.list[i], PASS_FORWARD, l, micro);
    }
}

static void add_forward(struct schedule *s, const struct model *m, struct place p, int micro,
                        int head /* SEG_HEAD, SEG_SCORE, or -1 for none */)
{
    add(s, p.first ? SEG_EMBED : SEG_RECV, PASS_FORWARD, p.lo, micro);
    add_layers(s, m, p.lo, p.hi, micro);
    if (!p.last)
        add(s, SEG_SEND, PASS_FORWARD, p.hi, micro);
    else if (head >= 0)
        add(s, head, PASS_FORWARD, p.hi, micro);
}

static void add_layers_back(struct schedule *s, const struct model *m, int lo, int hi, int micro)
{
    int late = -1, late_layer = -1; /* a segment whose weight gradient waits for one that travels */
    for (int l = hi - 1; l >= lo; l--) {
        struct layer_segments layer = layer_segments(m, l);
        for (int64_t i = layer.n - 1; i >= 0; i--) {
            add(s, layer.list[i], PASS_DGRAD, l, micro);
            if (late >= 0)
                add(s, late, PASS_WGRAD, late_layer, micro);
            late = -1;
            int below = i > 0 ? (int)layer.list[i - 1] : l > lo ? last_segment(m, l - 1) : -1;
            if (travels(below))
                late = layer.list[i], late_layer = l;
            else
                add(s, layer.list[i], PASS_WGRAD, l, micro);
        }
    }
}

/* Layers that predict further tokens, which only a loss known beforehand asks for: forward after
 * the last layer, and backward before the head. */
static void add_further(struct schedule *s, const struct model *m, int micro)
{
    for (int l = (int)m->layers + 1; l < model_slots(m); l += 2) {
        add(s, SEG_JOIN, PASS_FORWARD, l, micro);
        add_layers(s, m, l, l + 1, micro);
    }
}

static void add_further_back(struct schedule *s, const struct model *m, int micro)
{
    for (int l = (int)model_slots(m) - 2; l > m->layers; l -= 2) {
        add(s, SEG_HEAD, PASS_DGRAD, l + 1, micro);
        add_layers_back(s, m, l, l + 1, micro);
        add(s, SEG_JOIN, PASS_DGRAD, l, micro);
    }
}

static void add_backward(struct schedule *s, const struct model *m, struct place p, int micro,
                         enum segment head)
{
    if (p.last)
        add_further_back(s, m, micro);
    add(s, p.last ? head : SEG_SEND, PASS_DGRAD, p.hi, micro);
    add_layers_back(s, m, p.lo, p.hi, micro);
    if (p.first)
        add(s, SEG_EMBED, PASS_WGRAD, 0, micro);
    else
        add(s, SEG_RECV, PASS_DGRAD, p.lo, micro);
    s->task[s->n - 1].last_of_micro = p.lo == 0;
}

/* The k-th forward pass of a stage: PP micro-batches through its first chunk, the same through its
 * next, and so on, then the next PP micro-batches.  Backward passes go the same way through the
 * chunks from the last.  With one chunk it is micro-batch k. */
static int micro_of(const struct model *m, int64_t k)
{
    int64_t round = m->mesh.pp * m->chunks;
    return k / round * m->mesh.pp + k % m->mesh.pp;
}

static int64_t chunk_of(const struct model *m, int64_t k)
{
    return k / m->mesh.pp % m->chunks;
}

void schedule_1f1b(struct schedule *s, const struct model *m, int64_t micros, enum segment head,
                   int head_forward)
{
    const struct mesh *x = &m->mesh;
    int64_t behind = x->pp - 1 - x->i_pp, n = micros * m->chunks;
    int64_t ahead = m->chunks == 1 ? behind : 2 * behind + (m->chunks - 1) * x->pp;
    ahead = MIN(ahead, n); /* forwards before the first backward */
    *s = (struct schedule){.in_flight = 1};
    for (int64_t i = 0, begun = 0, ended = 0; i < n + ahead; i++) {
        if (i < n) {
            add_forward(s, m, place_of(m, chunk_of(m, i)), micro_of(m, i),
                        head_forward ? (int)head : -1);
            if (place_of(m, chunk_of(m, i)).last)
                add_further(s, m, micro_of(m, i));
            begun = MAX(begun, micro_of(m, i) + 1);
        }
        s->in_flight = MAX(s->in_flight, begun - ended);
        if (i >= ahead) {
            int64_t k = i - ahead, chunk = m->chunks - 1 - chunk_of(m, k);
            add_backward(s, m, place_of(m, chunk), micro_of(m, k), head);
            ended += chunk == 0;
        }
    }
}

void schedule_forward(struct schedule *s, const struct model *m, int64_t micros, enum segment head)
{
    *s = (struct schedule){.in_flight = 1};
    for (int64_t i = 0; i < micros; i++) {
        for (int64_t c = 0; c < m->chunks; c++)
            add_forward(s, m, place_of(m, c), i, head);
        s->task[s->n - 1].last_of_micro = 1;
    }
}

void schedule_release(struct schedule *s)
{
    free(s->task);
}
