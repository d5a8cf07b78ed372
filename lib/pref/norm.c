/* norm.c -- rewards on a common scale: z-scores, over all rows or within each prompt.
 *
 * The deviation divides by n - 1, and constants that were fitted once can be applied to other rows,
 * so that training and test rows stand on one scale.  A deviation of nearly nothing is no signal to
 * be blown up: those scores become 0, never NaN. */
#include "pref/pref.h"

#include <math.h>

static const double sd_least = 1e-8;

const char *const pref_norm_name[PREF_NORM_KINDS] = {
    [PREF_NORM_NONE] = "none",
    [PREF_NORM_GLOBAL] = "global",
    [PREF_NORM_PROMPT] = "prompt",
};

/* Two passes: the sum of squares is taken of the differences from a mean that is known. */
static void fit(const struct pref_item *item, int64_t n, double *mean, double *sd)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += item[i].score;
    *mean = n ? sum / (double)n : 0;
    for (int64_t i = 0; i < n; i++)
        squares += (item[i].score - *mean) * (item[i].score - *mean);
    *sd = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

static int64_t apply(struct pref_item *item, int64_t n, double mean, double sd)
{
    int flat = !(sd > sd_least);
    for (int64_t i = 0; i < n; i++)
        item[i].score = flat ? 0 : (item[i].score - mean) / sd;
    return flat;
}

void pref_norm_fit(struct pref_norm *n, const struct pref_set *s)
{
    n->n = s->n;
    fit(s->item, s->n, &n->mean, &n->sd);
}

int64_t pref_norm_apply(const struct pref_norm *n, struct pref_set *s)
{
    if (n->kind == PREF_NORM_NONE)
        return 0;
    if (n->kind == PREF_NORM_GLOBAL)
        return apply(s->item, s->n, n->mean, n->sd);
    int64_t flat = 0;
    pref_set_sort_group(s);
    for (int64_t i = 0, j; i < s->n; i = j) {
        double mean, sd;
        j = pref_set_group_end(s, i);
        fit(s->item + i, j - i, &mean, &sd);
        flat += apply(s->item + i, j - i, mean, sd);
    }
    return flat;
}
