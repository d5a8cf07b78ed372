/* decode.c -- sequences decoded side by side: slots, the cache, and drawing a token.
 *
 * One sequence is one span of attention: its queries are the tokens still pending, its keys all
 * that the cache holds of it.  So a prompt, a piece of one and a single new token are the same
 * thing, and slots at any stage share a forward pass.  A step is one copy to the device and one
 * back: where the tokens go, and what was drawn. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* Prompt tokens of a step, beside one token for every slot: activations are a fixed sum of memory,
 * whatever arrives. */
enum { PROMPT_TOKENS = 8192, INTS = 7 /* arrays of a step, (T+1) at most */ };

static int64_t step_bytes(const struct decoder *d)
{
    return (INTS * (d->most + 1) + d->slots) * (int64_t)sizeof(int32_t) +
           d->slots * (int64_t)sizeof(double);
}

void decoder_init(struct decoder *d, struct model *m, int64_t slots, int64_t capacity,
                  double temperature, double top_p)
{
    int64_t rsz = dtype_size(m->op->real), ssz = dtype_size(m->op->stat);
    memset(d, 0, sizeof *d);
    d->m = m, d->slots = slots, d->capacity = capacity;
    d->most = slots + MIN(PROMPT_TOKENS, slots * (capacity - 1));
    d->temperature = temperature, d->top_p = top_p;
    d->cache.rows = slots * capacity;
    d->cache.bytes = d->cache.rows * m->g * (m->c + m->cv) * rsz;
    d->cache.kv = xmalloc(m->layers * sizeof *d->cache.kv);
    char *kv = d->cache.block = lane_alloc(m->lane, m->layers * d->cache.bytes, "the cache");
    for (int64_t l = 0; l < m->layers; l++)
        d->cache.kv[l] = kv + l * d->cache.bytes;
    d->slot = xcalloc(slots, sizeof *d->slot);
    for (int64_t i = 0; i < slots; i++)
        d->slot[i].pending = xmalloc(capacity * sizeof(int32_t));
    d->there = lane_alloc(m->lane, step_bytes(d), "decoding");
    d->here = m->lane->dev->alloc_host(step_bytes(d));
    d->token = lane_alloc(m->lane, slots * sizeof *d->token, "decoding");
    d->got = m->lane->dev->alloc_host(slots * sizeof *d->got);
    d->logits = lane_alloc(m->lane, slots * m->v * ssz, "decoding");
    d->batch.rows = 1;
    d->batch.keys = capacity;
    d->batch.cache = &d->cache;
}

void decoder_release(struct decoder *d)
{
    const struct dev_ops *dev = d->m->lane->dev;
    dev->free(d->there), dev->free_host(d->here);
    dev->free(d->token), dev->free_host(d->got);
    dev->free(d->logits);
    dev->free(d->cache.block);
    for (int64_t i = 0; i < d->slots; i++)
        free(d->slot[i].pending);
    free(d->cache.kv), free(d->slot);
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
    s->active = 1, s->cached = s->ran = s->drawn = 0, s->pendings = n;
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
    d->slot[slot].active = d->slot[slot].drawn = 0;
}

/* Arrays of this step, one behind the other in the block that is copied. */
struct step {
    double *u;                                     /* (slots) */
    int32_t *token, *position, *group, *cache_row; /* (T) */
    int32_t *q_at, *k_beg, *k_end;                 /* (T+1), (T), (T) */
    int32_t *row;                                  /* (slots) of the batch, drawn from */
};

static struct step step_at(char *block, int64_t slots, int64_t t)
{
    struct step s = {.u = (double *)block};
    int32_t *p = (int32_t *)(s.u + slots), **to[] = {&s.token, &s.position, &s.group, &s.cache_row,
                                                     &s.q_at,  &s.k_beg,    &s.k_end, &s.row};
    for (int64_t i = 0; i < ARRAY_LEN(to); i++, p += t + 1)
        *to[i] = p;
    return s;
}

/* How many of its pending tokens a slot runs, of `room` beyond the one that is its due. */
static int64_t share(const struct decoder_slot *s, int64_t *room)
{
    int64_t n = s->active ? MIN(s->pendings - s->ran, *room + 1) : 0;
    *room -= MAX(n - 1, 0);
    return n;
}

void decoder_step(struct decoder *d)
{
    struct batch *b = &d->batch;
    struct model *m = d->m;
    struct lane *l = m->lane;
    int64_t t = 0, n = 0, all = 0, room = d->most - d->slots;
    for (int64_t i = 0; i < d->slots; i++)
        all += share(&d->slot[i], &room);
    struct step h = step_at(d->here, d->slots, all), on = step_at(d->there, d->slots, all);
    b->spans = b->queries = h.q_at[0] = 0;
    room = d->most - d->slots;
    for (int64_t i = 0; i < d->slots; i++) {
        struct decoder_slot *s = &d->slot[i];
        int64_t base = i * d->capacity, run = share(s, &room);
        s->drawn = 0;
        for (int64_t j = 0; j < run; j++, t++) {
            h.token[t] = s->pending[s->ran + j];
            h.position[t] = s->cached + j;
            h.group[t] = 0;
            h.cache_row[t] = base + s->cached + j;
        }
        if (!run)
            continue;
        b->queries = MAX(b->queries, run);
        s->cached += run, s->ran += run;
        h.k_beg[b->spans] = base;
        h.k_end[b->spans] = base + s->cached;
        h.q_at[++b->spans] = t;
        if (s->ran < s->pendings)
            continue;
        s->ran = s->pendings = 0;
        s->drawn = 1;
        h.u[n] = s->u;
        h.row[n++] = t - 1;
    }
    if (!t)
        return;
    b->seq = b->t = t;
    b->token = on.token, b->position = on.position, b->group = on.group;
    b->cache_row = on.cache_row, b->q_at = on.q_at, b->k_beg = on.k_beg, b->k_end = on.k_end;
    l->dev->put(l, d->there, d->here, (char *)(h.row + n) - d->here);
    model_logits_there(m, b, on.row, n, d->logits);
    m->op->draw(l, d->token, d->logits, on.u, n, m->v, d->temperature, d->top_p);
    arena_reset(&l->scratch);
    l->dev->get(l, d->got, d->token, n * sizeof *d->got);
    l->dev->wait(l);
    n = 0;
    for (int64_t i = 0; i < d->slots; i++)
        if (d->slot[i].drawn) {
            d->slot[i].token = d->got[n];
            d->slot[i].logits = (char *)d->logits + n++ * m->v * dtype_size(m->op->stat);
        }
}
