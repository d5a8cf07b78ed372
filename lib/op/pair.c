/* pair.c -- the logistic loss on pairs of documents: Bradley-Terry for reward models, DPO for
 * policies.
 *
 * There are few pairs and little to do for each, so this runs on the calling thread. */
#include "real.h"

static double span_score(const stat *out, const stat *weight, int64_t beg, int64_t end)
{
    double s = 0;
    for (int64_t i = beg; i < end; i++)
        s += (double)weight[i] * (double)out[i];
    return s;
}

struct pair_of {
    double gap, x; /* difference of the scores; what goes into the sigmoid */
};

static struct pair_of pair_at(int64_t i, const stat *out, const stat *weight, const int32_t *q_at,
                              const stat *base, const stat *margin, double beta)
{
    double a = span_score(out, weight, q_at[i], q_at[i + 1]) - (double)base[i];
    double b = span_score(out, weight, q_at[i + 1], q_at[i + 2]) - (double)base[i + 1];
    return (struct pair_of){a - b, beta * (a - b) - (double)margin[i]};
}

void OPNAME(pair_dgrad)(struct lane *l, void *dout, const void *out, const void *weight,
                        const int32_t *q_at, const int32_t *chosen, const void *base,
                        const void *margin, const void *denom, int64_t t, int64_t spans,
                        double beta)
{
    stat *d = dout;
    const stat *w = weight;
    memset(d, 0, (size_t)t * sizeof *d);
    for (int64_t i = 0; i < spans; i++) {
        if (!chosen[i])
            continue;
        double x = pair_at(i, out, w, q_at, base, margin, beta).x;
        double g = -beta / (1 + exp(x)) / (double)*(const stat *)denom;
        for (int64_t j = q_at[i]; j < q_at[i + 2]; j++)
            d[j] = (stat)((j < q_at[i + 1] ? g : -g) * (double)w[j]);
    }
}

void OPNAME(pair_loss)(struct lane *l, void *loss, const void *out, const void *weight,
                       const int32_t *q_at, const int32_t *chosen, const void *base,
                       const void *margin, int64_t spans, double beta)
{
    double sum = 0, right = 0;
    for (int64_t i = 0; i < spans; i++) {
        if (!chosen[i])
            continue;
        struct pair_of p = pair_at(i, out, weight, q_at, base, margin, beta);
        sum += fmax(-p.x, 0) + log1p(exp(-fabs(p.x)));
        right += p.gap > 0 ? 1 : p.gap == 0 ? 0.5 : 0;
    }
    ((stat *)loss)[0] += (stat)sum;
    ((stat *)loss)[1] += (stat)right;
}
