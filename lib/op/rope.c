/* rope.c -- queries and keys on their way to attention: QK-norm, then rotary position embedding in
 * the half layout (element i pairs with i + C/2); and the gradients of both.
 *
 * The sines of a position serve all heads, and where documents are packed the same low positions
 * come again and again; so they are tabulated, unless positions go higher than there are tokens. */
#include "real.h"
#include "vec.h"

struct rope {
    const struct qk *n;
    real *y;    /* (T,H+G,C), rows ld apart, as x and dy */
    stat *rstd; /* (T,norms) */
    stat *part; /* (QK_PARTS,weights) */
    const real *x, *dy;
    const stat *sum;         /* (T,2) or NULL */
    const int32_t *position; /* (T) */
    const stat *freq;        /* (C/2) */
    real *table;             /* (positions,2,C/2) cos, sin; or NULL */
    int64_t t, rows, positions;
};

static void turn_fill(const struct rope *r, real *turn /* (2,C/2) */, int64_t position)
{
    int64_t half = r->n->c / 2;
    for (int64_t i = 0; i < half; i++) {
        double angle = (double)position * (double)r->freq[i];
        turn[i] = (real)cos(angle);
        turn[half + i] = (real)sin(angle);
    }
}

static void tabulate_rows(void *arg, int64_t task, void *scratch)
{
    const struct rope *r = arg;
    int64_t end = MIN(r->positions, (task + 1) * r->rows);
    for (int64_t i = task * r->rows; i < end; i++)
        turn_fill(r, r->table + i * r->n->c, i);
}

static void tabulate(struct lane *l, struct rope *r)
{
    int64_t lowest = 0;
    for (int64_t i = 0; i < r->t; i++) {
        r->positions = MAX(r->positions, r->position[i] + 1);
        lowest = MIN(lowest, r->position[i]);
    }
    if (r->positions > r->t || lowest < 0)
        return;
    r->table = arena_take(&l->scratch, r->positions * r->n->c * (int64_t)sizeof *r->table);
    lane_for(l, task_count(r->positions, r->rows), tabulate_rows, r, 0);
}

/* cos and sin of token i, (2,C/2): from the table, or made in scratch. */
static const real *turn_of(const struct rope *r, int64_t i, real *scratch)
{
    if (r->table)
        return r->table + r->position[i] * r->n->c;
    turn_fill(r, scratch, r->position[i]);
    return scratch;
}

/* The heads that norm i spans. */
static void span_of(const struct qk *n, int64_t i, int64_t *first, int64_t *heads)
{
    *first = n->whole ? i * n->h : i;
    *heads = !n->whole ? 1 : i ? n->g : n->h;
}

static const real *weights_of(const struct qk *n, int64_t head)
{
    return (const real *)n->w + (n->whole ? head : head >= n->h) * n->c;
}

/* ---- forward ---- */

static void rope_rows(void *arg, int64_t task, void *scratch)
{
    const struct rope *r = arg;
    const struct qk *n = r->n;
    int64_t c = n->c, half = c / 2, end = MIN(r->t, (task + 1) * r->rows);
    for (int64_t i = task * r->rows; i < end; i++) {
        const real *x = r->x + i * n->ld, *turn = turn_of(r, i, scratch);
        real *y = r->y + i * n->ld;
        for (int64_t k = 0; k < qk_norms(n); k++) {
            int64_t first, heads;
            span_of(n, k, &first, &heads);
            real rstd = 1;
            if (n->w) {
                const real *a = x + first * c;
                double sum = r->sum ? (double)r->sum[i * 2 + k] : vec_dot(a, a, heads * c);
                rstd = (real)(1 / sqrt(sum / (double)qk_span(n, k) + n->eps));
                r->rstd[i * qk_norms(n) + k] = rstd;
            }
            for (int64_t h = first; h < first + heads; h++)
                for (int64_t j = h * c, p = 0; p < half; j++, p++) {
                    real u = x[j], v = x[j + half];
                    if (n->w) {
                        const real *w = weights_of(n, h) + p;
                        u = u * rstd * w[0];
                        v = v * rstd * w[half];
                    }
                    y[j] = u * turn[p] - v * turn[half + p];
                    y[j + half] = v * turn[p] + u * turn[half + p];
                }
        }
    }
}

