/* rows.c -- rows moved by an index: gathered, scattered, gathered and summed. */
#include "real.h"
#include "vec.h"

struct rows {
    struct mat y, x;
    const char *res; /* rows of gather_sum to begin with, or NULL */
    const int32_t *row;
    int64_t k, block;
    int64_t bytes; /* of a row */
};

static char *row_at(const struct mat *m, int64_t i)
{
    return (char *)m->data + i * m->ld * dtype_size(m->type);
}

static struct rows rows_of(struct mat y, struct mat x, const int32_t *row, int64_t k)
{
    if (y.type != x.type || y.cols != x.cols)
        die("moving rows: %s of %lld and %s of %lld columns", dtype_name(y.type), (long long)y.cols,
            dtype_name(x.type), (long long)x.cols);
    return (struct rows){y, x, NULL, row, k, rows_per_task(y.cols), y.cols * dtype_size(y.type)};
}

static void rows_gather(void *arg, int64_t task, void *scratch)
{
    const struct rows *r = arg;
    int64_t end = MIN(r->y.rows, (task + 1) * r->block);
    for (int64_t i = task * r->block; i < end; i++) {
        if (r->row[i] < 0)
            memset(row_at(&r->y, i), 0, (size_t)r->bytes);
        else
            memcpy(row_at(&r->y, i), row_at(&r->x, r->row[i]), (size_t)r->bytes);
    }
}

void OPNAME(gather_rows)(struct lane *l, struct mat y, struct mat x, const int32_t *row)
{
    struct rows r = rows_of(y, x, row, 1);
    lane_for(l, task_count(y.rows, r.block), rows_gather, &r, 0);
}

static void rows_scatter(void *arg, int64_t task, void *scratch)
{
    const struct rows *r = arg;
    int64_t end = MIN(r->x.rows, (task + 1) * r->block);
    for (int64_t i = task * r->block; i < end; i++)
        if (r->row[i] >= 0)
            memcpy(row_at(&r->y, r->row[i]), row_at(&r->x, i), (size_t)r->bytes);
}

void OPNAME(scatter_rows)(struct lane *l, struct mat y, struct mat x, const int32_t *row)
{
    struct rows r = rows_of(y, x, row, 1);
    lane_for(l, task_count(x.rows, r.block), rows_scatter, &r, 0);
}

static void rows_sum(void *arg, int64_t task, void *scratch)
{
    const struct rows *r = arg;
    int64_t n = r->y.cols, end = MIN(r->y.rows, (task + 1) * r->block);
    for (int64_t i = task * r->block; i < end; i++) {
        real *y = (real *)row_at(&r->y, i);
        if (r->res)
            memcpy(y, r->res + i * r->bytes, (size_t)r->bytes);
        else
            memset(y, 0, (size_t)r->bytes);
        for (int64_t j = 0; j < r->k; j++) {
            int32_t row = r->row[i * r->k + j];
            if (row < 0)
                continue;
            const real *x = (const real *)row_at(&r->x, row);
            for (int64_t c = 0; c < n; c++)
                y[c] += x[c];
        }
    }
}

void OPNAME(gather_sum)(struct lane *l, struct mat y, const void *res, struct mat x,
                        const int32_t *place, int64_t k)
{
    struct rows r = rows_of(y, x, place, k);
    r.res = res;
    if (y.type != REAL_TYPE)
        die("gather_sum: %s where %s is due", dtype_name(y.type), dtype_name(REAL_TYPE));
    lane_for(l, task_count(y.rows, r.block), rows_sum, &r, 0);
}
