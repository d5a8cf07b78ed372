/* bench.h -- what the measurements on a GPU share: weights and medians. */
#ifndef BENCH_H
#define BENCH_H

#include "model/model.h"

#include <stdlib.h>

/* Weights of the right size, quickly: a block of normal numbers again and again; norms are 1. */
static inline void fill_weights(struct model *m)
{
    enum { BLOCK = 1 << 20 };
    const struct dev_ops *dev = m->lane->dev;
    float *normal = xmalloc(BLOCK * sizeof *normal), *one = xmalloc(BLOCK * sizeof *one);
    uint16_t *host = xmalloc(BLOCK * sizeof *host);
    for (int64_t i = 0; i < BLOCK; i++) {
        normal[i] = (float)(0.02 * rng_normal(1, 0, (uint64_t)i));
        one[i] = 1;
    }
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        int64_t n = l->r.rows * l->r.cols;
        char *p = model_weight(m, l);
        dtype_convert(host, DT_BF16, l->p->cols ? normal : one, DT_F32, BLOCK);
        dev->put(m->lane, p, host, MIN(n, (int64_t)BLOCK) * 2);
        for (int64_t j = BLOCK; j < n; j += BLOCK)
            dev->copy(m->lane, p + j * 2, p, MIN(n - j, (int64_t)BLOCK) * 2);
        dev->wait(m->lane);
    }
    free(normal), free(one), free(host);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

#endif
