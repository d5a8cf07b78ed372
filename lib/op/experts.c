/* experts.c -- SwiGLU experts, forward: tiles of rows through their expert's matrices.
 *
 * A tile's rows are gathered, multiplied and activated while they are in the cache.  The gate
 * weight is applied to the activation, so that what comes out of `down` only needs to be summed. */
#include "experts.h"

static void up_tile(void *arg, int64_t task, void *scratch)
{
    const struct experts *x = arg;
    const struct tile *t = &x->tile[task];
    int64_t d = x->d, f = x->f;
    real *rows = scratch, *h = x->out + t->at * 2 * f; /* (rows,D), (rows,2F) */
    experts_gather(x, t, rows);
    product(h, 2 * f, t->rows, 2 * f, d, 1, (struct factor){rows, d, 0},
            (struct factor){x->w + t->expert * 2 * f * d, d, 1}, 0);
    for (int64_t i = 0; i < t->rows; i++) {
        const real *u = h + i * 2 * f, *v = u + f;
        swiglu_row(x->a + (t->at + i) * f, u, v, x->gate[x->source[t->at + i]], f);
    }
}

void OPNAME(experts_up)(struct lane *l, void *h, void *a, const void *x, const void *up,
                        const void *gate, const int32_t *at, const int32_t *count,
                        const int32_t *source, int64_t live, int64_t e, int64_t k, int64_t d,
                        int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    struct experts m = experts_cut(l, at, count, source, e, k, d, f);
    m.x = x;
    m.w = up;
    m.gate = gate;
    m.out = h;
    m.a = a;
    lane_for(l, m.tiles, up_tile, &m, ROW_ALIGN * d * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}

static void down_tile(void *arg, int64_t task, void *scratch)
{
    const struct experts *x = arg;
    const struct tile *t = &x->tile[task];
    product(x->out + t->at * x->d, x->d, t->rows, x->d, x->f, 1,
            (struct factor){x->in + t->at * x->f, x->f, 0},
            (struct factor){x->w + t->expert * x->d * x->f, x->f, 1}, 0);
}

void OPNAME(experts_down)(struct lane *l, void *y, const void *a, const void *down,
                          const int32_t *at, const int32_t *count, int64_t live, int64_t e,
                          int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    struct experts m = experts_cut(l, at, count, NULL, e, 1, d, f);
    m.w = down;
    m.in = a;
    m.out = y;
    lane_for(l, m.tiles, down_tile, &m, 0);
    arena_back(&l->scratch, mark);
}
