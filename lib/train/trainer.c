/* trainer.c -- one step: rows in, gradients, update.
 *
 * What a step needs to know of the whole global batch before it starts (the denominator, the live
 * tokens) is counted from the data and summed over the ranks in f64; everything after that is the
 * schedule. */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void batch_put(struct trainer *t, struct batch *b, const struct batch_host *h)
{
    const struct dev_ops *dev = t->lane.dev;
    int64_t n = b->t, ssz = dtype_size(t->model.op->stat);
    void *host = xmalloc(n * ssz);
    b->spans = h->spans;
    dev->put(&t->lane, b->token, h->token, n * sizeof(int32_t));
    dev->put(&t->lane, b->label, h->label, n * sizeof(int32_t));
    dev->put(&t->lane, b->position, h->position, n * sizeof(int32_t));
    dev->put(&t->lane, b->group, h->group, n * sizeof(int32_t));
    dev->put(&t->lane, b->q_at, h->q_at, (h->spans + 1) * sizeof(int32_t));
    dev->put(&t->lane, b->k_beg, h->k_beg, h->spans * sizeof(int32_t));
    dev->put(&t->lane, b->k_end, h->k_end, h->spans * sizeof(int32_t));
    dev->put(&t->lane, b->chosen, h->chosen, h->spans * sizeof(int32_t));
    const struct {
        void *to;
        const double *from;
        int64_t n;
    } stats[] = {
        {b->weight, h->weight, n}, {b->base, h->base, h->spans}, {b->margin, h->margin, h->spans}};
    for (int64_t i = 0; i < ARRAY_LEN(stats); i++) {
        dtype_convert(host, t->model.op->stat, stats[i].from, DT_F64, stats[i].n);
        dev->put(&t->lane, stats[i].to, host, stats[i].n * ssz);
        dev->wait(&t->lane);
    }
    free(host);
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

    int64_t alive = t->schedule.in_flight;
    t->batch = xcalloc(alive, sizeof *t->batch);
    t->saved = xcalloc(alive * (t->model.layers + 1), sizeof *t->saved);
    for (int64_t i = 0; i < alive; i++) {
        batch_init(&t->batch[i], &t->model, o->micro, o->seq / mesh->cp);
        t->batch[i].context = mesh->cp > 1 ? &t->context : NULL;
        t->batch[i].keys = t->batch[i].seq * mesh->cp;
    }
    for (int64_t i = 0; i < alive * (t->model.layers + 1); i++)
        t->saved[i].pool = t->model.pool;
    t->host = xcalloc(t->micros, sizeof *t->host);
    for (int64_t i = 0; i < t->micros; i++)
        batch_host_init(&t->host[i], o->micro, o->seq);
    t->denom = lane_alloc(&t->lane, sizeof(double), "a batch");
    if (mesh->cp > 1) {
        batch_host_init(&t->part, o->micro, o->seq / mesh->cp);
        context_init(&t->context, mesh, &t->lane, o->micro, o->seq);
        batch_init(&t->whole, &t->model, o->micro, o->seq);
    }
}

void trainer_release(struct trainer *t)
{
    int64_t alive = t->schedule.in_flight;
    for (int64_t i = 0; i < alive * (t->model.layers + 1); i++)
        saved_clear(&t->saved[i]);
    for (int64_t i = 0; i < alive; i++)
        batch_release(&t->batch[i], &t->model);
    for (int64_t i = 0; i < t->micros; i++)
        batch_host_release(&t->host[i]);
    if (t->mesh.cp > 1) {
        batch_host_release(&t->part);
        context_release(&t->context, t->lane.dev);
        batch_release(&t->whole, &t->model);
    }
    t->lane.dev->free(t->denom);
    free(t->batch), free(t->saved), free(t->host);
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

static void put_stat(struct trainer *t, void *dst, const double *x, int64_t n)
{
    double host[4];
    dtype_convert(host, t->model.op->stat, x, DT_F64, n);
    t->lane.dev->put(&t->lane, dst, host, n * dtype_size(t->model.op->stat));
    t->lane.dev->wait(&t->lane);
}

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

/* The batch as the loss wants it: the rank's own, or where a loss on documents meets rows that are
 * cut, the whole rows with everybody's logp. */
static struct batch *loss_batch(struct trainer *t, struct batch *b, const struct batch_host *h)
{
    if (!t->loss->pairs || t->mesh.cp == 1)
        return b;
    batch_put(t, &t->whole, h);
    context_join(&t->context, &t->model, &t->lane, t->whole.logp, b->logp);
    return &t->whole;
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
                              .denom = t->denom,
                              .sum = t->model.loss,
                              .t = b->t,
                              .spans = b->spans,
                              .q_at = b->q_at,
                              .chosen = b->chosen,
                              .base = b->base,
                              .margin = b->margin,
                              .beta = t->loss->reward ? 1 : t->o.beta};
}

