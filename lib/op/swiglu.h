/* swiglu.h -- one row of SwiGLU (Shazeer 2020), for the dense network and for the experts.
 *
 * a = g silu(u) v, so du = g da v silu'(u), dv = g da silu(u), dg = <da, silu(u) v>. */
#ifndef SWIGLU_H
#define SWIGLU_H

#include "vec.h"

static inline void swiglu_row(real *a /* (F) */, const real *u, const real *v, real gate, int64_t f)
{
    for (int64_t j = 0; j < f; j++)
        a[j] = gate * (u[j] / (1 + real_exp(-u[j]))) * v[j];
}

/* a again and, in the place of u and v, du and dv, from da; returns the gradient of the gate. */
static inline double swiglu_row_dgrad(real *restrict u /* (F) */, real *restrict v,
                                      real *restrict a, const real *restrict da, real gate,
                                      int64_t f)
{
    for (int64_t j = 0; j < f; j++) {
        real s = 1 / (1 + real_exp(-u[j])), silu = u[j] * s;
        real slope = s + silu * (1 - s);
        a[j] = silu * v[j];
        u[j] = gate * da[j] * v[j] * slope;
        v[j] = gate * da[j] * silu;
    }
    double dgate = vec_dot(da, a, f);
    for (int64_t j = 0; j < f; j++)
        a[j] *= gate;
    return dgate;
}

#endif
