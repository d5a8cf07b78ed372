/* swiglu.c -- what a dense feed-forward network does between its products, a row a token: a gate of
 * its own for each token where there is one (z), as shared experts have. */
#include "swiglu.h"

struct swiglu {
    real *a, *dh;       /* (T,F), (T,2F) */
    stat *dz;           /* (T) */
    const real *da, *h; /* (T,F), (T,2F) */
    const stat *z;      /* (T) or NULL */
    int64_t t, f, block;
};

static real gate_of(const struct swiglu *x, int64_t i)
{
    return x->z ? 1 / (1 + real_exp(-x->z[i])) : 1;
}

static void rows_forward(void *arg, int64_t task, void *scratch)
{
    const struct swiglu *x = arg;
    int64_t f = x->f, end = MIN(x->t, (task + 1) * x->block);
    for (int64_t i = task * x->block; i < end; i++) {
        const real *u = x->h + i * 2 * f;
        swiglu_row(x->a + i * f, u, u + f, gate_of(x, i), f);
    }
}

void OPNAME(swiglu)(struct lane *l, void *a, const void *h, const void *z, int64_t t, int64_t f)
{
    struct swiglu x = {.a = a, .h = h, .z = z, .t = t, .f = f, .block = rows_per_task(4 * f)};
    lane_for(l, task_count(t, x.block), rows_forward, &x, 0);
}

static void rows_dgrad(void *arg, int64_t task, void *scratch)
{
    const struct swiglu *x = arg;
    int64_t f = x->f, end = MIN(x->t, (task + 1) * x->block);
    for (int64_t i = task * x->block; i < end; i++) {
        real *dh = x->dh + i * 2 * f, gate = gate_of(x, i);
        memcpy(dh, x->h + i * 2 * f, (size_t)(2 * f) * sizeof *dh);
        double dgate = swiglu_row_dgrad(dh, dh + f, x->a + i * f, x->da + i * f, gate, f);
        if (x->z)
            x->dz[i] = (stat)(dgate * gate * (1 - gate));
    }
}

void OPNAME(swiglu_dgrad)(struct lane *l, void *dh, void *a, void *dz, const void *da,
                          const void *h, const void *z, int64_t t, int64_t f)
{
    struct swiglu x = {a, dh, dz, da, h, z, t, f, rows_per_task(4 * f)};
    lane_for(l, task_count(t, x.block), rows_dgrad, &x, 0);
}
