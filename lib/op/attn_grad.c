/* attn_grad.c -- causal softmax attention over spans, backward.
 *
 * Probabilities come back from lse: P = exp(scale QK^T - lse), dV = P^T dO, dS = P (dO V^T - delta)
 * scale with delta = <dO, O>, dQ = dS K, dK = dS^T Q (Dao et al. 2022).  Several query heads add to
 * the dk and dv of their key/value head, and spans may share keys (two chunks of one document), so
 * a task is a run of spans that share keys, one key/value head: nobody else adds to these rows. */
#include "attn.h"

/* probabilities (TILE_Q,TILE_K) from scores, in place; 0 where masked. */
static void tile_prob(real *s, int64_t rows, int64_t keys, const int64_t *seen, const stat *lse,
                      int64_t lse_ld)
{
    for (int64_t i = 0; i < rows; i++, s += TILE_K) {
        int64_t n = MAX(0, MIN(keys, seen[i]));
        for (int64_t j = 0; j < whole_lanes(n); j++)
            s[j] = real_exp(s[j] - (real)lse[i * lse_ld]);
        for (int64_t j = n; j < keys; j++)
            s[j] = 0;
    }
}

/* Adds what head h of rows queries, from query `first` of span i, gives to dq, dk and dv. */
static void dgrad_tile(const struct attn *a, int64_t i, int64_t first, int64_t rows, int64_t h,
                       real *scratch)
{
    int64_t c = a->c, cv = a->cv, queries = a->s.q_at[i + 1] - a->s.q_at[i],
            keys = a->s.k_end[i] - a->s.k_beg[i];
    int64_t t = a->s.q_at[i] + first, kv = h / (a->h / a->g), ldo = a->h * cv, seen[TILE_Q];
    real delta[TILE_Q], *p = scratch, *ds = p + TILE_Q * TILE_K; /* (TILE_Q,TILE_K) */
    struct factor q = {a->q + t * a->ldq + h * c, a->ldq, 0};
    struct factor d_o = {a->d_o + t * ldo + h * cv, ldo, 0};
    real *dq = a->dq + t * a->ldq + h * c;
    for (int64_t j = 0; j < rows; j++) {
        memset(dq + j * a->ldq, 0, (size_t)c * sizeof *dq);
        delta[j] = (real)vec_dot(d_o.x + j * ldo, a->o + (t + j) * ldo + h * cv, cv);
    }
    int64_t last = keys_seen(queries, keys, first + rows - 1);
    for (int64_t at = 0; at < last; at += TILE_K) {
        int64_t n = MIN(TILE_K, last - at), row = (a->s.k_beg[i] + at) * a->ldk;
        int64_t row_k = row + kv * c, row_v = row + kv * cv;
        struct factor k = {a->k + row_k, a->ldk, 0}, k_t = {a->k + row_k, a->ldk, 1};
        struct factor v_t = {a->v + row_v, a->ldk, 1};
        product(p, TILE_K, rows, n, c, a->scale, q, k_t, 0);
        for (int64_t j = 0; j < rows; j++)
            seen[j] = keys_seen(queries, keys, first + j) - at;
        tile_prob(p, rows, n, seen, a->lse + t * a->h + h, a->h);
        product(ds, TILE_K, rows, n, cv, 1, d_o, v_t, 0);
        for (int64_t j = 0; j < rows; j++)
            for (int64_t x = j * TILE_K; x < j * TILE_K + n; x++)
                ds[x] = p[x] * (ds[x] - delta[j]);
        product(a->dv + row_v, a->ldk, n, cv, rows, 1, (struct factor){p, TILE_K, 1}, d_o, 1);
        product(a->dk + row_k, a->ldk, n, c, rows, a->scale, (struct factor){ds, TILE_K, 1}, q, 1);
        product(dq, a->ldq, rows, c, n, a->scale, (struct factor){ds, TILE_K, 0}, k, 1);
    }
}

static void dgrad_task(void *arg, int64_t task, void *scratch)
{
    const struct attn *a = arg;
    int64_t run = task / a->g, g = task % a->g, heads = a->h / a->g;
    for (int64_t i = a->list[run * 2]; i < a->list[run * 2 + 1]; i++) {
        int64_t queries = a->s.q_at[i + 1] - a->s.q_at[i];
        for (int64_t first = 0; first < queries; first += TILE_Q)
            for (int64_t h = g * heads; h < (g + 1) * heads; h++)
                dgrad_tile(a, i, first, MIN(TILE_Q, queries - first), h, scratch);
    }
}

static void zero_rows(void *arg, int64_t task, void *scratch)
{
    const struct attn *a = arg;
    size_t k_bytes = (size_t)(a->g * a->c) * sizeof(real);
    size_t v_bytes = (size_t)(a->g * a->cv) * sizeof(real);
    for (int64_t i = task * a->rows; i < MIN(a->tk, (task + 1) * a->rows); i++) {
        memset(a->dk + i * a->ldk, 0, k_bytes);
        memset(a->dv + i * a->ldk, 0, v_bytes);
    }
}

/* Writes { first, end } of each run of spans that share no key with another run; returns how many.
 * Spans come mostly in order of their keys; one that reaches back joins all runs it reaches. */
static int64_t span_runs(const struct attn *a, int32_t *run /* (spans,2) */,
                         int32_t *key_end /* (spans) */)
{
    int64_t n = 0;
    for (int64_t i = 0; i < a->s.n; i++) {
        if (a->s.q_at[i + 1] == a->s.q_at[i])
            continue;
        int32_t first = (int32_t)i, end = n ? key_end[n - 1] : 0;
        if (a->s.k_end[i] > a->s.k_beg[i]) {
            end = MAX(end, a->s.k_end[i]);
            for (; n && key_end[n - 1] > a->s.k_beg[i]; n--)
                first = run[n * 2 - 2];
        }
        run[n * 2] = first;
        run[n * 2 + 1] = (int32_t)i + 1;
        key_end[n++] = end;
    }
    return n;
}

void OPNAME(attn_dgrad)(struct lane *l, void *dq, void *dk, void *dv, const void *d_o,
                        const void *q, const void *k, const void *v, const void *o, const void *lse,
                        struct spans s, int64_t tk, int64_t h, int64_t g, int64_t c, int64_t cv,
                        int64_t ldq, int64_t ldk, double scale)
{
    struct attn a = {(real *)o, (stat *)lse, q, k, v, dq, dk, dv, d_o};
    a.s = s;
    attn_sizes(&a, h, g, c, cv, ldq, ldk, scale);
    a.tk = tk;
    a.rows = rows_per_task(g * (c + cv));
    struct arena_mark mark = arena_mark(&l->scratch);
    a.list = arena_take(&l->scratch, s.n * 3 * (int64_t)sizeof *a.list);
    int64_t runs = span_runs(&a, a.list, a.list + s.n * 2);
    lane_for(l, task_count(tk, a.rows), zero_rows, &a, 0);
    lane_for(l, runs * g, dgrad_task, &a, 2 * TILE_Q * TILE_K * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}
