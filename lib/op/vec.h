/* vec.h -- loops over rows that dominate a step, written so that a compiler turns them into vector
 * code without being allowed to reorder sums.
 *
 * A reduction keeps LANES partial results and joins them in order: the result depends on the length
 * alone, not on the width of the machine's vectors. */
#ifndef VEC_H
#define VEC_H

#include "real.h"

enum { LANES = 16 };

#ifdef REAL_F64
static inline double real_exp(double x)
{
    return exp(x);
}
#else
/* e^x to within 2 ulp, 0 below the normal numbers and 2^127.5 above the largest.  x = n ln 2 + r
 * with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the integer n and leaves it in the low bits. ln
 * 2 is split so that n * ln2_high is exact.  The polynomial interpolates (e^r - 1 - r) / r^2 at
 * Chebyshev points, with an error below 2^-26 of e^r. */
static inline float real_exp(float x)
{
    const float round = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    float y = x > 88.37f ? 88.37f : x;
    y = y < -87.33f ? -87.33f : y;
    union {
        float f;
        uint32_t bits;
    } n = {y * 1.44269504f + round}, scale;
    float whole = n.f - round;
    float r = (y - whole * ln2_high) - whole * ln2_low;
    float p = 1.39264004798e-3f;
    p = p * r + 8.36335268256e-3f;
    p = p * r + 4.16665533108e-2f;
    p = p * r + 1.66665759439e-1f;
    p = p * r + 0.5f;
    scale.bits = (n.bits - 0x4b400000u + 127) << 23;
    float e = (r * r * p + r + 1.0f) * scale.f;
    return x < -87.33f ? 0.0f : e;
}
#endif

static inline int64_t whole_lanes(int64_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

static inline double lanes_sum(const double *lane /* (LANES) */)
{
    double sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

static inline double vec_dot(const real *a /* (n) */, const real *b, int64_t n)
{
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += (double)a[i + j] * (double)b[i + j];
    for (int j = 0; i < n; i++, j++)
        lane[j] += (double)a[i] * (double)b[i];
    return lanes_sum(lane);
}

/* Vectors of the compiler, since it finds no maximum in a plain loop: it would have to reorder. */
typedef real real_lanes
    __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

static inline real vec_max(const real *a /* (n) */, int64_t n)
{
    real max = -INFINITY;
    int64_t i = 0;
    if (n >= LANES) {
        real_lanes most = *(const real_lanes *)a;
        for (i = LANES; i + LANES <= n; i += LANES) {
            real_lanes x = *(const real_lanes *)(a + i);
            __typeof__(x > most) more = x > most; /* all bits of a lane, or none */
            most = (real_lanes)(((__typeof__(more))x & more) | ((__typeof__(more))most & ~more));
        }
        for (int j = 0; j < LANES; j++)
            max = most[j] > max ? most[j] : max;
    }
    for (; i < n; i++)
        max = a[i] > max ? a[i] : max;
    return max;
}

static inline double vec_sum(const real *a /* (n) */, int64_t n)
{
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += (double)a[i + j];
    for (int j = 0; i < n; i++, j++)
        lane[j] += (double)a[i];
    return lanes_sum(lane);
}

/* y = e^(a - shift); y may be a.  Returns the sum of y. */
static inline double vec_exp(real *y /* (n) */, const real *a, int64_t n, real shift)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = real_exp(a[i] - shift);
    return vec_sum(y, n);
}

/* Rows of this width a task should take: enough work to be worth handing out. */
static inline int64_t rows_per_task(int64_t width)
{
    return MAX(1, 16384 / MAX(1, width));
}
static inline int64_t task_count(int64_t rows, int64_t per_task)
{
    return (rows + per_task - 1) / per_task;
}

#endif
