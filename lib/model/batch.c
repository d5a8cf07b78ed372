/* batch.c -- packed sequences as the segments want them: labels shifted, documents as spans.
 *
 * Labels are shifted here, before anything is cut over ranks, so that no rank needs its neighbour's
 * first token. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* The arrays, in the order in which they lie in the batch's block: int32 ones of T + 1, then
 * statistics of T; of these the host fills in all but the last two. */
enum { INTS = 8, STATS = 5, FILLED = 3, ALIGN = 256 };
static void arrays(struct batch *b, int32_t **ints[INTS], void **stats[STATS])
{
    int32_t **i[INTS] = {&b->token, &b->label, &b->position, &b->group,
                         &b->q_at,  &b->k_beg, &b->k_end,    &b->chosen};
    void **s[STATS] = {&b->weight, &b->base, &b->margin, &b->dlogp, &b->logp};
    memcpy(ints, i, sizeof i);
    memcpy(stats, s, sizeof s);
}

static int64_t round_up(int64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

void batch_init(struct batch *b, const struct model *m, int64_t rows, int64_t seq)
{
    int32_t **ints[INTS];
    void **stats[STATS];
    *b = (struct batch){
        .rows = rows, .seq = seq, .t = rows * seq, .groups = rows, .queries = seq, .keys = seq};
    int64_t whole = round_up((b->t + 1) * (int64_t)sizeof(int32_t));
    int64_t stat = round_up(b->t * dtype_size(m->op->stat));
    b->put_bytes = INTS * whole + FILLED * stat;
    b->block = lane_alloc(m->lane, INTS * whole + STATS * stat, "a batch");
    arrays(b, ints, stats);
    for (int i = 0; i < INTS; i++)
        *ints[i] = (int32_t *)(b->block + i * whole);
    for (int i = 0; i < STATS; i++)
        *stats[i] = b->block + INTS * whole + i * stat;
}

void batch_release(struct batch *b, const struct model *m)
{
    m->lane->dev->free(b->block);
}

/* Where the array of the batch lies in a copy of its block. */
static void *staged(const struct batch *b, char *stage, const void *array)
{
    return stage + ((const char *)array - b->block);
}

void batch_put(struct batch *b, const struct model *m, const struct batch_host *h, int64_t spans,
               void *stage)
{
    const struct {
        const int32_t *to, *from;
        int64_t n, more; /* elements, and how many follow that stand for empty spans */
        int32_t empty;
    } ints[] = {{b->token, h->token, b->t},
                {b->label, h->label, b->t},
                {b->position, h->position, b->t},
                {b->group, h->group, b->t},
                {b->q_at, h->q_at, h->spans + 1, spans - h->spans, h->q_at[h->spans]},
                {b->k_beg, h->k_beg, h->spans, spans - h->spans},
                {b->k_end, h->k_end, h->spans, spans - h->spans},
                {b->chosen, h->chosen, h->spans, spans - h->spans}};
    const struct {
        const void *to;
        const double *from;
        int64_t n, more;
    } stats[] = {{b->weight, h->weight, b->t, 0},
                 {b->base, h->base, h->spans, spans - h->spans},
                 {b->margin, h->margin, h->spans, spans - h->spans}};
    for (int64_t i = 0; i < ARRAY_LEN(ints); i++) {
        int32_t *to = staged(b, stage, ints[i].to);
        memcpy(to, ints[i].from, ints[i].n * sizeof *to);
        for (int64_t j = 0; j < ints[i].more; j++)
            to[ints[i].n + j] = ints[i].empty;
    }
    for (int64_t i = 0; i < ARRAY_LEN(stats); i++) {
        int64_t size = dtype_size(m->op->stat);
        char *to = staged(b, stage, stats[i].to);
        dtype_convert(to, m->op->stat, stats[i].from, DT_F64, stats[i].n);
        memset(to + stats[i].n * size, 0, stats[i].more * size);
    }
    b->spans = spans;
    m->lane->dev->put(m->lane, b->block, stage, b->put_bytes);
}

void batch_host_init(struct batch_host *h, int64_t rows, int64_t seq)
{
    int64_t t = rows * seq;
    memset(h, 0, sizeof *h);
    h->rows = rows, h->seq = seq, h->group_rows = 1;
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

void batch_host_shift(struct batch_host *to, const struct batch_host *from)
{
    int64_t t = from->rows * from->seq;
    to->spans = from->spans, to->live = to->pairs = 0, to->weight_sum = 0;
    memmove(to->position, from->position, t * sizeof *to->position);
    memmove(to->q_at, from->q_at, (from->spans + 1) * sizeof *to->q_at);
    memmove(to->k_beg, from->k_beg, from->spans * sizeof *to->k_beg);
    memmove(to->k_end, from->k_end, from->spans * sizeof *to->k_end);
    for (int64_t i = 0; i < from->spans; i++) {
        to->chosen[i] = 0; /* pairs are of whole documents */
        to->base[i] = to->margin[i] = 0;
        for (int64_t j = to->q_at[i]; j < to->q_at[i + 1]; j++) {
            int last = j + 1 == to->q_at[i + 1] || from->group[j] < 0;
            to->token[j] = last ? -1 : from->token[j + 1];
            to->label[j] = last ? -1 : from->label[j + 1];
            to->group[j] = last ? -1 : from->group[j + 1];
            to->weight[j] = last ? 0 : from->weight[j + 1];
            to->weight_sum += to->weight[j];
            to->live += to->group[j] >= 0;
        }
    }
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
        h->group[base + j] = pad ? -1 : i / h->group_rows;
        h->weight_sum += h->weight[base + j];
        h->live += !pad;
        if (last) {
            add_span(h, base + start, base + j + 1, pad);
            start = j + 1;
        }
    }
}