void OPNAME(rope)(struct lane *l, void *y, void *rstd, const void *x, const void *square,
                  const int32_t *position, const void *freq, int64_t t, const struct qk *n)
{
    struct rope r = {n, y, rstd, .x = x, .sum = square, .position = position, .freq = freq, .t = t};
    r.rows = rows_per_task((n->h + n->g) * n->c);
    struct arena_mark mark = arena_mark(&l->scratch);
    tabulate(l, &r);
    lane_for(l, task_count(t, r.rows), rope_rows, &r, n->c * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}

/* ---- backward ---- */

/* With z's gradient dz (H+G,C), n = x rstd and g = dz w: dx = rstd (g - n mean(g n)), and dz n is
 * the token's part of the weight gradient. */
static void norm_dgrad_row(const struct rope *r, int64_t i, real *dz, double *part)
{
    const struct qk *n = r->n;
    int64_t c = n->c;
    const real *x = r->x + i * n->ld;
    for (int64_t k = 0; k < qk_norms(n); k++) {
        int64_t first, heads;
        span_of(n, k, &first, &heads);
        real rstd = (real)r->rstd[i * qk_norms(n) + k];
        for (int64_t h = first; h < first + heads; h++) {
            const real *w = weights_of(n, h);
            double *dw = part + (w - (const real *)n->w);
            for (int64_t j = 0; j < c; j++) {
                dw[j] += (double)dz[h * c + j] * (double)x[h * c + j] * (double)rstd;
                dz[h * c + j] *= w[j];
            }
        }
        double sum = r->sum ? (double)r->sum[i * 2 + k]
                            : vec_dot(dz + first * c, x + first * c, heads * c) * (double)rstd;
        real along = (real)(sum * (double)rstd / (double)qk_span(n, k));
        for (int64_t j = first * c; j < (first + heads) * c; j++)
            dz[j] = rstd * (dz[j] - x[j] * along);
    }
}

static void rope_dgrad_rows(void *arg, int64_t task, void *scratch)
{
    const struct rope *r = arg;
    const struct qk *n = r->n;
    int64_t c = n->c, half = c / 2, wide = (n->h + n->g) * c;
    double *part = scratch;
    real *dz = (real *)(part + qk_weights(n)), *turn_scratch = dz + wide;
    memset(part, 0, (size_t)qk_weights(n) * sizeof *part);
    for (int64_t i = task; i < r->t; i += QK_PARTS) {
        const real *dy = r->dy + i * n->ld, *turn = turn_of(r, i, turn_scratch);
        for (int64_t h = 0; h < n->h + n->g; h++)
            for (int64_t j = h * c, p = 0; p < half; j++, p++) {
                dz[j] = dy[j] * turn[p] + dy[j + half] * turn[half + p];
                dz[j + half] = dy[j + half] * turn[p] - dy[j] * turn[half + p];
            }
        if (n->w)
            norm_dgrad_row(r, i, dz, part);
        memcpy(r->y + i * n->ld, dz, (size_t)wide * sizeof *dz);
    }
    if (n->w)
        for (int64_t j = 0; j < qk_weights(n); j++)
            r->part[task * qk_weights(n) + j] = (stat)part[j];
}

void OPNAME(rope_dgrad)(struct lane *l, void *dx, void *part, const void *dy, const void *x,
                        const void *rstd, const void *dot, const int32_t *position,
                        const void *freq, int64_t t, const struct qk *n)
{
    struct rope r = {n, dx, (stat *)rstd, part, x, dy, dot, position, freq, .t = t};
    int64_t wide = (n->h + n->g) * n->c;
    r.rows = rows_per_task(wide);
    struct arena_mark mark = arena_mark(&l->scratch);
    tabulate(l, &r);
    lane_for(l, QK_PARTS, rope_dgrad_rows, &r,
             qk_weights(n) * (int64_t)sizeof(double) + (wide + n->c) * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}

void OPNAME(rope_wgrad)(struct lane *l, struct mat dw, const void *part, int add)
{
    stat *w = grad_stat("rope_wgrad", dw);
    const stat *p = part;
    for (int64_t j = 0; j < dw.cols; j++) {
        double sum = 0;
        for (int64_t i = 0; i < QK_PARTS; i++)
            sum += (double)p[i * dw.cols + j];
        w[j] = (add ? w[j] : 0) + (stat)sum;
    }
}

/* ---- sums that ranks add up ---- */

struct dots {
    const struct qk *n;
    stat *dot;         /* (T,2) */
    const real *a, *b; /* (T,H+G,C) */
    int64_t t, rows;
};

static void dots_rows(void *arg, int64_t task, void *scratch)
{
    const struct dots *d = arg;
    const struct qk *n = d->n;
    int64_t q = n->h * n->c, k = n->g * n->c, end = MIN(d->t, (task + 1) * d->rows);
    for (int64_t i = task * d->rows; i < end; i++) {
        const real *a = d->a + i * n->ld, *b = d->b + i * n->ld;
        d->dot[i * 2] = (stat)vec_dot(a, b, q);
        d->dot[i * 2 + 1] = (stat)vec_dot(a + q, b + q, k);
    }
}

void OPNAME(qk_dots)(struct lane *l, void *dot, const void *a, const void *b, int64_t t,
                     const struct qk *n)
{
    struct dots d = {n, dot, a, b, t, rows_per_task((n->h + n->g) * n->c)};
    lane_for(l, task_count(t, d.rows), dots_rows, &d, 0);
}
