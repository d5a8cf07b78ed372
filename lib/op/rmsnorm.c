/* rmsnorm.c -- y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradients. */
#include "real.h"
#include "vec.h"

struct norm {
    real *y;         /* (T,D) */
    stat *rstd;      /* (T) */
    const real *x;   /* (T,D) */
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
        real rstd = (real)(1 / sqrt(vec_dot(x, x, d) / (double)d + n->eps));
        n->rstd[i] = rstd;
        for (int64_t j = 0; j < d; j++)
            y[j] = x[j] * rstd * n->w[j];
    }
}

void OPNAME(rmsnorm)(struct lane *l, void *y, void *rstd, const void *x, const void *w, int64_t t,
                     int64_t d, double eps)
{
    struct norm n = {y, rstd, x, w, .eps = eps, .t = t, .d = d, .rows = rows_per_task(d)};
    lane_for(l, task_count(t, n.rows), norm_rows, &n, 0);
}

/* With g = dy w: dx = rstd (g - x rstd^2 mean(g x)). */
static void norm_dgrad_rows(void *arg, int64_t task, void *scratch)
{
    const struct norm *n = arg;
    int64_t d = n->d, end = MIN(n->t, (task + 1) * n->rows);
    real *g = scratch; /* (D) */
    for (int64_t i = task * n->rows; i < end; i++) {
        const real *x = n->x + i * d, *dy = n->dy + i * d;
        const real *res = n->res ? n->res + i * d : NULL;
        real *dx = n->y + i * d;
        real rstd = n->rstd[i];
        for (int64_t j = 0; j < d; j++)
            g[j] = dy[j] * n->w[j];
        real along = (real)(vec_dot(g, x, d) * (double)rstd * (double)rstd / (double)d);
        for (int64_t j = 0; j < d; j++)
            g[j] = rstd * (g[j] - x[j] * along);
        for (int64_t j = 0; j < d; j++)
            dx[j] = res ? res[j] + g[j] : g[j];
    }
}

void OPNAME(rmsnorm_dgrad)(struct lane *l, void *dx, const void *dres, const void *dy,
                           const void *x, const void *w, const void *rstd, int64_t t, int64_t d)
{
    struct norm n = {dx, (stat *)rstd, x, w, dy, dres, .t = t, .d = d, .rows = rows_per_task(d)};
    lane_for(l, task_count(t, n.rows), norm_dgrad_rows, &n, d * (int64_t)sizeof(real));
}

static void norm_wgrad_rows(void *arg, int64_t task, void *scratch)
{
    const struct norm *n = arg;
    int64_t d = n->d, end = MIN(n->t, (task + 1) * n->rows);
    double *part = n->part + task * d;
    memset(part, 0, (size_t)d * sizeof *part);
    for (int64_t i = task * n->rows; i < end; i++) {
        const real *x = n->x + i * d, *dy = n->dy + i * d;
        double rstd = (double)n->rstd[i];
        for (int64_t j = 0; j < d; j++)
            part[j] += (double)dy[j] * (double)x[j] * rstd;
    }
}

void OPNAME(rmsnorm_wgrad)(struct lane *l, struct mat dw, const void *dy, const void *x,
                           const void *rstd, int64_t t, int add)
{
    stat *w = grad_stat("rmsnorm_wgrad", dw);
    int64_t d = dw.cols;
    struct norm n = {NULL, (stat *)rstd, x, .dy = dy, .t = t, .d = d, .rows = rows_per_task(d)};
    int64_t tasks = task_count(t, n.rows);
    struct arena_mark mark = arena_mark(&l->scratch);
    n.part = arena_take(&l->scratch, tasks * d * (int64_t)sizeof *n.part);
    lane_for(l, tasks, norm_wgrad_rows, &n, 0);
    for (int64_t i = 1; i < tasks; i++)
        for (int64_t j = 0; j < d; j++)
            n.part[j] += n.part[i * d + j];
    for (int64_t j = 0; j < d; j++)
        w[j] = (add ? w[j] : 0) + (tasks ? (stat)n.part[j] : 0);
    arena_back(&l->scratch, mark);
}
