/* select.c -- filtering alignment: which rows stay.
 *
 * Every criterion is a sort and a walk over the items.  Two orders are enough: by group with the
 * best first, and by score alone; the row's place in the input breaks ties, so that a result
 * depends on the input and never on how the sort went about it. */
#include "pref/pref.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

const char *const pref_verdict_name[PREF_VERDICTS] = {
    [PREF_KEPT] = "kept",
    [PREF_LOW] = "below --min-reward",
    [PREF_BELOW_QUANTILE] = "below --quantile-threshold",
    [PREF_NOT_TOP_K] = "not in --top-k",
    [PREF_NOT_TOP_FRAC] = "not in --top-frac",
    [PREF_NOT_TOP_SHARE] = "not in --top-frac-per-prompt",
    [PREF_SMALL_GROUP] = "its prompt has fewer rows than --min-group",
    [PREF_FLAT_GROUP] = "its prompt's rewards differ by less than --require-spread",
    [PREF_DUPLICATE] = "repeats another answer to its prompt",
    [PREF_NEAR_DUPLICATE] = "nearly repeats another answer to its prompt",
    [PREF_ALONE] = "the only answer to its prompt",
    [PREF_TIED] = "the rewards of its prompt are equal",
    [PREF_NARROW] = "no answer to its prompt is --min-margin away",
    [PREF_SAME_TEXT] = "no answer to its prompt says anything else",
    [PREF_UNPAIRED] = "in no pair",
};

void pref_set_add(struct pref_set *s, uint64_t group, double score)
{
    if (s->rows == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->item = xrealloc(s->item, (size_t)s->cap * sizeof(*s->item));
        s->verdict = xrealloc(s->verdict, (size_t)s->cap);
    }
    s->item[s->n++] = (struct pref_item){group, score, s->rows};
    s->verdict[s->rows++] = PREF_KEPT;
}

void pref_set_release(struct pref_set *s)
{
    free(s->item);
    free(s->verdict);
    *s = (struct pref_set){0};
}

static void reject(struct pref_set *s, const struct pref_item *it, enum pref_verdict why)
{
    if (s->verdict[it->at] == PREF_KEPT)
        s->verdict[it->at] = (uint8_t)why;
}

static int by_score(const void *a, const void *b)
{
    const struct pref_item *x = a, *y = b;
    if (x->score > y->score || (isnan(y->score) && !isnan(x->score)))
        return -1;
    if (x->score < y->score || (isnan(x->score) && !isnan(y->score)))
        return 1;
    return x->at < y->at ? -1 : 1;
}

static int by_group(const void *a, const void *b)
{
    const struct pref_item *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return by_score(a, b);
}

