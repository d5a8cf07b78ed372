/* head.c -- log-probabilities of labels from slices of the vocabulary; the gradient of logits.
 *
 * Each slice gives max, sum of exponentials and the label's logit; three numbers a token are all
 * that ranks exchange. */
#include "real.h"
#include "vec.h"

struct head {
    stat *part;              /* (T,3) */
    real *dlogits;           /* (T,V) */
    const stat *logits;      /* (T,V) */
    const stat *lse, *dlogp; /* (T) */
    const int32_t *label;    /* (T) */
    int64_t t, v, v0, rows;
};

static void part_rows(void *arg, int64_t task, void *scratch)
{
    const struct head *h = arg;
    int64_t end = MIN(h->t, (task + 1) * h->rows);
    for (int64_t i = task * h->rows; i < end; i++) {
        const stat *x = h->logits + i * h->v;
        int64_t at = h->label[i] - h->v0;
        stat max = vec_max(x, h->v);
        h->part[i * 3] = max;
        h->part[i * 3 + 1] = (stat)vec_exp(scratch, x, h->v, max);
        h->part[i * 3 + 2] = h->label[i] >= 0 && at >= 0 && at < h->v ? x[at] : 0;
    }
}

void OPNAME(lse_part)(struct lane *l, void *part, struct mat logits, const int32_t *label,
                      int64_t v0)
{
    struct head h = {part, .logits = logits.data, .label = label, .t = logits.rows};
    h.v = logits.cols, h.v0 = v0;
    h.rows = rows_per_task(h.v);
    lane_for(l, task_count(h.t, h.rows), part_rows, &h, h.v * (int64_t)sizeof(real));
}

void OPNAME(lse_join)(struct lane *l, void *logp, void *lse, const void *part, const int32_t *label,
                      int64_t t, int64_t p)
{
    const stat *parts = part; /* (P,T,3) */
    for (int64_t i = 0; i < t; i++) {
        double max = -INFINITY, sum = 0, logit = 0;
        for (int64_t j = 0; j < p; j++)
            max = MAX(max, (double)parts[(j * t + i) * 3]);
        for (int64_t j = 0; j < p; j++) {
            const stat *s = parts + (j * t + i) * 3;
            sum += (double)s[1] * exp((double)s[0] - max);
            logit += (double)s[2];
        }
        ((stat *)lse)[i] = (stat)(max + log(sum));
        ((stat *)logp)[i] = label[i] < 0 ? 0 : (stat)(logit - max - log(sum));
    }
}

static void logits_dgrad_rows(void *arg, int64_t task, void *scratch)
{
    const struct head *h = arg;
    int64_t end = MIN(h->t, (task + 1) * h->rows);
    for (int64_t i = task * h->rows; i < end; i++) {
        const stat *x = h->logits + i * h->v;
        real *dx = h->dlogits + i * h->v;
        int64_t at = h->label[i] - h->v0;
        real dlogp = h->dlogp[i], lse = h->lse[i];
        if (h->label[i] < 0 || dlogp == 0) { /* most of a prompt: no need for its exponentials */
            memset(dx, 0, (size_t)h->v * sizeof *dx);
            continue;
        }
        for (int64_t j = 0; j < h->v; j++)
            dx[j] = -dlogp * real_exp(x[j] - lse);
        if (at >= 0 && at < h->v)
            dx[at] += dlogp;
    }
}

void OPNAME(logits_dgrad)(struct lane *l, struct mat dlogits, struct mat logits, const void *lse,
                          const void *dlogp, const int32_t *label, int64_t v0)
{
    int64_t t = logits.rows, v = logits.cols;
    struct head h = {NULL, dlogits.data, logits.data,     lse, dlogp, label, t,
                     v,    v0,           rows_per_task(v)};
    lane_for(l, task_count(t, h.rows), logits_dgrad_rows, &h, 0);
}
