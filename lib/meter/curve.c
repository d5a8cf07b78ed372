/* curve.c -- the figures of a log as curves that can be drawn: thinned to what a figure can show,
 * and smoothed, as what a single step measures is noisy. */
#include "meter/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS_MAX = 1000 }; /* of a curve: more than the figure has pixels is bytes for nothing */

/* Neighbours are averaged until at most POINTS_MAX are left. */
static void curve_thin(struct curve *c)
{
    int64_t by = (c->n + POINTS_MAX - 1) / POINTS_MAX, n = 0;
    for (int64_t i = 0; by > 1 && i < c->n; i += by, n++) {
        int64_t m = MIN(by, c->n - i);
        c->x[n] = meter_mean(c->x + i, m);
        c->y[n] = meter_mean(c->y + i, m);
    }
    c->n = by > 1 ? n : c->n;
}

static void curve_smooth(struct curve *c, const struct panel *p)
{
    double *window = xmalloc((c->n + 1) * sizeof *window);
    for (int64_t i = 0; i < c->n; i++) {
        /* A curve is steep at its beginning: there the window is narrow, or it would lag. */
        int64_t left = MIN(i, c->n / 40);
        int64_t right = MIN(p->level ? c->n / 40 : left, c->n - 1 - i);
        memcpy(window, c->y + i - left, (left + 1 + right) * sizeof *window);
        c->mid[i] = p->smooth(window, left + 1 + right);
    }
    free(window);
}

struct curve curve_of(const struct meter_log *m, const struct panel *p, int over_tokens)
{
    struct curve c = {.x = xmalloc((m->n + 1) * sizeof(double)),
                      .y = xmalloc((m->n + 1) * sizeof(double)),
                      .mid = xmalloc((m->n + 1) * sizeof(double))};
    double tokens = 0;
    for (int64_t i = 0; i < m->n; i++) {
        double y = p->of(&m->line[i]);
        tokens += m->line[i].tokens;
        if (!isfinite(y) || (p->log && y <= 0))
            continue;
        c.x[c.n] = over_tokens ? tokens : m->line[i].step;
        c.y[c.n++] = y;
    }
    curve_thin(&c);
    curve_smooth(&c, p);
    return c;
}

struct curve curve_of_valid(const struct meter_log *m, int over_tokens)
{
    struct curve c = {.x = xmalloc((m->valids + 1) * sizeof(double)),
                      .y = xmalloc((m->valids + 1) * sizeof(double))};
    double tokens = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < m->valids; i++) {
        while (at < m->n && m->line[at].step <= m->valid[i].step)
            tokens += m->line[at++].tokens;
        if (!isfinite(m->valid[i].loss))
            continue;
        c.x[c.n] = over_tokens ? tokens : m->valid[i].step;
        c.y[c.n++] = m->valid[i].loss;
    }
    return c;
}

void curve_release(struct curve *c)
{
    free(c->x), free(c->y), free(c->mid);
}

void range_add(struct range *r, const double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        r->low = fmin(r->low, v[i]);
        r->high = fmax(r->high, v[i]);
    }
}
