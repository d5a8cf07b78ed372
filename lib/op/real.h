/* real.h -- included first by every CPU twin: `real` and `stat` of this compile, and OPNAME().
 *
 * The Makefile compiles each twin twice, with -DREAL_F32 and -DREAL_F64. */
#ifndef REAL_H
#define REAL_H

#include "op/op.h"
#include <math.h>
#include <string.h>

#ifdef REAL_F64
typedef double real;
typedef double stat;
#define OPNAME(name) name##_cpu_f64
#define REAL_TYPE    DT_F64
#else
typedef float real;
typedef float stat;
#define OPNAME(name) name##_cpu_f32
#define REAL_TYPE    DT_F32
#endif

/* The CPU twins keep weight gradients in S. */
static inline stat *grad_stat(const char *op, struct mat dw)
{
    if (dw.type != REAL_TYPE)
        die("%s: no weight gradients of type %s here", op, dtype_name(dw.type));
    return (stat *)dw.data;
}

#endif
