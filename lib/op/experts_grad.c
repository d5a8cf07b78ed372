/* experts_grad.c -- SwiGLU experts, backward: gradients of activation, input and weights.
 *
 * Weight gradients sum over an expert's rows inside one product, cut by rows of the weight, so that
 * no two tasks add to the same element. */
#include "experts.h"

enum { WEIGHT_ROWS = 128 }; /* of a weight gradient a task */

static void dh_tile(void *arg, int64_t task, void *scratch)
{
    const struct experts *x = arg;
    const struct tile *t = &x->tile[task];
    int64_t d = x->d, f = x->f;
    real *rows = scratch, *da = rows + ROW_ALIGN * d; /* (rows,D), (rows,F) */
    experts_gather(x, t, rows);
    product(da, f, t->rows, f, d, 1, (struct factor){rows, d, 0},
            (struct factor){x->w + t->expert * d * f, f, 0}, 0);
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t m = t->at + i, choice = x->source[m];
        const real *h = x->in + m * 2 * f;
        real *dh = x->out + m * 2 * f;
        if (dh != h)
            memcpy(dh, h, (size_t)(2 * f) * sizeof *dh);
        x->dgate[choice] =
            (stat)swiglu_row_dgrad(dh, dh + f, x->a + m * f, da + i * f, x->gate[choice], f);
    }
    int64_t end = t->at + t->rows, pads = (ROW_ALIGN - end % ROW_ALIGN) % ROW_ALIGN;
    memset(x->out + end * 2 * f, 0, (size_t)(pads * 2 * f) * sizeof(real));
    memset(x->a + end * f, 0, (size_t)(pads * f) * sizeof(real));
}

void OPNAME(experts_dh)(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                        const void *down, const void *h, const void *gate, const int32_t *at,
                        const int32_t *count, const int32_t *source, int64_t n, int64_t e,
                        int64_t k, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    struct experts m = experts_cut(l, at, count, source, e, k, d, f);
    m.x = dout;
    m.w = down;
    m.gate = gate;
    m.in = h;
    m.out = dh;
    m.a = a;
    m.dgate = dgate;
    memset(dgate, 0, (size_t)(n * k) * sizeof(stat));
    lane_for(l, m.tiles, dh_tile, &m, ROW_ALIGN * (d + f) * (int64_t)sizeof(real));
    arena_back(&l->scratch, mark);
}

static void dx_tile(void *arg, int64_t task, void *scratch)
{
    const struct experts *x = arg;
    const struct tile *t = &x->tile[task];
    product(x->out + t->at * x->d, x->d, t->rows, x->d, 2 * x->f, 1,
            (struct factor){x->in + t->at * 2 * x->f, 2 * x->f, 0},
            (struct factor){x->w + t->expert * 2 * x->f * x->d, x->d, 0}, 0);
}

void OPNAME(experts_dx)(struct lane *l, void *dx, const void *dh, const void *up, const int32_t *at,
                        const int32_t *count, int64_t e, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    struct experts m = experts_cut(l, at, count, NULL, e, 1, d, f);
    m.w = up;
    m.in = dh;
    m.out = dx;
    lane_for(l, m.tiles, dx_tile, &m, 0);
    arena_back(&l->scratch, mark);
}

/* dw_e (rows,cols) = or += left_e^T right_e, over the rows of expert e. */
struct wgrad {
    const struct experts *x;
    real *gathered; /* (M,D) */
    stat *dw;       /* (E,rows,cols) */
    const real *left, *right;
    int64_t rows, cols, strips;
    int add;
};

static void gather_tile(void *arg, int64_t task, void *scratch)
{
    const struct wgrad *w = arg;
    const struct tile *t = &w->x->tile[task];
    experts_gather(w->x, t, w->gathered + t->at * w->x->d);
}

static void wgrad_strip(void *arg, int64_t task, void *scratch)
{
    const struct wgrad *w = arg;
    int64_t e = task / w->strips, row = task % w->strips * WEIGHT_ROWS, at = w->x->at[e];
    if (w->x->count[e] || !w->add)
        product(w->dw + (e * w->rows + row) * w->cols, w->cols, MIN(WEIGHT_ROWS, w->rows - row),
                w->cols, w->x->count[e], 1,
                (struct factor){w->left + at * w->rows + row, w->rows, 1},
                (struct factor){w->right + at * w->cols, w->cols, 0}, w->add);
}

/* Takes dw and either left or right; the other is gathered from x. */
static void wgrad_all(struct lane *l, struct experts *x, struct wgrad *w)
{
    w->x = x;
    w->gathered = arena_take(&l->scratch, x->at[x->e] * x->d * (int64_t)sizeof *w->gathered);
    *(w->left ? &w->right : &w->left) = w->gathered;
    w->strips = task_count(w->rows, WEIGHT_ROWS);
    lane_for(l, x->tiles, gather_tile, w, 0);
    lane_for(l, x->e * w->strips, wgrad_strip, w, 0);
}

void OPNAME(experts_up_wgrad)(struct lane *l, struct mat dw, const void *dh, const void *x,
                              const int32_t *at, const int32_t *count, const int32_t *source,
                              int64_t live, int64_t e, int64_t k, int add, void *squares)
{
    int64_t d = dw.cols, f = dw.rows / e / 2;
    struct wgrad w = {.left = dh, .rows = 2 * f, .cols = d, .add = add};
    struct arena_mark mark = arena_mark(&l->scratch);
    struct experts m = experts_cut(l, at, count, source, e, k, d, f);
    m.x = x;
    w.dw = grad_stat("experts_up_wgrad", dw);
    wgrad_all(l, &m, &w);
    if (squares)
        OPNAME(sum_squares)(l, squares, mat(dw.data, dw.type, 1, dw.rows * dw.cols));
    arena_back(&l->scratch, mark);
}

void OPNAME(experts_down_wgrad)(struct lane *l, struct mat dw, const void *dout, const void *a,
                                const int32_t *at, const int32_t *count, const int32_t *source,
                                int64_t live, int64_t e, int64_t k, int add, void *squares)
{
    int64_t d = dw.rows / e, f = dw.cols;
    struct wgrad w = {.right = a, .rows = d, .cols = f, .add = add};
    struct arena_mark mark = arena_mark(&l->scratch);
    struct experts m = experts_cut(l, at, count, source, e, k, d, f);
    m.x = dout;
    w.dw = grad_stat("experts_down_wgrad", dw);
    wgrad_all(l, &m, &w);
    if (squares)
        OPNAME(sum_squares)(l, squares, mat(dw.data, dw.type, 1, dw.rows * dw.cols));
    arena_back(&l->scratch, mark);
}
