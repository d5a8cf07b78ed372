/* decode.c -- sequences decoded side by side: slots, the cache, and drawing a token.
 *
 * One sequence is one span of attention: its queries are the tokens still pending, its keys all
 * that the cache holds of it.  So a prompt and a single new token are the same thing, and slots at
 * any stage share a forward pass. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void decoder_init(struct decoder *d, struct model *m, int64_t slots, int64_t capacity)
{
    int64_t rows = slots * capacity, rsz = dtype_size(m->op->real);
    memset(d, 0, sizeof *d);
    d->m = m, d->slots = slots, d->capacity = capacity;
    d->slot = xcalloc(slots, sizeof *d->slot);
    for (int64_t i = 0; i < slots; i++)
        d->slot[i].pending = xmalloc(capacity * sizeof(int32_t));
    d->cache.rows = rows;
    d->cache.kv = xmalloc(m->layers * sizeof *d->cache.kv);
    for (int64_t l = 0; l < m->layers; l++)
        d->cache.kv[l] = lane_alloc(m->lane, rows * 2 * m->g * m->c * rsz, "decoding");
    batch_host_init(&d->host, 1, rows);
    batch_init(&d->batch, m, 1, rows);
    d->batch.queries = d->batch.keys = capacity;
    d->batch.cache_row = lane_alloc(m->lane, rows * sizeof(int32_t), "decoding");
    d->batch.cache = &d->cache;
    d->cache_row = xmalloc(rows * sizeof(int32_t));
    d->last = xmalloc(slots * sizeof(int32_t));
    d->logits = xmalloc(slots * m->v * sizeof(double));
}

void decoder_release(struct decoder *d)
{
    const struct dev_ops *dev = d->m->lane->dev;
    batch_release(&d->batch, d->m);
    dev->free((void *)d->batch.cache_row);
    for (int64_t l = 0; l < d->m->layers; l++)
        dev->free(d->cache.kv[l]);
    for (int64_t i = 0; i < d->slots; i++)
        free(d->slot[i].pending);
    free(d->cache.kv), free(d->slot), free(d->cache_row), free(d->last), free(d->logits);
    batch_host_release(&d->host);
}

int64_t decoder_start(struct decoder *d, const int32_t *token, int64_t n)
{
    int64_t i = 0;
    while (i < d->slots && d->slot[i].active)
        i++;
    if (i == d->slots)
        return -1;
    if (n < 1 || n > d->capacity)
        die("internal error: a prompt of %lld tokens in slots of %lld", (long long)n,
            (long long)d->capacity);
    struct decoder_slot *s = &d->slot[i];
    s->active = 1, s->cached = 0, s->pendings = n;
    memcpy(s->pending, token, n * sizeof *token);
    return i;
}

void decoder_push(struct decoder *d, int64_t slot, int32_t token)
{
    struct decoder_slot *s = &d->slot[slot];
    s->pending[s->pendings++] = token;
}

void decoder_stop(struct decoder *d, int64_t slot)
{
    d->slot[slot].active = 0;
}

void decoder_step(struct decoder *d)
{
    struct batch_host *h = &d->host;
    struct batch *b = &d->batch;
    struct lane *l = d->m->lane;
    int64_t t = 0, n = 0;
    batch_host_clear(h);
    for (int64_t i = 0; i < d->slots; i++) {
        struct decoder_slot *s = &d->slot[i];
        int64_t base = i * d->capacity;
        if (!s->active || !s->pendings)
            continue;
        for (int64_t j = 0; j < s->pendings; j++, t++) {
            h->token[t] = s->pending[j];
            h->position[t] = s->cached + j;
            h->group[t] = 0;
            d->cache_row[t] = base + s->cached + j;
        }
        s->cached += s->pendings, s->pendings = 0;
        h->k_beg[h->spans] = base;
        h->k_end[h->spans] = base + s->cached;
        h->q_at[++h->spans] = t;
        s->logits = d->logits + n * d->m->v;
        d->last[n++] = t - 1;
    }
    if (!n)
        return;
    b->seq = b->t = t;
    b->spans = h->spans;
    l->dev->put(l, b->token, h->token, t * sizeof(int32_t));
    l->dev->put(l, b->position, h->position, t * sizeof(int32_t));
    l->dev->put(l, b->group, h->group, t * sizeof(int32_t));
    l->dev->put(l, (void *)b->cache_row, d->cache_row, t * sizeof(int32_t));
    l->dev->put(l, b->q_at, h->q_at, (h->spans + 1) * sizeof(int32_t));
    l->dev->put(l, b->k_beg, h->k_beg, h->spans * sizeof(int32_t));
    l->dev->put(l, b->k_end, h->k_end, h->spans * sizeof(int32_t));
    model_logits(d->m, b, d->last, n, d->logits);
}

/* ---- drawing ---- */

struct choice {
    double p;
    int32_t id;
};

static int by_probability(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : (x->id > y->id) - (x->id < y->id);
}

int32_t sample_token(const double *logits, int64_t v, double temperature, double top_p, double u)
{
    int32_t best = 0;
    for (int64_t i = 1; i < v; i++)
        if (logits[i] > logits[best])
            best = i;
    if (temperature <= 0)
        return best;
    struct choice *c = xmalloc(v * sizeof *c);
    double sum = 0, mass = 0, at = 0;
    for (int64_t i = 0; i < v; i++) {
        c[i] = (struct choice){exp((logits[i] - logits[best]) / temperature), i};
        sum += c[i].p;
    }
    int64_t n = v;
    if (top_p < 1) {
        qsort(c, v, sizeof *c, by_probability);
        for (n = 0; n < v && mass < top_p * sum; n++)
            mass += c[n].p;
        sum = mass;
    }
    int64_t i = 0;
    while (i + 1 < n && (at += c[i].p) < u * sum)
        i++;
    int32_t id = c[i].id;
    free(c);
    return id;
}
