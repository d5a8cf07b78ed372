/* trainer.c -- one step: rows in, gradients, update.
 *
 * What a step needs to know of the whole global batch before it starts (the denominator, the live
 * tokens) is counted from the data and summed over the ranks in f64; everything after that is the
 * schedule. */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCALARS = 3, STAGE_SCALARS = 256, REPORT_LOSS = 0, REPORT_STATE = 256, REPORT_BAD = 512 };
enum { REPORT_BYTES = 768 };

/* Rows on the host, on the device, and between the two. */
static void batches_init(struct trainer *t)
{
    const struct trainer_options *o = &t->o;
    int cut = t->mesh.cp > 1;
    int64_t bytes = STAGE_SCALARS;
    t->host = xcalloc(t->micros, sizeof *t->host);
    t->batch = xcalloc(t->micros, sizeof *t->batch);
    t->whole = xcalloc(t->micros, sizeof *t->whole);
    for (int64_t i = 0; i < t->micros; i++) {
        batch_host_init(&t->host[i], o->micro, o->seq);
        batch_init(&t->batch[i], &t->model, o->micro, o->seq / t->mesh.cp);
        t->batch[i].context = cut ? &t->context : NULL;
        t->batch[i].keys = o->seq;
        if (cut && t->loss->pairs)
            batch_init(&t->whole[i], &t->model, o->micro, o->seq);
        bytes += t->batch[i].put_bytes + t->whole[i].put_bytes;
    }
    if (cut) {
        batch_host_init(&t->part, o->micro, o->seq / t->mesh.cp);
        context_init(&t->context, &t->mesh, &t->lane, o->micro, o->seq);
    }
    t->scalars = lane_alloc(&t->lane, SCALARS * sizeof(double), "a batch");
    t->model.coef = (char *)t->scalars + dtype_size(t->model.op->stat);
    for (int i = 0; i < ARRAY_LEN(t->stage); i++)
        t->stage[i].p = memset(t->lane.dev->alloc_host(bytes), 0, bytes);
}

static void batches_release(struct trainer *t)
{
    const struct dev_ops *dev = t->lane.dev;
    for (int64_t i = 0; i < t->micros; i++) {
        batch_host_release(&t->host[i]);
        batch_release(&t->batch[i], &t->model);
        if (t->whole[i].block)
            batch_release(&t->whole[i], &t->model);
    }
    if (t->mesh.cp > 1) {
        batch_host_release(&t->part);
        context_release(&t->context, dev);
    }
    dev->free(t->scalars);
    for (int i = 0; i < ARRAY_LEN(t->stage); i++) {
        dev->free_host(t->stage[i].p);
        dev->event_free(&t->stage[i].read);
    }
    free(t->host), free(t->batch), free(t->whole);
}

void trainer_init(struct trainer *t, struct world *w, const struct mesh *mesh, struct config *cfg,
                  const struct trainer_options *o)
{
    memset(t, 0, sizeof *t);
    t->o = *o;
    t->world = w;
    t->mesh = *mesh;
    if (mesh->cp > 1 && o->seq % (2 * mesh->cp))
        die_misused("--cp %d cuts a sequence in %d chunks, and %lld tokens do not divide by that",
                    mesh->cp, 2 * mesh->cp, (long long)o->seq);
    int64_t share = o->micro * mesh->dp;
    if (o->batch < 1 || o->micro < 1 || o->batch % share)
        die_misused("--batch %lld is not a multiple of --micro %lld times %d data-parallel ranks",
                    (long long)o->batch, (long long)o->micro, mesh->dp);
    if (o->micro * o->seq / mesh->cp % mesh->tp)
        die_misused("the %lld tokens of a micro-batch do not divide by --cp %d times --tp %d",
                    (long long)(o->micro * o->seq), mesh->cp, mesh->tp);
    t->micros = o->batch / share;
    t->loss = loss_find(o->loss);
    static const struct {
        const char *name;
        enum dtype type;
    } types[] = {{"f32", DT_F32}, {"f64", DT_F64}, {"bf16", DT_BF16}};
    const struct op *op = NULL;
    if (dev_missing(o->device))
        die_misused("--device %s: %s", o->device, dev_missing(o->device));
    for (int64_t i = 0; i < ARRAY_LEN(types); i++)
        if (!strcmp(o->type, types[i].name))
            op = op_table(o->device, types[i].type);
    if (!op)
        die_misused("--device %s has no kernels of type %s", o->device, o->type);
    if (op->real != DT_BF16 && (choice_is(o->grads, "bf16") || choice_is(o->optim.master, "none")))
        die_misused("--grads bf16 and --master none are for --type bf16, not %s", o->type);
    lane_init(&t->lane, dev_open(o->device), o->threads);
    t->lane.deterministic = o->deterministic;
    if (o->aux >= 0)
        cfg->aux = o->aux;
    if (o->z >= 0)
        cfg->z = o->z;
    model_init(&t->model, cfg, mesh, w, &t->lane, op);
    model_gradients(&t->model, choice_is(o->grads, "bf16") ? DT_BF16 : op->stat);
    optim_init(&t->optim, &t->model, &o->optim);
    if (t->loss->reward != t->model.cfg.reward)
        die_misused("--loss %s needs a %s", t->loss->name,
                    t->loss->reward ? "reward model"
                                    : "language model, and this is a reward model");
    enum segment head = t->loss->reward ? SEG_SCORE : SEG_HEAD;
    if (t->model.chunks > 1 && t->micros % mesh->pp)
        die_misused(
            "interleaved stages need micro-batches in multiples of --pp %d, and a step has %lld",
            mesh->pp, (long long)t->micros);
    schedule_1f1b(&t->schedule, &t->model, t->micros, head, !t->loss->known_beforehand);
    schedule_forward(&t->eval, &t->model, t->micros, head);

    int64_t saved = t->schedule.in_flight * (t->model.layers + 1);
    t->saved = xcalloc(saved, sizeof *t->saved);
    for (int64_t i = 0; i < saved; i++)
        t->saved[i].pool = t->model.pool;
    batches_init(t);
    for (int i = 0; i < ON_THEIR_WAY; i++) {
        t->way[i].report = t->lane.dev->alloc_host(REPORT_BYTES);
        t->way[i].begun.timed = t->way[i].done.timed = 1;
    }
}

