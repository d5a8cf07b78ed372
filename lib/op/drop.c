/* drop.c -- choices that an expert has no room for: those with the smallest gates of their group.
 *
 * A task is one expert and one accounting group: its choices are listed, and each that has too many
 * before it is dropped. */
#include "real.h"

struct drop {
    int32_t *kept;        /* (T,K) */
    const int32_t *index; /* (T,K) */
    const stat *gate;     /* (T,K) */
    int64_t *dropped;     /* (A,E) */
    int64_t t, e, k, rows;
    double share; /* of a group's tokens that an expert takes */
};

/* Whole numbers that order as the gates do once these are rounded. */
static uint32_t drop_key(stat gate)
{
    union {
        float f;
        uint32_t bits;
    } x = {(float)gate};
    return (x.bits + (1 << 10)) >> 11;
}

static void drop_expert(void *arg, int64_t task, void *scratch)
{
    const struct drop *d = arg;
    int64_t x = task % d->e, lo = task / d->e * d->rows, hi = MIN(d->t, lo + d->rows);
    int64_t tokens = 0, n = 0;
    int32_t *at = scratch; /* (n) the choices of this expert, in order of tokens */
    uint32_t *key = (uint32_t *)at + d->rows;
    for (int64_t i = lo; i < hi; i++) {
        tokens += d->index[i * d->k] >= 0;
        for (int64_t j = i * d->k; j < (i + 1) * d->k; j++)
            if (d->index[j] == x) {
                at[n] = (int32_t)j;
                key[n++] = drop_key(d->gate[j]);
            }
    }
    int64_t room = (int64_t)ceil((double)tokens * d->share - 1e-9);
    d->dropped[task] = MAX(n - room, 0);
    for (int64_t i = 0; n > room && i < n; i++) {
        int64_t before = 0;
        for (int64_t j = 0; j < i; j++)
            before += key[j] >= key[i];
        for (int64_t j = i + 1; j < n; j++)
            before += key[j] > key[i];
        if (before >= room)
            d->kept[at[i]] = -1;
    }
}

void OPNAME(drop)(struct lane *l, int32_t *kept, void *dropped, const int32_t *index,
                  const void *gate, int64_t t, int64_t e, int64_t k, int64_t a, double factor)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    struct drop d = {kept, index, gate, .t = t, .e = e, .k = k, .rows = (t + a - 1) / a};
    d.share = factor * (double)k / (double)e;
    d.dropped = arena_take(&l->scratch, a * e * (int64_t)sizeof *d.dropped);
    memcpy(kept, index, (size_t)(t * k) * sizeof *kept);
    lane_for(l, a * e, drop_expert, &d, d.rows * 2 * (int64_t)sizeof(int32_t));
    double sum = 0;
    for (int64_t i = 0; i < a * e; i++)
        sum += (double)d.dropped[i];
    *(stat *)dropped += (stat)sum;
    arena_back(&l->scratch, mark);
}
