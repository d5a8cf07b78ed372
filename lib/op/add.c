/* add.c -- y = a + b. */
#include "real.h"
#include "vec.h"

struct sum {
    real *y; /* (N) */
    const real *a, *b;
    int64_t n, block;
};

static void add_block(void *arg, int64_t task, void *scratch)
{
    const struct sum *s = arg;
    int64_t end = MIN(s->n, (task + 1) * s->block);
    for (int64_t i = task * s->block; i < end; i++)
        s->y[i] = s->a[i] + s->b[i];
}

void OPNAME(add)(struct lane *l, void *y, const void *a, const void *b, int64_t n)
{
    struct sum s = {y, a, b, n, rows_per_task(1)};
    lane_for(l, task_count(n, s.block), add_block, &s, 0);
}