void trainer_release(struct trainer *t)
{
    const struct dev_ops *dev = t->lane.dev;
    dev->wait(&t->lane);
    for (int64_t i = 0; i < t->schedule.in_flight * (t->model.layers + 1); i++)
        saved_clear(&t->saved[i]);
    for (int i = 0; i < ON_THEIR_WAY; i++) {
        dev->free_host(t->way[i].report);
        dev->event_free(&t->way[i].begun);
        dev->event_free(&t->way[i].done);
    }
    for (int64_t i = 0; i < t->captures; i++)
        dev->capture_free(&t->capture[i].work);
    batches_release(t);
    free(t->saved), free(t->capture);
    schedule_release(&t->schedule);
    schedule_release(&t->eval);
    optim_release(&t->optim);
    model_release(&t->model);
    lane_release(&t->lane);
}

/* ---- rows ---- */

struct row_buffers {
    int32_t *token, *document; /* (seq) */
    uint8_t *target;
    float *weight;
    struct set_doc *doc;
};

static struct row_buffers row_buffers_new(int64_t seq)
{
    return (struct row_buffers){xmalloc(seq * sizeof(int32_t)), xmalloc(seq * sizeof(int32_t)),
                                xmalloc(seq), xmalloc(seq * sizeof(float)),
                                xmalloc(seq * sizeof(struct set_doc))};
}

static void row_buffers_free(struct row_buffers *r)
{
    free(r->token), free(r->document), free(r->target), free(r->weight), free(r->doc);
}

static void fetch_row(struct trainer *t, struct batch_host *h, int64_t i, const struct set *set,
                      int64_t sequence, struct row_buffers *r)
{
    set_sequence(set, sequence, r->token, r->target, r->document, r->weight);
    for (int64_t j = 0; j < t->o.seq; j++)
        if (r->document[j] >= 0 && (r->token[j] < 0 || r->token[j] >= t->model.cfg.vocab))
            die("token %d of packed sequence %lld is outside the model's vocabulary of %lld",
                r->token[j], (long long)sequence, (long long)t->model.cfg.vocab);
    batch_host_row(h, i, r->token, r->target, r->document, r->weight);
    if (!t->loss->pairs)
        return;
    int64_t n = set_documents(set, sequence, r->doc);
    struct batch_doc *doc = xmalloc(MAX(n, 1) * sizeof *doc);
    for (int64_t d = 0; d < n; d++)
        doc[d] = (struct batch_doc){r->doc[d].pair, r->doc[d].margin, r->doc[d].ref_logp};
    batch_host_pairs(h, i, doc, n, t->loss->tokens == TOKENS_LAST);
    free(doc);
}

void trainer_fetch(struct trainer *t, const struct mix *mix, int64_t first)
{
    struct row_buffers r = row_buffers_new(t->o.seq);
    for (int64_t m = 0; m < t->micros; m++) {
        batch_host_clear(&t->host[m]);
        for (int64_t i = 0; i < t->o.micro; i++) {
            int64_t set, sequence;
            mix_sample(mix, first + (m * t->mesh.dp + t->mesh.i_dp) * t->o.micro + i, &set,
                       &sequence);
            fetch_row(t, &t->host[m], i, mix->set[set], sequence, &r);
        }
    }
    row_buffers_free(&r);
}

