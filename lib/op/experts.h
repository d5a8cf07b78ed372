/* experts.h -- how the rows of all experts are cut into tasks, for experts.c and experts_grad.c.
 *
 * A tile is at most ROW_ALIGN rows of one expert.  Only live rows are in tiles, so padding is
 * neither read nor written. */
#ifndef EXPERTS_H
#define EXPERTS_H

#include "real.h"
#include "blas.h"
#include "swiglu.h"

struct tile {
    int64_t expert, at, rows;
};

struct experts {
    struct tile *tile; /* (tiles) */
    int64_t tiles;
    const int32_t *at, *count, *source; /* the row map */
    int64_t e, k, d, f;
    const real *x;    /* (n,D) what rows are gathered from: x or dout */
    const real *w;    /* (E,2F,D) up or (E,D,F) down */
    const stat *gate; /* (n,K) */
    const real *in;   /* (M,2F) h or dh, or (M,F) a */
    real *out;        /* (M,2F) h or dh, or (M,D) y or dx */
    real *a;          /* (M,F) */
    stat *dgate;      /* (n,K) */
};

/* What all six ops begin with.  The tiles lie in the lane's scratch: the caller gives it back. */
static inline struct experts experts_cut(struct lane *l, const int32_t *at, const int32_t *count,
                                         const int32_t *source, int64_t e, int64_t k, int64_t d,
                                         int64_t f)
{
    struct experts x = {.at = at, .count = count, .source = source, .e = e, .k = k, .d = d, .f = f};
    int64_t n = 0;
    for (int64_t i = 0; i < e; i++)
        n += task_count(count[i], ROW_ALIGN);
    x.tile = arena_take(&l->scratch, n * (int64_t)sizeof *x.tile);
    for (int64_t i = 0; i < e; i++)
        for (int64_t j = 0; j < count[i]; j += ROW_ALIGN)
            x.tile[x.tiles++] = (struct tile){i, at[i] + j, MIN(ROW_ALIGN, count[i] - j)};
    return x;
}

/* out (rows,D): the source rows of a tile. */
static inline void experts_gather(const struct experts *x, const struct tile *t, real *out)
{
    for (int64_t i = 0; i < t->rows; i++)
        memcpy(out + i * x->d, x->x + x->source[t->at + i] / x->k * x->d,
               (size_t)x->d * sizeof *out);
}

#endif