static int by_group_and_place(const void *a, const void *b)
{
    const struct pref_item *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

static int by_place(const void *a, const void *b)
{
    const struct pref_item *x = a, *y = b;
    return x->at < y->at ? -1 : 1;
}

static void sort(struct pref_set *s, int (*order)(const void *, const void *))
{
    if (s->n)
        qsort(s->item, (size_t)s->n, sizeof(*s->item), order);
}

void pref_set_sort_place(struct pref_set *s)
{
    sort(s, by_place);
}

void pref_set_sort_group(struct pref_set *s)
{
    sort(s, by_group_and_place);
}

void pref_set_sort_group_score(struct pref_set *s)
{
    sort(s, by_group);
}

void pref_set_sort_score(struct pref_set *s)
{
    sort(s, by_score);
}

int64_t pref_set_group_end(const struct pref_set *s, int64_t i)
{
    uint64_t group = s->item[i].group;
    while (i < s->n && s->item[i].group == group)
        i++;
    return i;
}

void pref_set_settle(struct pref_set *s)
{
    int64_t left = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (s->verdict[s->item[i].at] == PREF_KEPT)
            s->item[left++] = s->item[i];
    s->n = left;
}

static void select_above(struct pref_set *s, double threshold, int inclusive, enum pref_verdict why)
{
    for (int64_t i = 0; i < s->n; i++) {
        double x = s->item[i].score;
        if (!(inclusive ? x >= threshold : x > threshold))
            reject(s, &s->item[i], why);
    }
}

void pref_select_above(struct pref_set *s, double threshold, int inclusive)
{
    select_above(s, threshold, inclusive, PREF_LOW);
}

double pref_select_quantile(struct pref_set *s, double q, int inclusive)
{
    sort(s, by_score);
    double threshold = pref_set_quantile(s, s->n, q);
    select_above(s, threshold, inclusive, PREF_BELOW_QUANTILE);
    return threshold;
}

void pref_select_top_k(struct pref_set *s, int64_t k)
{
    sort(s, by_group);
    int64_t rank = 0;
    for (int64_t i = 0; i < s->n; i++) {
        rank = i && s->item[i].group == s->item[i - 1].group ? rank + 1 : 0;
        if (rank >= k)
            reject(s, &s->item[i], PREF_NOT_TOP_K);
    }
}

static void reject_all(struct pref_set *s, int64_t from, int64_t to, enum pref_verdict why)
{
    for (int64_t i = from; i < to; i++)
        reject(s, &s->item[i], why);
}

/* 0.07 of 100 rows is 7 rows although 0.07 * 100 is a little more than 7 in binary. */
static int64_t share(double frac, int64_t n)
{
    return (int64_t)ceil(frac * (double)n * (1 - 4 * DBL_EPSILON));
}

void pref_select_top_frac(struct pref_set *s, double frac)
{
    sort(s, by_score);
    reject_all(s, share(frac, s->n), s->n, PREF_NOT_TOP_FRAC);
}

void pref_select_top_share(struct pref_set *s, double frac)
{
    sort(s, by_group);
    for (int64_t i = 0, j; i < s->n; i = j) {
        j = pref_set_group_end(s, i);
        reject_all(s, i + share(frac, j - i), j, PREF_NOT_TOP_SHARE);
    }
}

void pref_select_groups(struct pref_set *s, int64_t least)
{
    sort(s, by_group_and_place);
    for (int64_t i = 0, j; i < s->n; i = j) {
        j = pref_set_group_end(s, i);
        if (j - i < least)
            reject_all(s, i, j, PREF_SMALL_GROUP);
    }
}

void pref_select_spread(struct pref_set *s, double spread)
{
    sort(s, by_group);
    for (int64_t i = 0, j; i < s->n; i = j) {
        j = pref_set_group_end(s, i);
        if (s->item[i].score - s->item[j - 1].score < spread)
            reject_all(s, i, j, PREF_FLAT_GROUP);
    }
}

int64_t pref_set_kept(const struct pref_set *s)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < s->rows; i++)
        kept += s->verdict[i] == PREF_KEPT;
    return kept;
}

int64_t pref_set_groups(struct pref_set *s, int64_t *kept)
{
    sort(s, by_group_and_place);
    int64_t groups = 0;
    *kept = 0;
    for (int64_t i = 0, j; i < s->n; i = j) {
        int any = 0;
        for (j = i; j < s->n && s->item[j].group == s->item[i].group; j++)
            any |= s->verdict[s->item[j].at] == PREF_KEPT;
        groups++;
        *kept += any;
    }
    return groups;
}

int64_t pref_set_means(struct pref_set *s, uint64_t **group, double **mean)
{
    int64_t lost, n = pref_set_groups(s, &lost), g = 0;
    *group = xcalloc((size_t)n, sizeof(**group));
    *mean = xcalloc((size_t)n, sizeof(**mean));
    for (int64_t i = 0, j; i < s->n; i = j) {
        double sum = 0;
        int64_t scored = 0;
        for (j = i; j < s->n && s->item[j].group == s->item[i].group; j++) {
            scored += !isnan(s->item[j].score);
            sum += isnan(s->item[j].score) ? 0 : s->item[j].score;
        }
        if (!scored)
            continue;
        (*group)[g] = s->item[i].group;
        (*mean)[g++] = sum / (double)scored;
    }
    return g;
}

double pref_set_quantile(const struct pref_set *s, int64_t n, double q)
{
    if (!n)
        return NAN;
    double at = q * (double)(n - 1);
    int64_t i = MIN((int64_t)at, n - 1), j = MIN(i + 1, n - 1);
    double low = s->item[n - 1 - i].score, high = s->item[n - 1 - j].score;
    return low + (high - low) * (at - (double)i);
}
