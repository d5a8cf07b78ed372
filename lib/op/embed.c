/* embed.c -- rows of the embedding by token, and the sum of gradients back into them. */
#include "real.h"
#include "vec.h"

enum { SHARES = 32 }; /* of the vocabulary; each is summed by one task, in order of tokens */

struct embed {
    real *x;              /* (T,D) */
    stat *dw;             /* (V,D) */
    const real *w;        /* (V,D) */
    const real *dx;       /* (T,D) */
    const int32_t *token; /* (T) */
    int64_t t, d, v, v0, rows;
    int add;
};

static void embed_rows(void *arg, int64_t task, void *scratch)
{
    const struct embed *m = arg;
    int64_t end = MIN(m->t, (task + 1) * m->rows);
    for (int64_t i = task * m->rows; i < end; i++) {
        int64_t row = m->token[i] - m->v0;
        if (row >= 0 && row < m->v)
            memcpy(m->x + i * m->d, m->w + row * m->d, (size_t)m->d * sizeof(real));
        else
            memset(m->x + i * m->d, 0, (size_t)m->d * sizeof(real));
    }
}

void OPNAME(embed)(struct lane *l, void *x, const int32_t *token, const void *w, int64_t t,
                   int64_t d, int64_t v, int64_t v0)
{
    struct embed m = {x, .w = w, .token = token, .t = t, .d = d, .v = v, .v0 = v0};
    m.rows = rows_per_task(d);
    lane_for(l, task_count(t, m.rows), embed_rows, &m, 0);
}

/* Shares are interleaved, since frequent tokens tend to be neighbours. */
static void embed_wgrad_share(void *arg, int64_t share, void *scratch)
{
    const struct embed *m = arg;
    for (int64_t row = share; !m->add && row < m->v; row += SHARES)
        memset(m->dw + row * m->d, 0, (size_t)m->d * sizeof *m->dw);
    for (int64_t i = 0; i < m->t; i++) {
        int64_t row = m->token[i] - m->v0;
        if (row < 0 || row >= m->v || row % SHARES != share)
            continue;
        stat *dw = m->dw + row * m->d;
        const real *dx = m->dx + i * m->d;
        for (int64_t j = 0; j < m->d; j++)
            dw[j] += dx[j];
    }
}

void OPNAME(embed_wgrad)(struct lane *l, struct mat dw, const int32_t *token, const void *dx,
                         int64_t t, int64_t v0, int add)
{
    struct embed m = {.dw = grad_stat("embed_wgrad", dw),
                      .dx = dx,
                      .token = token,
                      .t = t,
                      .d = dw.cols,
                      .v = dw.rows,
                      .v0 = v0,
                      .add = add};
    lane_for(l, SHARES, embed_wgrad_share, &m, 0);
}