/* ---- the step ---- */

/* Sums over the ranks with different rows; every rank of one data-parallel coordinate has the same.
 */
static void count_batch(struct trainer *t, struct step_result *r)
{
    double sums[3] = {0, 0, 0};
    for (int64_t m = 0; m < t->micros; m++) {
        const struct batch_host *h = &t->host[m];
        sums[0] += t->loss->pairs ? (double)h->pairs : h->weight_sum;
        sums[1] += h->live;
        for (int64_t i = 0; i < h->spans; i++)
            sums[2] += pow(h->k_end[i] - h->k_beg[i], 2);
    }
    comm_all_reduce(t->model.comm[GROUP_DP], NULL, sums, 3, DT_F64, COMM_SUM);
    *r = (struct step_result){.weight = sums[0], .tokens = sums[1], .squares = sums[2]};
    r->skipped = !(r->weight > 0);
}

/* Documents of the fullest micro-batch, rounded up to a power of two: what launches depend on, so
 * that few steps differ in it. */
static int64_t span_capacity(const struct trainer *t)
{
    int64_t most = 1, n = 1;
    for (int64_t m = 0; m < t->micros; m++)
        most = MAX(most, t->host[m].spans);
    while (n < most)
        n *= 2;
    return MIN(n, t->o.micro * t->o.seq);
}

/* What the device needs of the rows in t->host: the denominator, the router's coefficients and the
 * batches. */
static void put_inputs(struct trainer *t, double denom, double live)
{
    struct lane *l = &t->lane;
    const struct config *c = &t->model.cfg;
    struct stage *s = &t->stage[t->staged++ % ARRAY_LEN(t->stage)];
    double scalars[SCALARS] = {denom, c->aux * c->experts / (c->k * live), 2 * c->z / live};
    int64_t spans = span_capacity(t);
    char *p = s->p + STAGE_SCALARS;
    l->dev->reach(&s->read);
    dtype_convert(s->p, t->model.op->stat, scalars, DT_F64, SCALARS);
    l->dev->put(l, t->scalars, s->p, SCALARS * dtype_size(t->model.op->stat));
    for (int64_t m = 0; m < t->micros; p += t->batch[m++].put_bytes) {
        if (t->mesh.cp == 1) {
            batch_put(&t->batch[m], &t->model, &t->host[m], spans, p);
            continue;
        }
        batch_host_cut(&t->part, &t->host[m], &t->mesh);
        batch_put(&t->batch[m], &t->model, &t->part, t->part.spans, p);
        if (t->whole[m].block) {
            p += t->batch[m].put_bytes;
            batch_put(&t->whole[m], &t->model, &t->host[m], spans, p);
            p += t->whole[m].put_bytes - t->batch[m].put_bytes;
        }
    }
    l->dev->record(l, &s->read);
}

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
    int64_t alive = s->in_flight, per = t->model.layers + 1;
    for (int64_t i = 0; i < s->n; i++) {
        const struct task *k = &s->task[i];
        struct task_context c = {.m = &t->model,
                                 .l = &t->lane,
                                 .b = &t->batch[k->micro],
                                 .s = &t->saved[k->micro % alive * per],
                                 .add = k->micro > 0, /* a chunk's come in order */
                                 .layer = k->layer};
        int head = k->segment == SEG_HEAD || k->segment == SEG_SCORE;
        int head_dgrad = head && k->pass == PASS_DGRAD;
        if (head_dgrad)
            loss_dgrad(t, k->micro);
        segment_run[k->segment][k->pass](&c);
        arena_reset(&t->lane.scratch);
        /* the last pass of the head has written logp */
        if (head && (head_dgrad || s == &t->eval))
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
    run_schedule(t, &t->schedule);
    optim_reduce(&t->optim);
    sum_losses(t);
}

/* The sums of the step as means; the auxiliary ones a layer. */
static void result_losses(const struct trainer *t, const void *raw /* S (LOSS_SUMS) */,
                          double weight, double live, struct step_result *r)
{
    double sums[LOSS_SUMS];
    const struct model *m = &t->model;
    dtype_convert(sums, DT_F64, raw, m->op->stat, LOSS_SUMS);
    r->loss = sums[LOSS_MAIN] / weight;
    r->won = sums[LOSS_WON] / weight;
    /* every rank of TP x CP computed the whole group's auxiliary loss */
    r->aux = sums[LOSS_AUX] / live / m->cfg.layers / (t->mesh.tp * t->mesh.cp);
    r->z = sums[LOSS_Z] / live / m->cfg.layers;
}

static void read_losses(struct trainer *t, double weight, double live, struct step_result *r)
{
    double host[LOSS_SUMS];
    t->lane.dev->get(&t->lane, host, t->model.loss, LOSS_SUMS * dtype_size(t->model.op->stat));
    t->lane.dev->wait(&t->lane);
    result_losses(t, host, weight, live, r);
}

