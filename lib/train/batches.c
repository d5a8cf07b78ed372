/* batches.c -- the rows of a step: out of the sets, counted, and onto the device.
 *
 * What a step needs to know of the whole global batch before it starts (the denominator, the live
 * tokens) is counted from the data and summed over the ranks in f64.  All that changes from step to
 * step then goes to the device from memory that it reads by itself, while the host fills another
 * block with the next step's. */
#include "train/trainer_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCALARS = 4, STAGE_SCALARS = 256 };

/* What this rank holds of rows. */
static void batch_make(struct trainer *t, struct batch *b)
{
    batch_init(b, &t->model, t->o.micro, t->o.seq / t->mesh.cp);
    b->groups = t->o.micro / t->o.group;
    b->context = t->mesh.cp > 1 ? &t->context : NULL;
    b->keys = t->o.seq;
}

/* Rows on the host, on the device, and between the two. */
void batches_init(struct trainer *t)
{
    const struct trainer_options *o = &t->o;
    int cut = t->mesh.cp > 1;
    int64_t bytes = STAGE_SCALARS;
    t->host = xcalloc(t->micros, sizeof *t->host);
    t->batch = xcalloc(t->micros, sizeof *t->batch);
    t->whole = xcalloc(t->micros, sizeof *t->whole);
    t->further = xcalloc(t->micros * t->model.further + 1, sizeof *t->further);
    batch_host_init(&t->shift, o->micro, o->seq);
    for (int64_t i = 0; i < t->micros; i++) {
        batch_host_init(&t->host[i], o->micro, o->seq);
        t->host[i].group_rows = o->group;
        batch_make(t, &t->batch[i]);
        for (int64_t j = 0; j < t->model.further; j++) {
            struct batch *b = &t->further[i * t->model.further + j];
            batch_make(t, b);
            bytes += b->put_bytes;
        }
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

void batches_release(struct trainer *t)
{
    const struct dev_ops *dev = t->lane.dev;
    for (int64_t i = 0; i < t->micros; i++) {
        batch_host_release(&t->host[i]);
        batch_release(&t->batch[i], &t->model);
        if (t->whole[i].block)
            batch_release(&t->whole[i], &t->model);
    }
    for (int64_t i = 0; i < t->micros * t->model.further; i++)
        batch_release(&t->further[i], &t->model);
    batch_host_release(&t->shift);
    if (t->mesh.cp > 1) {
        batch_host_release(&t->part);
        context_release(&t->context, dev);
    }
    dev->free(t->scalars);
    for (int i = 0; i < ARRAY_LEN(t->stage); i++) {
        dev->free_host(t->stage[i].p);
        dev->event_free(&t->stage[i].read);
    }
    free(t->host), free(t->batch), free(t->whole), free(t->further);
}

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
    for (int64_t d = 0; d < n; d++) /* a set may have both: margins are of rewards */
        doc[d] = t->loss->reward
                     ? (struct batch_doc){.pair = r->doc[d].pair, .margin = r->doc[d].margin}
                     : (struct batch_doc){.pair = r->doc[d].pair, .ref_logp = r->doc[d].ref_logp};
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

void batches_of_set(struct trainer *t, const struct set *set, int64_t first)
{
    struct row_buffers r = row_buffers_new(t->o.seq);
    for (int64_t m = 0; m < t->micros; m++) {
        struct batch_host *h = &t->host[m];
        batch_host_clear(h);
        for (int64_t i = 0; i < t->o.micro; i++) {
            int64_t at = first + (m * t->mesh.dp + t->mesh.i_dp) * t->o.micro + i;
            if (at < set_sequences(set)) {
                fetch_row(t, h, i, set, at, &r);
                continue;
            }
            memset(r.document, -1, t->o.seq * sizeof *r.document); /* past the last: pads */
            batch_host_row(h, i, r.token, r.target, r.document, r.weight);
        }
    }
    row_buffers_free(&r);
}

/* What launches depend on, alike on all ranks, so that all capture and repeat the same steps at the
 * same time: documents of the fullest micro-batch, rounded up to a power of two so that few steps
 * differ in it, and whether each row of all micro-batches is one document. */
static void agree_shape(struct trainer *t)
{
    int64_t most[2] = {1, 0} /* spans, rows that are not whole */, n = 1;
    for (int64_t m = 0; m < t->micros; m++) {
        const struct batch_host *h = &t->host[m];
        most[0] = MAX(most[0], h->spans);
        most[1] |= h->spans != t->o.micro || h->live != t->o.micro * t->o.seq;
    }
    comm_all_reduce(t->model.comm[GROUP_DP], NULL, most, 2, DT_I64, COMM_MAX);
    while (n < most[0])
        n *= 2;
    t->spans = MIN(n, t->o.micro * t->o.seq);
    t->rows_whole = t->mesh.cp == 1 && !most[1] && t->spans == t->o.micro;
}

/* Sums over the ranks with different rows; every rank of one data-parallel coordinate has the same.
 */
void batches_count(struct trainer *t, struct step_result *r)
{
    const struct config *c = &t->model.cfg;
    double sums[4] = {0};
    for (int64_t m = 0; m < t->micros; m++) {
        const struct batch_host *h = &t->host[m];
        sums[0] += t->loss->pairs ? (double)h->pairs : h->weight_sum;
        sums[1] += h->live;
        for (int64_t i = 0; i < h->spans; i++) {
            double n = h->k_end[i] - h->k_beg[i];
            sums[2] += n * n;
            for (int64_t j = 0; j < c->further; j++) /* the last ones have no further tokens */
                sums[3] += fmax(n - 1 - (double)j, 0);
        }
    }
    comm_all_reduce(t->model.comm[GROUP_DP], NULL, sums, 4, DT_F64, COMM_SUM);
    *r = (struct step_result){.weight = sums[0], .tokens = sums[1], .squares = sums[2]};
    r->routed = sums[1] * config_expert_layers(c) + sums[3];
    r->skipped = !(r->weight > 0);
    agree_shape(t);
}

/* Rows as this rank holds them to the device; returns the memory behind what went through p. */
static char *put_rows(struct trainer *t, struct batch *b, const struct batch_host *h, char *p)
{
    int64_t spans = t->spans; /* a part of a row may cut two documents */
    b->whole = t->rows_whole;
    if (t->mesh.cp > 1) {
        batch_host_cut(&t->part, h, &t->mesh);
        h = &t->part;
        spans = MIN(spans + 2 * t->o.micro, b->t);
    }
    batch_put(b, &t->model, h, spans, p);
    return p + b->put_bytes;
}

void batches_put(struct trainer *t, double denom, double live)
{
    struct lane *l = &t->lane;
    const struct config *c = &t->model.cfg;
    struct stage *s = &t->stage[t->staged++ % ARRAY_LEN(t->stage)];
    double scalars[SCALARS] = {denom, c->aux * c->experts / (MAX(c->k, 1) * live), 2 * c->z / live,
                               c->further ? denom * c->further / t->o.further : denom};
    int64_t further = t->model.further;
    char *p = s->p + STAGE_SCALARS;
    l->dev->reach(&s->read);
    dtype_convert(s->p, t->model.op->stat, scalars, DT_F64, SCALARS);
    l->dev->put(l, t->scalars, s->p, SCALARS * dtype_size(t->model.op->stat));
    for (int64_t m = 0; m < t->micros; m++) {
        p = put_rows(t, &t->batch[m], &t->host[m], p);
        for (int64_t i = 0; i < further; i++) {
            batch_host_shift(&t->shift, i ? &t->shift : &t->host[m]);
            p = put_rows(t, &t->further[m * further + i], &t->shift, p);
        }
        if (t->whole[m].block) {
            batch_put(&t->whole[m], &t->model, &t->host[m], t->spans, p);
            p += t->whole[m].put_bytes;
        }
    }
    l->dev->record(l, &s->read);
}
