/* product.cuh -- a plain tiled matrix product, for shapes that no faster kernel takes and as a
 * witness of those that do.
 *
 * C (M,N) from a caller's a(i, k) and b(k, j); a block makes a tile of 64 x 64, a thread 4 x 4 of
 * it, in f32. */
#ifndef PRODUCT_CUH
#define PRODUCT_CUH

#include "real.cuh"

enum { PLAIN_TILE = 64, PLAIN_STEP = 16, PLAIN_THREADS = 256 };

/* left(i, k) and right(k, j) give elements as f32, 0 outside; out(i, j, sum) takes the result.  i0,
 * j0: the tile's corner. */
template <typename LEFT, typename RIGHT, typename OUT>
static __device__ __forceinline__ void plain_tile(int64_t i0, int64_t j0, int64_t k, LEFT left,
                                                  RIGHT right, OUT out)
{
    __shared__ float a[PLAIN_STEP][PLAIN_TILE + 1], b[PLAIN_STEP][PLAIN_TILE + 1];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float sum[4][4] = {};
    for (int64_t k0 = 0; k0 < k; k0 += PLAIN_STEP) {
        for (int x = threadIdx.x; x < PLAIN_STEP * PLAIN_TILE; x += PLAIN_THREADS) {
            int kk = x % PLAIN_STEP, i = x / PLAIN_STEP;
            a[kk][i] = k0 + kk < k ? left(i0 + i, k0 + kk) : 0;
            b[kk][i] = k0 + kk < k ? right(k0 + kk, j0 + i) : 0;
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < PLAIN_STEP; kk++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] += a[kk][ty * 4 + i] * b[kk][tx * 4 + j];
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            out(i0 + ty * 4 + i, j0 + tx * 4 + j, sum[i][j]);
}

#endif
