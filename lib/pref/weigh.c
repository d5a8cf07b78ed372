/* weigh.c -- reward-weighted regression: w = min(exp((r - b) / beta), w_max).
 *
 * Weights stay logarithms until they are normalised, min((r - b) / beta, log w_max), so that no
 * beta overflows.  Two limits say what the numbers mean: beta -> infinity gives every row the
 * weight 1, which is plain fine-tuning; beta -> 0 with the weights of a prompt adding up to 1 and
 * no cap gives 1 to its best row and 0 to the others, which is best-of-n. */
#include "pref/pref.h"

#include <math.h>

const char *const pref_baseline_name[PREF_BASES] = {
    [PREF_BASE_PROMPT] = "prompt",
    [PREF_BASE_GLOBAL] = "global",
    [PREF_BASE_NONE] = "none",
};
const char *const pref_weight_norm_name[PREF_WEIGHT_NORMS] = {
    [PREF_MEAN1] = "mean1",
    [PREF_SOFTMAX_PROMPT] = "softmax-prompt",
    [PREF_RAW] = "none",
};

static double mean_of(const struct pref_item *item, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += item[i].score;
    return n ? sum / (double)n : 0;
}

/* score := log w.  0 / 0 cannot occur, since beta is above 0; inf * 0 cannot, since this divides.
 */
static void take_logs(struct pref_rwr *p, struct pref_item *item, int64_t n, double b)
{
    double cap = log(p->max_weight);
    for (int64_t i = 0; i < n; i++) {
        double a = (item[i].score - b) / p->beta;
        p->clipped += a > cap;
        item[i].score = fmin(a, cap);
    }
}

/* score := exp(score), scaled to add up to total, by way of the largest. */
static void normalise(struct pref_item *item, int64_t n, double total)
{
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        top = fmax(top, item[i].score);
    for (int64_t i = 0; i < n; i++) {
        /* Two equal infinities differ by nothing. */
        item[i].score = item[i].score == top ? 1 : exp(item[i].score - top);
        sum += item[i].score;
    }
    double scale = total / sum; /* n / n is 1, n * (1 / n) need not be */
    for (int64_t i = 0; i < n; i++)
        item[i].score *= scale;
}

static void sum_up(struct pref_rwr *p, const struct pref_set *s)
{
    double sum = 0, squares = 0;
    p->largest = 0;
    for (int64_t i = 0; i < s->n; i++)
        p->largest = fmax(p->largest, s->item[i].score);
    for (int64_t i = 0; i < s->n; i++) { /* relative to the largest, whose square may overflow */
        double w = s->item[i].score / p->largest;
        sum += w;
        squares += w * w;
    }
    p->effective = squares > 0 ? sum * sum / squares : 0;
}

void pref_weigh(struct pref_rwr *p, struct pref_set *s)
{
    pref_set_sort_group(s); /* one order of summation, whatever was done to the set before */
    p->mean = mean_of(s->item, s->n);
    p->clipped = 0;
    for (int64_t i = 0, j; i < s->n; i = j) {
        j = pref_set_group_end(s, i);
        double b = p->baseline == PREF_BASE_NONE                   ? 0
                   : p->baseline == PREF_BASE_VALUE                ? p->base
                   : p->baseline == PREF_BASE_PROMPT && j - i >= 2 ? mean_of(s->item + i, j - i)
                                                                   : p->mean;
        take_logs(p, s->item + i, j - i, b);
        if (p->norm == PREF_SOFTMAX_PROMPT)
            normalise(s->item + i, j - i, 1);
    }
    if (p->norm == PREF_MEAN1)
        normalise(s->item, s->n, (double)s->n);
    if (p->norm == PREF_RAW)
        for (int64_t i = 0; i < s->n; i++)
            s->item[i].score = exp(s->item[i].score);
    sum_up(p, s);
}
