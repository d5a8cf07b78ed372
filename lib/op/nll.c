/* nll.c -- the weighted negative log likelihood of labels. */
#include "real.h"

void OPNAME(nll_dgrad)(struct lane *l, void *dlogp, const void *weight, const void *denom,
                       int64_t t)
{
    const stat *w = weight;
    for (int64_t i = 0; i < t; i++)
        ((stat *)dlogp)[i] = -w[i] / *(const stat *)denom;
}

void OPNAME(nll_loss)(struct lane *l, void *loss, const void *weight, const void *logp, int64_t t)
{
    const stat *w = weight, *p = logp;
    double sum = 0;
    for (int64_t i = 0; i < t; i++)
        sum -= (double)w[i] * (double)p[i];
    *(stat *)loss += (stat)sum;
}
