/* attn.h -- what attention forward (attn.c) and backward (attn_grad.c) share: the spans, their
 * tiles and the mask.
 *
 * Queries and keys are cut into tiles, so that scores of a tile stay in the cache and memory does
 * not grow with the length of a document. */
#ifndef ATTN_H
#define ATTN_H

#include "real.h"
#include "blas.h"
#include "vec.h"

enum { TILE_Q = 32, TILE_K = 128 };

struct attn {
    real *o;            /* (Tq,H,Cv) */
    stat *lse;          /* (Tq,H) */
    const real *q;      /* (Tq,H,C), rows ldq apart */
    const real *k, *v;  /* (Tk,G,C), (Tk,G,Cv), rows ldk apart */
    real *dq, *dk, *dv; /* as q, k, v */
    const real *d_o;    /* (Tq,H,Cv) */
    struct spans s;
    int64_t h, g, c, cv, ldq, ldk;
    double scale;
    int32_t *list;    /* (tasks,2) what is done in parallel: attn.c, attn_grad.c */
    int64_t tk, rows; /* rows of dk and dv, and those a task zeroes */
};

static inline void attn_sizes(struct attn *a, int64_t h, int64_t g, int64_t c, int64_t cv,
                              int64_t ldq, int64_t ldk, double scale)
{
    a->h = h;
    a->g = g;
    a->c = c;
    a->cv = cv;
    a->ldq = ldq;
    a->ldk = ldk;
    a->scale = scale;
}

/* How many keys query j of a span sees: all of them for the last, one less for each before. */
static inline int64_t keys_seen(int64_t queries, int64_t keys, int64_t j)
{
    return MAX(0, keys - (queries - 1 - j));
}

#endif