static void loss_dgrad(struct trainer *t, struct batch *b, const struct batch_host *h)
{
    struct batch *all = loss_batch(t, b, h);
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

static void loss_value(struct trainer *t, struct batch *b, const struct batch_host *h, int eval)
{
    struct batch *all = loss_batch(t, b, h);
    struct loss_rows r = loss_rows(t, all);
    if (!counts(t))
        return;
    t->loss->value(&t->lane, t->model.op, &r);
    if (t->loss->reward && eval)
        add_scores(t, all, h);
}

/* What this rank holds of a micro-batch, on the device. */
static void batch_start(struct trainer *t, struct batch *b, const struct batch_host *h)
{
    if (t->mesh.cp > 1) {
        batch_host_cut(&t->part, h, &t->mesh);
        h = &t->part;
    }
    batch_put(t, b, h);
}

static void run_schedule(struct trainer *t, const struct schedule *s)
{
    int64_t alive = s->in_flight, per = t->model.layers + 1;
    for (int64_t i = 0; i < s->n; i++) {
        const struct task *k = &s->task[i];
        int64_t slot = k->micro % alive;
        struct task_context c = {.m = &t->model,
                                 .l = &t->lane,
                                 .b = &t->batch[slot],
                                 .s = &t->saved[slot * per],
                                 .add = k->micro > 0, /* a chunk's come in order */
                                 .layer = k->layer};
        int starts = k->layer == 0 && k->pass == PASS_FORWARD &&
                     (k->segment == SEG_EMBED || k->segment == SEG_RECV);
        int head = k->segment == SEG_HEAD || k->segment == SEG_SCORE;
        int head_dgrad = head && k->pass == PASS_DGRAD;
        if (starts)
            batch_start(t, c.b, &t->host[k->micro]);
        if (head_dgrad)
            loss_dgrad(t, c.b, &t->host[k->micro]);
        segment_run[k->segment][k->pass](&c);
        arena_reset(&t->lane.scratch);
        /* the last pass of the head has written logp */
        if (head && (head_dgrad || s == &t->eval))
            loss_value(t, c.b, &t->host[k->micro], s == &t->eval);
        if (k->last_of_micro)
            for (int64_t l = 0; l < per; l++)
                saved_clear(&c.s[l]);
    }
}

/* The three sums of the step over all ranks, as means; the auxiliary ones a layer. */
static void read_losses(struct trainer *t, double weight, double live, struct step_result *r)
{
    double host[LOSS_SUMS], sums[LOSS_SUMS];
    struct model *m = &t->model;
    t->lane.dev->get(&t->lane, host, m->loss, LOSS_SUMS * dtype_size(m->op->stat));
    t->lane.dev->wait(&t->lane);
    dtype_convert(sums, DT_F64, host, m->op->stat, LOSS_SUMS);
    comm_all_reduce(m->comm[GROUP_WORLD], NULL, sums, LOSS_SUMS, DT_F64, COMM_SUM);
    r->loss = sums[LOSS_MAIN] / weight;
    r->won = sums[LOSS_WON] / weight;
    /* every rank of TP x CP computed the whole group's auxiliary loss */
    r->aux = sums[LOSS_AUX] / live / m->cfg.layers / (t->mesh.tp * t->mesh.cp);
    r->z = sums[LOSS_Z] / live / m->cfg.layers;
}

void trainer_gradients(struct trainer *t, struct step_result *r)
{
    struct model *m = &t->model;
    const struct config *c = &m->cfg;
    count_batch(t, r);
    if (r->skipped)
        return;
    double live = r->tokens, zero[LOSS_SUMS] = {0};
    double coef[2] = {c->aux * c->experts / (c->k * live), 2 * c->z / live};
    put_stat(t, m->coef, coef, 2);
    put_stat(t, t->denom, &r->weight, 1);
    put_stat(t, m->loss, zero, LOSS_SUMS);
    run_schedule(t, &t->schedule);
    optim_reduce(&t->optim);
    read_losses(t, r->weight, live, r);
}

void trainer_step(struct trainer *t, const struct mix *mix, int64_t first, struct step_result *r)
{
    double state[STEP_STATE];
    trainer_fetch(t, mix, first);
    trainer_gradients(t, r);
    if (r->skipped)
        return;
    optim_step(&t->optim, !isfinite(r->loss + r->aux + r->z));
    optim_state(&t->optim, state);
    r->ok = state[STEP_OK] > 0;
    r->norm = state[STEP_NORM];
    r->lr = state[STEP_LR];
}

void trainer_blame(const struct trainer *t, int64_t step)
{
    const struct model *m = &t->model;
    for (int b = 0; b < BUFFERS; b++)
        for (int64_t i = 0; i < t->optim.shard[b].pieces; i++) {
            const struct optim_piece *p = &t->optim.shard[b].piece[i];
            int64_t n = p->r.rows * p->r.cols, size = dtype_size(m->grad_type);
            void *raw = xmalloc(n * size);
            double *g = xmalloc(n * sizeof *g);
            m->lane->dev->get(m->lane, raw,
                              (char *)m->grad[b] + (m->layout.shard_at[b] + p->at) * size,
                              n * size);
            m->lane->dev->wait(m->lane);
            dtype_convert(g, DT_F64, raw, m->grad_type, n);
            int64_t j = 0;
            while (j < n && isfinite(g[j]))
                j++;
            free(raw), free(g);
            if (j < n) {
                warn("step %lld: rank %d: the gradient of %s is not finite", (long long)step,
                     t->mesh.rank, p->p->name);
                return;
            }
        }
}

double trainer_evaluate(struct trainer *t, struct set *set, double moments[2])
{
    struct row_buffers row = row_buffers_new(t->o.seq);
    double weight = 0, one = 1, zero[LOSS_SUMS] = {0};
    struct step_result r;
    memset(t->scores, 0, sizeof t->scores);
    put_stat(t, t->denom, &one, 1);
    put_stat(t, t->model.loss, zero, LOSS_SUMS);
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
        run_schedule(t, &t->eval);
    }
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
