/* latent.c -- what latent attention does with heads between its products: turning the part that has
 * positions, in pairs of neighbours, and joining what is each head's own with what all share. */
#include "real.h"
#include "vec.h"

struct latent { /* letters as in op_list.h */
    real *y, *kv, *db, *dshared;
    const real *b, *shared, *dkv;
    const int32_t *position;
    const stat *freq;
    int64_t t, h, c, cv, n, ld, block;
    double size, sign; /* sign: of the angle */
};

static void turn_rows(void *arg, int64_t task, void *scratch)
{
    const struct latent *x = arg;
    int64_t half = x->n / 2, end = MIN(x->t, (task + 1) * x->block);
    real *cosine = scratch, *sine = cosine + half;
    for (int64_t i = task * x->block; i < end; i++) {
        for (int64_t j = 0; j < half; j++) {
            double angle = (double)x->position[i] * (double)x->freq[j];
            cosine[j] = (real)(x->size * cos(angle));
            sine[j] = (real)(x->size * x->sign * sin(angle));
        }
        for (int64_t h = 0; h < x->h; h++) {
            real *y = x->y + (i * x->h + h + 1) * x->c - x->n;
            for (int64_t j = 0; j < half; j++) {
                real u = y[2 * j], v = y[2 * j + 1];
                y[2 * j] = u * cosine[j] - v * sine[j];
                y[2 * j + 1] = v * cosine[j] + u * sine[j];
            }
        }
    }
}

void OPNAME(turn_pairs)(struct lane *l, void *y, const int32_t *position, const void *freq,
                        int64_t t, int64_t h, int64_t c, int64_t n, double size, int back)
{
    struct latent x = {.y = y, .position = position, .freq = freq, .t = t, .h = h, .c = c, .n = n};
    x.size = size;
    x.sign = back ? -1 : 1;
    x.block = rows_per_task(h * n + 16 * n); /* sines cost more than products */
    lane_for(l, task_count(t, x.block), turn_rows, &x, n * (int64_t)sizeof(real));
}

static void join_rows(void *arg, int64_t task, void *scratch)
{
    const struct latent *x = arg;
    int64_t own = x->c - x->n, end = MIN(x->t, (task + 1) * x->block);
    size_t size = sizeof(real);
    for (int64_t i = task * x->block; i < end; i++) {
        real *k = x->kv + i * x->h * (x->c + x->cv), *v = k + x->h * x->c;
        const real *b = x->b + i * x->h * (own + x->cv);
        for (int64_t h = 0; h < x->h; h++, k += x->c, v += x->cv, b += own + x->cv) {
            memcpy(k, b, (size_t)own * size);
            memcpy(k + own, x->shared + i * x->ld, (size_t)x->n * size);
            memcpy(v, b + own, (size_t)x->cv * size);
        }
    }
}

void OPNAME(join_heads)(struct lane *l, void *kv, const void *b, const void *shared, int64_t t,
                        int64_t h, int64_t c, int64_t cv, int64_t n, int64_t ld)
{
    struct latent x = {
        .kv = kv, .b = b, .shared = shared, .t = t, .h = h, .c = c, .cv = cv, .n = n, .ld = ld};
    x.block = rows_per_task(h * (c + cv));
    lane_for(l, task_count(t, x.block), join_rows, &x, 0);
}

static void part_rows(void *arg, int64_t task, void *scratch)
{
    const struct latent *x = arg;
    int64_t own = x->c - x->n, end = MIN(x->t, (task + 1) * x->block);
    double *sum = scratch; /* (N) */
    for (int64_t i = task * x->block; i < end; i++) {
        const real *k = x->dkv + i * x->h * (x->c + x->cv), *v = k + x->h * x->c;
        real *b = x->db + i * x->h * (own + x->cv);
        memset(sum, 0, (size_t)x->n * sizeof *sum);
        for (int64_t h = 0; h < x->h; h++, k += x->c, v += x->cv, b += own + x->cv) {
            memcpy(b, k, (size_t)own * sizeof *b);
            memcpy(b + own, v, (size_t)x->cv * sizeof *b);
            for (int64_t j = 0; j < x->n; j++)
                sum[j] += (double)k[own + j];
        }
        for (int64_t j = 0; j < x->n; j++)
            x->dshared[i * x->ld + j] = (real)sum[j];
    }
}

void OPNAME(part_heads)(struct lane *l, void *db, void *dshared, const void *dkv, int64_t t,
                        int64_t h, int64_t c, int64_t cv, int64_t n, int64_t ld)
{
    struct latent x = {.db = db,
                       .dshared = dshared,
                       .dkv = dkv,
                       .t = t,
                       .h = h,
                       .c = c,
                       .cv = cv,
                       .n = n,
                       .ld = ld};
    x.block = rows_per_task(h * (c + cv));
    lane_for(l, task_count(t, x.block), part_rows, &x, n * (int64_t)sizeof(double));
}
