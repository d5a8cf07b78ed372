/* step.c -- a step on the device: the schedule, the losses, the update; queued, captured, taken.
 *
 * Nothing in a step waits for the host.  What it leaves (losses, verdict) is copied behind it and
 * read when the next one has been queued. */
#include "train/trainer_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The batch as the loss wants it: the rank's own, or where a loss on documents meets rows that are
 * cut, the whole rows with everybody's logp. */
static struct batch *loss_batch(struct trainer *t, int64_t micro)
{
    struct batch *b = &t->batch[micro], *whole = &t->whole[micro];
    if (!whole->block)
        return b;
    context_join(&t->context, &t->model, &t->lane, whole->logp, b->logp);
    return whole;
}

/* Which ranks count what they see of a batch: one of those that see the same. */
static int counts(const struct trainer *t)
{
    return t->mesh.i_tp == 0 && (!t->loss->pairs || t->mesh.i_cp == 0);
}

/* What the layers at that index of model.at work on. */
static struct batch *batch_at(struct trainer *t, int64_t micro, int64_t layer)
{
    int64_t beyond = layer - t->model.layers - 1;
    return beyond < 0 ? &t->batch[micro] : &t->further[micro * t->model.further + beyond / 2];
}

static struct loss_rows loss_rows(struct trainer *t, struct batch *b)
{
    return (struct loss_rows){.weight = b->weight,
                              .logp = b->logp,
                              .dlogp = b->dlogp,
                              .denom = t->scalars,
                              .sum = t->model.loss,
                              .t = b->t,
                              .spans = b->spans,
                              .q_at = b->q_at,
                              .chosen = b->chosen,
                              .base = b->base,
                              .margin = b->margin,
                              .beta = t->loss->reward ? 1 : t->o.beta};
}

/* The loss of further tokens is one of log-probabilities too, with a denominator and a sum of its
 * own. */
static struct loss_rows further_rows(struct trainer *t, struct batch *b)
{
    int64_t ssz = dtype_size(t->model.op->stat);
    struct loss_rows r = loss_rows(t, b);
    r.denom = (char *)t->scalars + FURTHER_DENOM * ssz;
    r.sum = (char *)t->model.loss + LOSS_FURTHER * ssz;
    return r;
}

static void loss_dgrad(struct trainer *t, int64_t micro)
{
    struct batch *b = &t->batch[micro], *all = loss_batch(t, micro);
    struct loss_rows r = loss_rows(t, all);
    t->loss->dgrad(&t->lane, t->model.op, &r);
    if (all != b)
        context_part(&t->context, &t->model, &t->lane, b->dlogp, all->dlogp);
}

/* A reward model's scores of the documents of a batch, where weights mark their last tokens. */
static void add_scores(struct trainer *t, const struct batch *b, const struct batch_host *h)
{
    double *x = xmalloc(b->t * sizeof *x);
    void *raw = xmalloc(b->t * dtype_size(t->model.op->stat));
    t->lane.dev->get(&t->lane, raw, b->logp, b->t * dtype_size(t->model.op->stat));
    t->lane.dev->wait(&t->lane);
    dtype_convert(x, DT_F64, raw, t->model.op->stat, b->t);
    for (int64_t i = 0; i < b->t; i++)
        if (h->weight[i] > 0) {
            t->scores[0]++;
            t->scores[1] += x[i];
            t->scores[2] += x[i] * x[i];
        }
    free(x), free(raw);
}

static void loss_value(struct trainer *t, int64_t micro, int eval)
{
    struct batch *all = loss_batch(t, micro);
    struct loss_rows r = loss_rows(t, all);
    if (!counts(t))
        return;
    t->loss->value(&t->lane, t->model.op, &r);
    if (t->loss->reward && eval)
        add_scores(t, all, &t->host[micro]);
}

