/* batch.c -- packed sequences as the segments want them: labels shifted, documents as spans.
 *
 * Labels are shifted here, before anything is cut over ranks, so that no rank needs its neighbour's
 * first token. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* The int32 arrays, (T+1) each, and the statistics' arrays, (T) each. */
enum { INTS = 8, STATS = 5 };
static void arrays(struct batch *b, int32_t **ints[INTS], void **stats[STATS])
{
    int32_t **i[INTS] = {&b->token, &b->label, &b->position, &b->group,
                         &b->q_at,  &b->k_beg, &b->k_end,    &b->chosen};
    void **s[STATS] = {&b->weight, &b->dlogp, &b->logp, &b->base, &b->margin};
    memcpy(ints, i, sizeof i);
    memcpy(stats, s, sizeof s);
}

void batch_init(struct batch *b, const struct model *m, int64_t rows, int64_t seq)
{
    int32_t **ints[INTS];
    void **stats[STATS];
    *b = (struct batch){.rows = rows, .seq = seq, .t = rows * seq, .queries = seq, .keys = seq};
    arrays(b, ints, stats);
    for (int i = 0; i < INTS; i++)
        *ints[i] = lane_alloc(m->lane, (b->t + 1) * sizeof(int32_t), "a batch");
    for (int i = 0; i < STATS; i++)
        *stats[i] = lane_alloc(m->lane, b->t * dtype_size(m->op->stat), "a batch");
}

void batch_release(struct batch *b, const struct model *m)
{
    int32_t **ints[INTS];
    void **stats[STATS];
    arrays(b, ints, stats);
    for (int i = 0; i < INTS; i++)
        m->lane->dev->free(*ints[i]);
    for (int i = 0; i < STATS; i++)
        m->lane->dev->free(*stats[i]);
}

void batch_host_init(struct batch_host *h, int64_t rows, int64_t seq)
{
    int64_t t = rows * seq;
    memset(h, 0, sizeof *h);
    h->rows = rows, h->seq = seq;
    h->token = xmalloc(t * sizeof *h->token);
    h->label = xmalloc(t * sizeof *h->label);
    h->position = xmalloc(t * sizeof *h->position);
    h->group = xmalloc(t * sizeof *h->group);
    h->weight = xmalloc(t * sizeof *h->weight);
    h->chosen = xmalloc(t * sizeof *h->chosen);
    h->base = xmalloc(t * sizeof *h->base);
    h->margin = xmalloc(t * sizeof *h->margin);
    h->q_at = xmalloc((t + 1) * sizeof *h->q_at);
    h->k_beg = xmalloc(t * sizeof *h->k_beg);
    h->k_end = xmalloc(t * sizeof *h->k_end);
    batch_host_clear(h);
}

void batch_host_release(struct batch_host *h)
{
    free(h->token), free(h->label), free(h->position), free(h->group);
    free(h->weight), free(h->q_at), free(h->k_beg), free(h->k_end);
    free(h->chosen), free(h->base), free(h->margin);
}

void batch_host_clear(struct batch_host *h)
{
    h->spans = h->live = h->pairs = 0;
    h->weight_sum = 0;
    h->q_at[0] = 0;
}

static void add_span(struct batch_host *h, int64_t beg, int64_t end, int pads)
{
    int64_t i = h->spans++;
    h->q_at[i + 1] = end;
    h->k_beg[i] = beg;
    h->k_end[i] = pads ? beg : end; /* a pad sees no key */
    h->chosen[i] = 0;
    h->base[i] = h->margin[i] = 0;
}

void batch_host_row(struct batch_host *h, int64_t i, const int32_t *token, const uint8_t *target,
                    const int32_t *document, const float *weight)
{
    int64_t base = i * h->seq, start = 0;
    for (int64_t j = 0; j < h->seq; j++) {
        int pad = document[j] < 0, last = j + 1 == h->seq || document[j + 1] != document[j];
        int learnt = !pad && !last && target[j + 1];
        h->token[base + j] = pad ? 0 : token[j];
        h->label[base + j] = learnt ? token[j + 1] : -1;
        h->weight[base + j] = learnt ? weight[j + 1] : 0;
        h->position[base + j] = j - start;
        h->group[base + j] = pad ? -1 : i;
        h->weight_sum += h->weight[base + j];
        h->live += !pad;
        if (last) {
            add_span(h, base + start, base + j + 1, pad);
            start = j + 1;
        }
    }
}
