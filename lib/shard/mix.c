/* mix.c -- the order of training data as a pure function of (seed, weights, sample number).
 *
 * Sets take turns in a pattern as long as the sum W of the weights, repeated for ever; so every
 * window of W samples holds weight[j] draws of set j.  Within the pattern draw k of set j has the
 * date (2k + 1) / (2 weight[j]), which spreads each set evenly; draws go by date, and on one date
 * by set. Which draw stands at place p is found by bisection, since the draws before a date can be
 * counted. */
#include "shard/shard_priv.h"

/* The place of draw k of set j in the pattern: the draws of all sets that come before it.  Draw m
 * of set i has the earlier date where (2m + 1) weight[j] < (2k + 1) weight[i]; weights are below
 * 2^31. */
static int64_t draw_place(const struct mix *m, int64_t j, int64_t k)
{
    int64_t place = 0;
    for (int64_t i = 0; i < m->n; i++) {
        int64_t x = (2 * k + 1) * m->weight[i] - (i >= j); /* ties go to the lower set */
        place += (x / m->weight[j] + 1) / 2;
    }
    return place;
}

void mix_sample(const struct mix *m, int64_t i, int64_t *set, int64_t *sequence)
{
    int64_t total = 0;
    for (int64_t j = 0; j < m->n; j++)
        total += m->weight[j];
    int64_t cycle = i / total, place = i % total;
    for (int64_t j = 0; j < m->n; j++) {
        int64_t lo = 0, hi = m->weight[j]; /* the first draw at or after the place */
        while (lo < hi) {
            int64_t mid = (lo + hi) / 2;
            if (draw_place(m, j, mid) < place)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo == m->weight[j] || draw_place(m, j, lo) != place)
            continue;
        int64_t n = set_sequences(m->set[j]), draw = cycle * m->weight[j] + lo;
        char label[64];
        snprintf(label, sizeof label, "mix %lld %lld", (long long)j, (long long)(draw / n));
        *set = j;
        *sequence = rng_permute(rng_key(m->seed, label), n, draw % n);
        return;
    }
    die("mix: no set has a weight");
}