static void run_schedule(struct trainer *t, const struct schedule *s)
{
    int64_t alive = s->in_flight, per = model_slots(&t->model);
    const struct dev_ops *dev = t->lane.dev;
    for (int64_t i = 0; i < s->n; i++) {
        const struct task *k = &s->task[i];
        struct lane *l = t->lanes[k->lane];
        struct task_context c = {.m = &t->model,
                                 .l = l,
                                 .b = batch_at(t, k->micro, k->layer),
                                 .s = &t->saved[k->micro % alive * per],
                                 .add = k->micro > 0, /* a chunk's come in order */
                                 .layer = k->layer};
        int head = k->segment == SEG_HEAD || k->segment == SEG_SCORE;
        int head_dgrad = head && k->pass == PASS_DGRAD, further = k->layer > t->model.layers;
        struct loss_rows rows;
        if (further)
            rows = further_rows(t, c.b);
        if (k->after >= 0 && t->lanes[s->task[k->after].lane] != l)
            dev->follow(l, &t->reached[k->after]);
        if (s == &t->schedule && k->segment == SEG_EXPERTS && k->micro == 0 &&
            k->pass == PASS_FORWARD)
            optim_await(&t->optim, k->layer);
        if (head_dgrad && further)
            t->loss->dgrad(&t->lane, t->model.op, &rows);
        else if (head_dgrad)
            loss_dgrad(t, k->micro);
        segment_run[k->segment][k->pass](&c);
        if (k->awaited && t->lanes[LANE_TOKENS] != t->lanes[LANE_COMPUTE])
            dev->record(l, &t->reached[i]);
        arena_reset(&l->scratch);
        /* the last word on the gradients of a layer's experts, of the rest of it, of the head's */
        int attention = k->segment == SEG_ATTN || k->segment == SEG_LATENT;
        int experts = k->segment == SEG_EXPERTS && k->pass == PASS_WGRAD;
        int done = further ? k->segment == SEG_JOIN && k->pass == PASS_DGRAD
                           : (attention && k->pass == PASS_WGRAD) || head_dgrad;
        if (s == &t->schedule && (done || experts) && k->micro == t->micros - 1)
            optim_reduce_layer(&t->optim, k->layer, experts ? BUFFER_EXPERTS : BUFFER_DENSE);
        /* the last pass of the head has written logp */
        if (head_dgrad && further && counts(t))
            t->loss->value(&t->lane, t->model.op, &rows);
        else if (head && !further && (head_dgrad || s == &t->eval))
            loss_value(t, k->micro, s == &t->eval);
        if (k->last_of_micro)
            for (int64_t l = 0; l < per; l++)
                saved_clear(&c.s[l]);
    }
}

static void zero_losses(struct trainer *t)
{
    t->lane.dev->zero(&t->lane, t->model.loss, LOSS_SUMS * dtype_size(t->model.op->stat));
}

/* Over all ranks. */
static void sum_losses(struct trainer *t)
{
    struct model *m = &t->model;
    comm_all_reduce(m->comm[GROUP_WORLD], m->lane, m->loss, LOSS_SUMS, m->op->stat, COMM_SUM);
}

static void gradients(struct trainer *t)
{
    zero_losses(t);
    optim_begin(&t->optim);
    run_schedule(t, &t->schedule);
    optim_reduce(&t->optim);
    sum_losses(t);
}

/* The sums of the step as means; the router's of a token and layer of experts. */
static void result_losses(const struct trainer *t, const void *raw /* S (LOSS_SUMS) */,
                          struct step_result *r)
{
    double sums[LOSS_SUMS];
    const struct model *m = &t->model;
    double routed = MAX(r->routed, 1);
    dtype_convert(sums, DT_F64, raw, m->op->stat, LOSS_SUMS);
    r->loss = sums[LOSS_MAIN] / r->weight;
    r->won = sums[LOSS_WON] / r->weight;
    r->further = m->cfg.further ? sums[LOSS_FURTHER] / r->weight / (double)m->cfg.further : NAN;
    /* every rank of TP x CP computed the whole group's auxiliary loss, and dropped its choices */
    int ranks = t->mesh.tp * t->mesh.cp;
    r->aux = sums[LOSS_AUX] / routed / ranks;
    r->dropped = m->capacity > 0 ? sums[LOSS_DROPPED] / routed / m->cfg.k / ranks : NAN;
    r->z = sums[LOSS_Z] / routed;
}

static void read_losses(struct trainer *t, struct step_result *r)
{
    double host[LOSS_SUMS];
    t->lane.dev->get(&t->lane, host, t->model.loss, LOSS_SUMS * dtype_size(t->model.op->stat));
    t->lane.dev->wait(&t->lane);
    result_losses(t, host, r);
}

void trainer_gradients(struct trainer *t, struct step_result *r)
{
    batches_count(t, r);
    if (r->skipped)
        return;
    batches_put(t, r->weight, r->tokens);
    gradients(t);
    read_losses(t, r);
}

void whole_step(struct trainer *t)
{
    gradients(t);
    optim_step(&t->optim);
}

/* Where no task asks the host anything, a step can be kept: no counts of rows are exchanged, and
 * no message is on its way on a stream of its own. */
static int asks_nobody(const struct trainer *t)
{
    return t->mesh.pp == 1 && !model_asks_host(&t->model);
}

/* The first steps of a shape are done as they come, until plans are there and one has found all the
 * memory it needs, on all ranks; the next is kept, where the device can, and from then on repeated.
 */
