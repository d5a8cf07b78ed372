/* attn.c -- causal softmax attention over spans, forward.
 *
 * One pass over the keys with a running maximum (Milakov & Gimelshein 2018, Dao et al. 2022): when
 * a tile of keys raises the maximum, what was summed so far is scaled down.  A task is a tile of
 * queries of one span, all heads. */
#include "attn.h"

struct running { /* of one query tile and head */
    double max[TILE_Q], sum[TILE_Q];
    real *o; /* (TILE_Q,Cv) */
};

/* scores (TILE_Q,TILE_K) become probabilities against the new maximum, 0 where masked.  Rows are
 * worked on in whole vectors, with -inf behind the keys seen. */
static void tile_softmax(struct running *r, real *scores, int64_t rows, int64_t keys, int64_t cv,
                         const int64_t *seen /* (rows) of this tile's keys, any sign */)
{
    for (int64_t i = 0; i < rows; i++) {
        real *s = scores + i * TILE_K;
        int64_t n = MAX(0, MIN(keys, seen[i])), wide = whole_lanes(n);
        for (int64_t j = wide; j < keys; j++)
            s[j] = 0;
        if (!n)
            continue;
        for (int64_t j = n; j < wide; j++)
            s[j] = -INFINITY;
        double max = MAX(r->max[i], (double)vec_max(s, wide)), shrink = exp(r->max[i] - max);
        r->sum[i] = r->sum[i] * shrink + vec_exp(s, s, wide, (real)max);
        r->max[i] = max;
        for (int64_t j = 0; shrink != 1 && j < cv; j++)
            r->o[i * cv + j] *= (real)shrink;
    }
}

/* Head h of rows queries from query `first` of span i. */
static void attn_tile(const struct attn *a, int64_t i, int64_t first, int64_t rows, int64_t h,
                      real *scratch)
{
    int64_t c = a->c, cv = a->cv, queries = a->s.q_at[i + 1] - a->s.q_at[i],
            keys = a->s.k_end[i] - a->s.k_beg[i];
    int64_t t = a->s.q_at[i] + first, kv = h / (a->h / a->g), seen[TILE_Q];
    const real *q = a->q + t * a->ldq + h * c;
    const real *k = a->k + a->s.k_beg[i] * a->ldk + kv * c;
    const real *v = a->v + a->s.k_beg[i] * a->ldk + kv * cv;
    real *scores = scratch; /* (TILE_Q,TILE_K) */
    struct running r = {.o = scores + TILE_Q * TILE_K};
    memset(r.o, 0, (size_t)(rows * cv) * sizeof *r.o);
    for (int64_t j = 0; j < rows; j++)
        r.max[j] = -INFINITY;
    int64_t last = keys_seen(queries, keys, first + rows - 1);
    for (int64_t at = 0; at < last; at += TILE_K) {
        int64_t n = MIN(TILE_K, last - at);
        product(scores, TILE_K, rows, n, c, a->scale, (struct factor){q, a->ldq, 0},
                (struct factor){k + at * a->ldk, a->ldk, 1}, 0);
        for (int64_t j = 0; j < rows; j++)
            seen[j] = keys_seen(queries, keys, first + j) - at;
        tile_softmax(&r, scores, rows, n, cv, seen);
        product(r.o, cv, rows, cv, n, 1, (struct factor){scores, TILE_K, 0},
                (struct factor){v + at * a->ldk, a->ldk, 0}, 1);
    }
    for (int64_t j = 0; j < rows; j++) {
        real *o = a->o + ((t + j) * a->h + h) * cv;
        real share = r.sum[j] > 0 ? (real)(1 / r.sum[j]) : 0;
        a->lse[(t + j) * a->h + h] = (stat)(r.max[j] + log(r.sum[j]));
        for (int64_t x = 0; x < cv; x++)
            o[x] = r.o[j * cv + x] * share;
    }
}

static void attn_task(void *arg, int64_t task, void *scratch)
{
    const struct attn *a = arg;
    int64_t i = a->list[task * 2], first = a->list[task * 2 + 1];
    int64_t rows = MIN(TILE_Q, a->s.q_at[i + 1] - a->s.q_at[i] - first);
    for (int64_t h = 0; h < a->h; h++)
        attn_tile(a, i, first, rows, h, scratch);
}

void OPNAME(attn)(struct lane *l, void *o, void *lse, const void *q, const void *k, const void *v,
                  struct spans s, int64_t h, int64_t g, int64_t c, int64_t cv, int64_t ldq,
                  int64_t ldk, double scale)
{
    struct attn a = {.o = o, .lse = lse, .q = q, .k = k, .v = v};
    a.s = s;
    attn_sizes(&a, h, g, c, cv, ldq, ldk, scale);
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t tasks = 0;
    for (int64_t i = 0; i < s.n; i++)
        tasks += task_count(s.q_at[i + 1] - s.q_at[i], TILE_Q);
    int32_t *next = a.list = arena_take(&l->scratch, tasks * 2 * (int64_t)sizeof *a.list);
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < s.q_at[i + 1] - s.q_at[i]; j += TILE_Q) {
            *next++ = (int32_t)i;
            *next++ = (int32_t)j;
        }
    lane_for(l, tasks, attn_task, &a, TILE_Q * (TILE_K + cv) * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}
