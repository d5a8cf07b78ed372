/* combine.c -- the arithmetic of a reduction: one member's elements into what has been added up so
 * far.
 *
 * Engines call it member by member in rank order, so a sum has the same bits wherever it is taken.
 */
#include "comm/engine.h"

/* A maximum keeps NaN, so that it does not depend on the order. */
#define COMBINERS(suffix, type)                                                                    \
    static void sum_##suffix(void *acc, const void *x, int64_t n)                                  \
    {                                                                                              \
        type *a = acc;                                                                             \
        const type *b = x;                                                                         \
        for (int64_t i = 0; i < n; i++)                                                            \
            a[i] += b[i];                                                                          \
    }                                                                                              \
    static void max_##suffix(void *acc, const void *x, int64_t n)                                  \
    {                                                                                              \
        type *a = acc;                                                                             \
        const type *b = x;                                                                         \
        for (int64_t i = 0; i < n; i++)                                                            \
            if (b[i] > a[i] || b[i] != b[i])                                                       \
                a[i] = b[i];                                                                       \
    }
COMBINERS(f32, float)
COMBINERS(f64, double)
COMBINERS(i32, int32_t)
COMBINERS(i64, int64_t)

typedef void combine_fn(void *acc, const void *x, int64_t n);
static combine_fn *const combiners[DT_COUNT][2] = {
    [DT_F32] = {[COMM_SUM] = sum_f32, [COMM_MAX] = max_f32},
    [DT_F64] = {[COMM_SUM] = sum_f64, [COMM_MAX] = max_f64},
    [DT_I32] = {[COMM_SUM] = sum_i32, [COMM_MAX] = max_i32},
    [DT_I64] = {[COMM_SUM] = sum_i64, [COMM_MAX] = max_i64},
};

void comm_combine(void *acc, const void *x, int64_t n, enum dtype t, enum comm_op op)
{
    combiners[t][op](acc, x, n);
}