static void replay_step(struct trainer *t)
{
    const struct dev_ops *dev = t->lane.dev;
    int64_t spans = t->batch[0].spans, i = 0;
    int whole = t->batch[0].whole;
    while (i < t->captures && (t->capture[i].spans != spans || t->capture[i].whole != whole))
        i++;
    if (i == t->captures) {
        t->capture = xrealloc(t->capture, ++t->captures * sizeof *t->capture);
        t->capture[i] = (struct shape_capture){.spans = spans, .whole = whole};
    }
    struct shape_capture *c = &t->capture[i];
    if (!c->ready) {
        int64_t grew = -step_memory(t);
        whole_step(t);
        grew += step_memory(t);
        comm_all_reduce(t->model.comm[GROUP_WORLD], NULL, &grew, 1, DT_I64, COMM_MAX);
        c->ready = grew <= 0;
        return;
    }
    if (!c->work.handle) {
        dev->capture_begin(&t->lane);
        whole_step(t);
        dev->capture_end(&t->lane, &c->work);
        fix_memory(t, c->work.handle != NULL);
        if (opt_verbose && c->work.handle)
            say("steps of up to %lld documents a micro-batch are one launch of %lld kernels",
                (long long)spans, (long long)c->work.nodes);
    }
    dev->replay(&t->lane, &c->work);
}

void trainer_queue(struct trainer *t)
{
    struct lane *l = &t->lane;
    struct step_on_its_way *w = &t->way[t->queued++ % ON_THEIR_WAY];
    int64_t ssz = dtype_size(t->model.op->stat);
    l->dev->record(l, &w->begun);
    batches_count(t, &w->r);
    if (!w->r.skipped) {
        batches_put(t, w->r.weight, w->r.tokens);
        if (asks_nobody(t))
            replay_step(t);
        else
            whole_step(t);
        l->dev->get_later(l, w->report + REPORT_LOSS, t->model.loss, LOSS_SUMS * ssz);
        l->dev->get_later(l, w->report + REPORT_STATE, t->optim.state, STEP_STATE * ssz);
        l->dev->get_later(l, w->report + REPORT_BAD, t->optim.bad, sizeof w->r.bad);
    }
    l->dev->record(l, &w->done);
}

void trainer_take(struct trainer *t, struct step_result *r)
{
    struct step_on_its_way *w = &t->way[t->taken++ % ON_THEIR_WAY];
    double state[STEP_STATE];
    t->lane.dev->reach(&w->done);
    *r = w->r;
    r->seconds = t->lane.dev->elapsed(&w->begun, &w->done);
    if (r->skipped)
        return;
    result_losses(t, w->report + REPORT_LOSS, r);
    dtype_convert(state, DT_F64, w->report + REPORT_STATE, t->model.op->stat, STEP_STATE);
    memcpy(r->bad, w->report + REPORT_BAD, sizeof r->bad);
    r->ok = state[STEP_OK] > 0;
    r->norm = state[STEP_NORM];
    r->lr = state[STEP_LR];
}

void trainer_step(struct trainer *t, struct step_result *r)
{
    trainer_queue(t);
    trainer_take(t, r);
}

void trainer_blame(const struct trainer *t, const struct step_result *r, int64_t step)
{
    const struct layout *y = &t->model.layout;
    for (int64_t i = 0; i < y->n; i++) {
        const struct local *l = &y->local[i];
        int64_t bad = l->buffer < BUFFERS_LEARNT ? r->bad[l->buffer] - l->at : -1;
        if (bad < 0 || bad >= l->r.rows * l->r.cols)
            continue;
        warn("step %lld: rank %d: the gradient of %s is not finite", (long long)step, t->mesh.rank,
             l->p->name);
        return;
    }
}

/* Models are used with room for all choices, so they are judged so. */
double trainer_evaluate(struct trainer *t, struct set *const *set, int64_t n, double moments[2])
{
    double weight = 0, capacity = t->model.capacity;
    struct step_result r;
    t->model.capacity = 0;
    optim_whole(&t->optim);
    memset(t->scores, 0, sizeof t->scores);
    zero_losses(t);
    for (int64_t i = 0; i < n; i++)
        for (int64_t first = 0; first < set_sequences(set[i]); first += t->o.batch) {
            batches_of_set(t, set[i], first);
            batches_count(t, &r);
            weight += r.weight;
            batches_put(t, 1, 1);
            run_schedule(t, &t->eval);
        }
    sum_losses(t);
    r.weight = weight;
    read_losses(t, &r);
    t->model.capacity = capacity;
    if (moments) {
        comm_all_reduce(t->model.comm[GROUP_WORLD], NULL, t->scores, 3, DT_F64, COMM_SUM);
        double docs = t->scores[0], mean = t->scores[1] / docs;
        moments[0] = mean;
        moments[1] = sqrt(MAX(t->scores[2] / docs - mean * mean, 0));
    }
    return r.loss;
}
