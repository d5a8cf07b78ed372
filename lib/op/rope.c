/* rope.c -- rotary position embedding in place, half layout: element i pairs with i + C/2.
 *
 * The sines of a position serve all heads, and where documents are packed the same low positions
 * come again and again; so they are tabulated, unless positions go higher than there are tokens. */
#include "real.h"
#include "vec.h"

struct rope {
    real *x;                 /* (T,heads,C), rows ld apart */
    const int32_t *position; /* (T) */
    const stat *freq;        /* (C/2) */
    real *table;             /* (positions,2,C/2) cos, sin; or NULL */
    int64_t t, heads, c, ld, rows, positions;
    int sign;
};

static void rope_turn(const struct rope *r, real *turn /* (2,C/2) */, int64_t position)
{
    for (int64_t i = 0; i < r->c / 2; i++) {
        double angle = (double)position * (double)r->freq[i];
        turn[i] = (real)cos(angle);
        turn[r->c / 2 + i] = (real)(r->sign * sin(angle));
    }
}

static void rope_tabulate(void *arg, int64_t task, void *scratch)
{
    const struct rope *r = arg;
    int64_t end = MIN(r->positions, (task + 1) * r->rows);
    for (int64_t i = task * r->rows; i < end; i++)
        rope_turn(r, r->table + i * r->c, i);
}

static void rope_rows(void *arg, int64_t task, void *scratch)
{
    const struct rope *r = arg;
    int64_t half = r->c / 2, end = MIN(r->t, (task + 1) * r->rows);
    for (int64_t i = task * r->rows; i < end; i++) {
        const real *turn = scratch;
        if (r->table)
            turn = r->table + r->position[i] * r->c;
        else
            rope_turn(r, scratch, r->position[i]);
        for (int64_t h = 0; h < r->heads; h++) {
            real *x = r->x + i * r->ld + h * r->c, *y = x + half;
            for (int64_t j = 0; j < half; j++) {
                real u = x[j], v = y[j];
                x[j] = u * turn[j] - v * turn[half + j];
                y[j] = v * turn[j] + u * turn[half + j];
            }
        }
    }
}

void OPNAME(rope)(struct lane *l, void *x, const int32_t *position, const void *freq, int64_t t,
                  int64_t heads, int64_t c, int64_t ld, int sign)
{
    struct rope r = {x, position, freq, NULL, t, heads, c, ld, .sign = sign};
    r.rows = rows_per_task(heads * c);
    int64_t lowest = 0;
    for (int64_t i = 0; i < t; i++) {
        r.positions = MAX(r.positions, position[i] + 1);
        lowest = MIN(lowest, position[i]);
    }
    struct arena_mark mark = arena_mark(&l->scratch);
    if (r.positions <= t && lowest >= 0) {
        r.table = arena_take(&l->scratch, r.positions * c * (int64_t)sizeof *r.table);
        lane_for(l, task_count(r.positions, r.rows), rope_tabulate, &r, 0);
    }
    lane_for(l, task_count(t, r.rows), rope_rows, &r, c * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}