void trainer_gradients(struct trainer *t, struct step_result *r)
{
    count_batch(t, r);
    if (r->skipped)
        return;
    put_inputs(t, r->weight, r->tokens);
    gradients(t);
    read_losses(t, r->weight, r->tokens, r);
}

static void whole_step(struct trainer *t)
{
    gradients(t);
    optim_step(&t->optim);
}

/* One rank alone asks the host nothing within a step.  The first step of a shape is done as it
 * comes, so that memory and plans are there; the second is kept, where the device can, and from
 * then on repeated. */
static void replay_step(struct trainer *t)
{
    const struct dev_ops *dev = t->lane.dev;
    int64_t spans = t->batch[0].spans, i = 0;
    while (i < t->captures && t->capture[i].spans != spans)
        i++;
    if (i == t->captures) {
        t->capture = xrealloc(t->capture, ++t->captures * sizeof *t->capture);
        t->capture[i] = (struct shape_capture){.spans = spans};
    }
    struct shape_capture *c = &t->capture[i];
    if (!c->runs++) {
        whole_step(t);
        return;
    }
    if (!c->work.handle) {
        dev->capture_begin(&t->lane);
        whole_step(t);
        dev->capture_end(&t->lane, &c->work);
        t->lane.scratch.fixed |= c->work.handle != NULL;
        if (opt_verbose && c->work.handle)
            say("steps of up to %lld documents a micro-batch are one launch of %lld kernels",
                (long long)spans, (long long)c->work.nodes);
    }
    dev->replay(&t->lane, &c->work);
}

int64_t trainer_bytes(struct world *w, const struct mesh *mesh, struct config *cfg,
                      const struct trainer_options *o)
{
    struct trainer t;
    struct trainer_options dry = *o;
    struct dev_memory m;
    dry.device = "dry";
    trainer_init(&t, w, mesh, cfg, &dry);
    whole_step(&t);
    t.lane.dev->memory(&m);
    trainer_release(&t);
    return m.peak;
}

void trainer_queue(struct trainer *t)
{
    struct lane *l = &t->lane;
    struct step_on_its_way *w = &t->way[t->queued++ % ON_THEIR_WAY];
    int64_t ssz = dtype_size(t->model.op->stat);
    l->dev->record(l, &w->begun);
    count_batch(t, &w->r);
    if (!w->r.skipped) {
        put_inputs(t, w->r.weight, w->r.tokens);
        if (world_size(t->world) == 1)
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
    result_losses(t, w->report + REPORT_LOSS, r->weight, r->tokens, r);
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
    for (int b = 0; b < BUFFERS; b++)
        for (int64_t i = t->optim.shard[b].pieces - 1; r->bad[b] >= 0 && i >= 0; i--) {
            const struct optim_piece *p = &t->optim.shard[b].piece[i];
            if (p->at > r->bad[b])
                continue;
            warn("step %lld: rank %d: the gradient of %s is not finite", (long long)step,
                 t->mesh.rank, p->p->name);
            return;
        }
}

double trainer_evaluate(struct trainer *t, struct set *set, double moments[2])
{
    struct row_buffers row = row_buffers_new(t->o.seq);
    double weight = 0;
    struct step_result r;
    memset(t->scores, 0, sizeof t->scores);
    zero_losses(t);
    for (int64_t first = 0; first < set_sequences(set); first += t->o.batch) {
        for (int64_t m = 0; m < t->micros; m++) {
            struct batch_host *h = &t->host[m];
            batch_host_clear(h);
            for (int64_t i = 0; i < t->o.micro; i++) {
                int64_t at = first + (m * t->mesh.dp + t->mesh.i_dp) * t->o.micro + i;
                fetch_row(t, h, i, set, at % set_sequences(set), &row);
                if (at < set_sequences(set))
                    continue;
                /* past the end: a row again, that does not count */
                for (int64_t j = 0; j < t->o.seq; j++) {
                    h->weight_sum -= h->weight[i * t->o.seq + j];
                    h->weight[i * t->o.seq + j] = 0;
                }
            }
        }
        count_batch(t, &r);
        weight += r.weight;
        put_inputs(t, 1, 1);
        run_schedule(t, &t->eval);
    }
    sum_losses(t);
    read_losses(t, weight, 1, &r);
    row_buffers_free(&row);
    if (moments) {
        comm_all_reduce(t->model.comm[GROUP_WORLD], NULL, t->scores, 3, DT_F64, COMM_SUM);
        double n = t->scores[0], mean = t->scores[1] / n;
        moments[0] = mean;
        moments[1] = sqrt(MAX(t->scores[2] / n - mean * mean, 0));
    }
    return r.loss;
}
