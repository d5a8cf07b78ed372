/* few.cuh -- products of few rows of activations with a large weight, for decoding: bf16 in, sums
 * in f32.
 *
 * out (n,rows) = x (n,K) w (rows,K)^T with n so small that reading w is all there is to it.  A warp
 * multiplies TILES times 16 rows of w with 8 NB rows of x by mma: w is the 16-row operand, so its
 * bytes go from memory to registers once, 16 at a time, and nothing of it is staged.  The order of
 * k within 32 is the one in which lanes read both operands.  WARPS warps of a block share K, 32 by
 * 32 in turn, and their sums are added in order: the sums of a row of x do not depend on how many
 * others there are.  The first of w are on their way before x is there: a kernel waits for its
 * turn only then. */
#ifndef FEW_CUH
#define FEW_CUH

#include "real.cuh"

#ifdef REAL_BF16
#include "ptx.cuh"

enum { FEW_K = 32 };

/* w: each tile's first of 16 rows; row_of(i): where row i of x is, NULL where there is none, asked
 * for rows lane / 4 of each block of 8 once the kernel's turn is there.  d[tile][block] as mma
 * leaves it: rows of w, columns are rows of x. */
template <int WARPS, int TILES, int NB, typename ROW_OF>
static __device__ __forceinline__ void few_product(float (*d)[NB][4], const bf16 *const *w,
                                                   int64_t ldw, ROW_OF row_of, int k)
{
    constexpr int DEEP = TILES * NB == 1 ? 8 : 4; /* loads of w in flight, a row and lane */
    int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, at = threadIdx.x % 4 * 8;
    const bf16 *x[NB];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int b = 0; b < NB; b++)
            d[t][b][0] = d[t][b][1] = d[t][b][2] = d[t][b][3] = 0;
    for (int k0 = warp * FEW_K, turn = 0; k0 < k || !turn; k0 += WARPS * FEW_K * DEEP) {
        uint4 a[DEEP][TILES][2];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const bf16 *from = w[t] + (row + 8 * h) * ldw + k0 + at;
#pragma unroll
                for (int i = 0; i < DEEP; i++)
                    a[i][t][h] = k0 + i * WARPS * FEW_K < k ? load_once(from + i * WARPS * FEW_K)
                                                            : make_uint4(0, 0, 0, 0);
            }
        if (!turn) {
            await_turn();
#pragma unroll
            for (int b = 0; b < NB; b++)
                x[b] = row_of(8 * b + row);
            turn = 1;
        }
        uint4 v[DEEP][NB]; /* on their way together, too */
#pragma unroll
        for (int i = 0; i < DEEP; i++)
#pragma unroll
            for (int b = 0; b < NB; b++)
                v[i][b] = x[b] && k0 + i * WARPS * FEW_K < k
                              ? *(const uint4 *)(x[b] + k0 + at + i * WARPS * FEW_K)
                              : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < DEEP; i++)
#pragma unroll
            for (int b = 0; b < NB; b++)
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    uint4 p = a[i][t][0], q = a[i][t][1], y = v[i][b];
                    mma16(d[t][b], p.x, q.x, p.y, q.y, y.x, y.y);
                    mma16(d[t][b], p.z, q.z, p.w, q.w, y.z, y.w);
                }
    }
}

/* The sums of all warps for block b of x: sum[t] of row threadIdx.x % 16 of tile t and row
 * threadIdx.x / 16 of the block, in the first 128 threads.  Called by the whole block. */
template <int WARPS, int TILES, int NB>
static __device__ __forceinline__ void few_join(float *sum, const float (*d)[NB][4], int b)
{
    __shared__ float part[WARPS][TILES][8][17]; /* by row of x and row of w */
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, i = threadIdx.x % 16;
    int j = threadIdx.x / 16;
    __syncthreads(); /* part may still be read for the block before */
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            part[warp][t][lane % 4 * 2 + c % 2][lane / 4 + c / 2 * 8] = d[t][b][c];
    __syncthreads();
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        sum[t] = 0;
        for (int v = 0; j < 8 && v < WARPS; v++)
            sum[t] += part[v][t][j][i];
    }
}

/* Rows that 16-byte accesses can read. */
static inline int few_rows(const void *p, int64_t ld, int64_t k)
{
    return (uintptr_t)p % 16 == 0 && ld % 8 == 0 && k % FEW_K == 0;
}
#endif
#endif
