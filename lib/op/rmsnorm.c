/* rmsnorm.c -- y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradients. */
#include "real.h"
#include "vec.h"

struct norm {
    real *y;       /* (T,D) */
    stat *rstd;    /* (T) */
    const real *x; /* (T,D) */
    real *sum;     /* (T,D) x, where it is a + b and to be written; else NULL */
    const real *a, *b;
    const real *w;   /* (D) */
    const real *dy;  /* (T,D) */
    const real *res; /* (T,D) or NULL */
    double *part;    /* (tasks,D) sums over a task's rows */
    double eps;
    int64_t t, d, rows; /* rows a task */
};

static void norm_rows(void *arg, int64_t task, void *scratch)
{
    const struct norm *n = arg;
    int64_t d = n->d, end = MIN(n->t, (task + 1) * n->rows);
    for (int64_t i = task * n->rows; i < end; i++) {
        const real *x = n->x + i * d;
        real *y = n->y + i * d;
        for (int64_t j = 0; n->sum && j < d; j++)
            n->sum[i * d + j] = n->a[i * d + j] + n->b[i * d + j];
        real rstd = (real)(1 / sqrt(vec_dot(x, x, d) / (double)d + n->eps));
        n->rstd[i] = rstd;
        for (int64_t j = 0; j < d; j++)
            y[j] = x[j] * rstd * n->w[j];
    }
}

void OPNAME(rmsnorm)(struct lane *l, void *y, void *rstd, const void *x, const void *w, int64_t t,
                     int64_t d, double eps)
{
    struct norm n = {y, rstd, x, .w = w, .eps = eps, .t = t, .d = d, .rows = rows_per_task(d)};
    lane_for(l, task_count(t, n.rows), norm_rows, &n, 0);
}

void OPNAME(add_rmsnorm)(struct lane *l, void *y, void *rstd, void *x, const void *a, const void *b,
                         const void *w, int64_t t, int64_t d, double eps)
{
    struct norm n = {y, rstd, x, x, a, b, .w = w, .eps = eps, .t = t, .d = d};
    n.rows = rows_per_task(d);
    lane_for(l, task_count(t, n.rows), norm_rows, &n, 0);
}

/* With g = dy w: dx = rstd (g - x rstd^2 mean(g x)).  */
static void norm_grad_row(const struct norm *n, int64_t i, double *dw /* (D) */, real *g /* (D) */)
{
    int64_t d = n->d;
    const real *x = n->x + i * d, *dy = n->dy + i * d, *res = n->res ? n->res + i * d : NULL;
    real *dx = n->y + i * d, rstd = n->rstd[i];
    for (int64_t j = 0; j < d; j++) {
        g[j] = dy[j] * n->w[j];
        dw[j] += (double)dy[j] * (double)x[j] * (double)rstd;
    }
    real along = (real)(vec_dot(g, x, d) * (double)rstd * (double)rstd / (double)d);
    for (int64_t j = 0; j < d; j++)
        g[j] = rstd * (g[j] - x[j] * along);
    for (int64_t j = 0; j < d; j++)
        dx[j] = res ? res[j] + g[j] : g[j];
}

static void norm_grad_rows(void *arg, int64_t task, void *scratch)
{
    const struct norm *n = arg;
    int64_t d = n->d, end = MIN(n->t, (task + 1) * n->rows);
    double *part = n->part + task * d;
    memset(part, 0, (size_t)d * sizeof *part);
    for (int64_t i = task * n->rows; i < end; i++)
        norm_grad_row(n, i, part, scratch);
}

void OPNAME(rmsnorm_grad)(struct lane *l, void *dx, struct mat dw, const void *dres, const void *dy,
                          const void *x, const void *w, const void *rstd, int64_t t, int add)
{
    stat *sum = grad_stat("rmsnorm_grad", dw);
    int64_t d = dw.cols;
    struct norm n = {dx, (stat *)rstd, x, .w = w, .dy = dy, .res = dres, .t = t, .d = d};
    n.rows = rows_per_task(d);
    int64_t tasks = task_count(t, n.rows);
    struct arena_mark mark = arena_mark(&l->scratch);
    n.part = arena_take(&l->scratch, tasks * d * (int64_t)sizeof *n.part);
    lane_for(l, tasks, norm_grad_rows, &n, d * (int64_t)sizeof(real));
    for (int64_t i = 1; i < tasks; i++)
        for (int64_t j = 0; j < d; j++)
            n.part[j] += n.part[i * d + j];
    for (int64_t j = 0; j < d; j++)
        sum[j] = (add ? sum[j] : 0) + (tasks ? (stat)n.part[j] : 0);
    arena_back(&l->scratch, mark);
}
