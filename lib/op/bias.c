/* bias.c -- the same row added to every token's, and its gradient: a sum over tokens. */
#include "real.h"
#include "vec.h"

struct bias {
    real *y;       /* (T,N) */
    const real *b; /* (N) */
    const real *dy;
    stat *db; /* (N) */
    int64_t t, n, block;
    int add;
};

static void rows_add(void *arg, int64_t task, void *scratch)
{
    const struct bias *x = arg;
    int64_t end = MIN(x->t, (task + 1) * x->block);
    for (int64_t i = task * x->block; i < end; i++)
        for (int64_t j = 0; j < x->n; j++)
            x->y[i * x->n + j] += x->b[j];
}

void OPNAME(add_bias)(struct lane *l, void *y, const void *b, int64_t t, int64_t n)
{
    struct bias x = {.y = y, .b = b, .t = t, .n = n, .block = rows_per_task(n)};
    lane_for(l, task_count(t, x.block), rows_add, &x, 0);
}

enum { COLUMNS = 64 }; /* of a task */

static void columns_sum(void *arg, int64_t task, void *scratch)
{
    const struct bias *x = arg;
    int64_t lo = task * COLUMNS, n = MIN(COLUMNS, x->n - lo);
    double sum[COLUMNS] = {0};
    for (int64_t i = 0; i < x->t; i++)
        for (int64_t j = 0; j < n; j++)
            sum[j] += (double)x->dy[i * x->n + lo + j];
    for (int64_t j = 0; j < n; j++)
        x->db[lo + j] = (stat)(sum[j] + (x->add ? (double)x->db[lo + j] : 0));
}

void OPNAME(bias_wgrad)(struct lane *l, struct mat dw, const void *dy, int64_t t, int add)
{
    struct bias x = {.dy = dy, .t = t, .n = dw.cols, .add = add};
    x.db = grad_stat("bias_wgrad", dw);
    lane_for(l, task_count(x.n, COLUMNS), columns_sum, &x, 0);
}
