/* blas.h -- the one way to a matrix product, for tiles inside a task.
 *
 * OpenBLAS runs on the calling thread (dev_cpu.c), so the same tile gives the same bits wherever it
 * runs. */
#ifndef BLAS_H
#define BLAS_H

#include "real.h"

#include <cblas.h>

#ifdef REAL_F64
#define CBLAS_GEMM cblas_dgemm
#define CBLAS_GEMV cblas_dgemv
#else
#define CBLAS_GEMM cblas_sgemm
#define CBLAS_GEMV cblas_sgemv
#endif

struct factor { /* op(x), x row-major with rows ld apart */
    const real *x;
    int64_t ld;
    int transposed;
};

/* c (m,n) = beta c + alpha a (m,k) b (k,n); what c held is not read when beta is 0. */
static inline void product(real *c, int64_t ldc, int64_t m, int64_t n, int64_t k, double alpha,
                           struct factor a, struct factor b, double beta)
{
    if (m <= 0 || n <= 0)
        return;
    if (m == 1 && beta == 0) { /* so that a single row need not say it twice below */
        memset(c, 0, (size_t)n * sizeof *c);
        beta = 1;
    }
    if (m == 1 && k > 0) /* a product of matrices would copy all of b first */
        CBLAS_GEMV(CblasRowMajor, b.transposed ? CblasNoTrans : CblasTrans,
                   (int)(b.transposed ? n : k), (int)(b.transposed ? k : n), (real)alpha, b.x,
                   (int)b.ld, a.x, a.transposed ? (int)a.ld : 1, (real)beta, c, 1);
    else if (k > 0)
        CBLAS_GEMM(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
                   b.transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, (real)alpha,
                   a.x, (int)a.ld, b.x, (int)b.ld, (real)beta, c, (int)ldc);
    else if (beta == 0)
        for (int64_t i = 0; i < m; i++)
            memset(c + i * ldc, 0, (size_t)n * sizeof *c);
}

#endif
