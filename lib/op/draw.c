/* draw.c -- a token drawn from each row of logits: temperature, then top-p, then u. */
#include "real.h"

#include <stdlib.h>

struct choice {
    double p;
    int32_t id;
};

static int by_probability(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : (x->id > y->id) - (x->id < y->id);
}

struct draw {
    int32_t *token;     /* (T) */
    const stat *logits; /* (T,V) */
    const double *u;    /* (T) */
    int64_t v;
    double temperature, top_p;
};

static void draw_row(void *arg, int64_t row, void *scratch)
{
    const struct draw *d = arg;
    const stat *x = d->logits + row * d->v;
    struct choice *c = scratch; /* (V) */
    int64_t n = d->v, i = 0;
    int32_t best = 0;
    double sum = 0, mass = 0, at = 0;
    for (int64_t j = 1; j < n; j++)
        if (x[j] > x[best])
            best = (int32_t)j;
    d->token[row] = best;
    if (d->temperature <= 0)
        return;
    for (int64_t j = 0; j < n; j++) {
        double below = (double)x[j] - (double)x[best];
        c[j] = (struct choice){exp(below / d->temperature), (int32_t)j};
        sum += c[j].p;
    }
    if (d->top_p < 1) {
        qsort(c, (size_t)n, sizeof *c, by_probability);
        for (n = 0; n < d->v && mass < d->top_p * sum; n++)
            mass += c[n].p;
        sum = mass;
    }
    while (i + 1 < n && (at += c[i].p) < d->u[row] * sum)
        i++;
    d->token[row] = c[i].id;
}

void OPNAME(draw)(struct lane *l, int32_t *token, const void *logits, const double *u, int64_t t,
                  int64_t v, double temperature, double top_p)
{
    struct draw d = {token, logits, u, v, temperature, top_p};
    lane_for(l, t, draw_row, &d, v * (int64_t)sizeof(struct choice));
}
