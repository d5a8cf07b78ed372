/* gemm_few.cuh -- c (M,N) = a (M,K) b (N,K)^T for M up to 16 rows in bf16, by few.cuh.
 *
 * Bound: memory, N K read once.  A row of c has the same bits whatever M is. */
#ifndef GEMM_FEW_CUH
#define GEMM_FEW_CUH

#include "few.cuh"

#ifdef REAL_BF16

enum { FEW_M = 16, GEMM_WARPS = 8 };

/* Block x makes columns 16 TILES x and on. */
template <typename C, int TILES, int NB>
static __global__ void __launch_bounds__(GEMM_WARPS * 32, 2)
    few_gemm_kernel(C *c, const bf16 *a, const bf16 *b, int m, int n, int k, int64_t lda,
                    int64_t ldb, int64_t ldc)
{
    float d[TILES][NB][4], sum[TILES];
    const bf16 *w[TILES];
    int j0 = blockIdx.x * 16 * TILES, i = threadIdx.x / 16, j = threadIdx.x % 16;
    call_next();
#pragma unroll
    for (int t = 0; t < TILES; t++)
        w[t] = b + (j0 + 16 * t < n ? j0 + 16 * t : j0) * ldb;
    auto row_of = [&](int y) { return y < m ? a + y * lda : NULL; };
    few_product<GEMM_WARPS, TILES, NB>(d, w, ldb, row_of, k);
#pragma unroll
    for (int y = 0; y < NB; y++) {
        few_join<GEMM_WARPS, TILES, NB>(sum, d, y);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if (i < 8 && 8 * y + i < m && j0 + 16 * t < n)
                store(c + (8 * y + i) * ldc + j0 + 16 * t + j, sum[t]);
    }
}

template <typename C>
static void few_gemm_run(struct lane *l, const struct mat *c, const struct mat *a,
                         const struct mat *b)
{
    int64_t m = c->rows, n = c->cols, k = a->cols;
    auto kernel = m <= 8 ? few_gemm_kernel<C, 1, 1> : few_gemm_kernel<C, 2, 2>;
    launch_early(l, kernel, blocks_of(n, m <= 8 ? 16 : 32), GEMM_WARPS * 32, (C *)c->data,
                 (const bf16 *)a->data, (const bf16 *)b->data, (int)m, (int)n, (int)k, a->ld, b->ld,
                 c->ld);
    launched("gemm", "%lld,%lld,%lld", (long long)m, (long long)n, (long long)k);
}

/* 1 when it has done the product. */
static int few_gemm(struct lane *l, const struct mat *c, const struct mat *a, const struct mat *b,
                    int ta, int tb, int add)
{
    if (ta || !tb || add || c->rows > FEW_M || c->cols % 16 || !a->cols ||
        !few_rows(a->data, a->ld, a->cols) || !few_rows(b->data, b->ld, b->cols))
        return 0;
    if (c->type == DT_F32)
        few_gemm_run<float>(l, c, a, b);
    else
        few_gemm_run<bf16>(l, c, a, b);
    return 1;
}

#else
static int few_gemm(struct lane *, const struct mat *, const struct mat *, const struct mat *, int,
                    int, int)
{
    return 0;
}
#endif
#endif
