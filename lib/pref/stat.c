/* stat.c -- moments, quantiles, and the bootstrap that says whether a difference is more than
 * chance.
 *
 * The unit that is resampled is the prompt: answers to one prompt are alike, and to resample them
 * one by one would promise more certainty than there is. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>

void numbers_add(struct numbers *a, double x)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 1024;
        a->v = xrealloc(a->v, (size_t)a->cap * sizeof(*a->v));
    }
    a->v[a->n++] = x;
}

void moments_add(struct moments *m, double x, double y)
{
    m->n++;
    double dx = x - m->mean_x, dy = y - m->mean_y;
    m->mean_x += dx / (double)m->n;
    m->mean_y += dy / (double)m->n;
    m->xx += dx * (x - m->mean_x);
    m->yy += dy * (y - m->mean_y);
    m->xy += dx * (y - m->mean_y);
}

double moments_sd(const struct moments *m)
{
    return m->n > 1 ? sqrt(m->xx / (double)(m->n - 1)) : NAN;
}

double moments_correlation(const struct moments *m)
{
    return m->xx > 0 && m->yy > 0 ? m->xy / sqrt(m->xx) / sqrt(m->yy) : NAN;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void sort_doubles(double *v, int64_t n)
{
    if (n)
        qsort(v, (size_t)n, sizeof(*v), ascending);
}

double sorted_quantile(const double *v, int64_t n, double q)
{
    if (!n)
        return NAN;
    double at = q * (double)(n - 1);
    int64_t i = MIN((int64_t)at, n - 1), j = MIN(i + 1, n - 1);
    return v[i] + (v[j] - v[i]) * (at - (double)i);
}

struct boot {
    const double *v; /* (n) */
    int64_t n;
    uint64_t key;
    double *mean; /* (resamples) */
};

static void resample(void *arg, int64_t i)
{
    struct boot *b = arg;
    double sum = 0;
    uint32_t r[4];
    for (int64_t j = 0; j < b->n; j++) {
        if (j % 2 == 0)
            rng_bits(r, b->key, (uint64_t)i, (uint64_t)j / 2);
        uint64_t u = (uint64_t)r[j % 2 * 2] << 32 | r[j % 2 * 2 + 1];
        sum += b->v[(unsigned __int128)u * (uint64_t)b->n >> 64];
    }
    b->mean[i] = sum / (double)b->n;
}

struct interval bootstrap_mean(const double *v, int64_t n, int64_t resamples, uint64_t key,
                               int64_t threads)
{
    if (!n)
        return (struct interval){NAN, NAN, NAN};
    struct boot b = {v, n, key, xcalloc((size_t)resamples, sizeof(double))};
    struct par *pool = par_new(threads);
    par_for(pool, resamples, resample, &b);
    par_free(pool);
    sort_doubles(b.mean, resamples);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    struct interval out = {sum / (double)n, sorted_quantile(b.mean, resamples, 0.025),
                           sorted_quantile(b.mean, resamples, 0.975)};
    free(b.mean);
    return out;
}

int64_t paired_differences(const uint64_t *group_a, const double *mean_a, int64_t n_a,
                           const uint64_t *group_b, const double *mean_b, int64_t n_b, double *out)
{
    int64_t n = 0;
    for (int64_t i = 0, j = 0; i < n_a && j < n_b;) {
        if (group_a[i] == group_b[j])
            out[n++] = mean_b[j++] - mean_a[i++];
        else if (group_a[i] < group_b[j])
            i++;
        else
            j++;
    }
    return n;
}
