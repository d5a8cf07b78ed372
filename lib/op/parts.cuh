/* parts.cuh -- a weight gradient summed from the parts that blocks left: part (parts,N) -> dw (N),
 * in one order. */
#ifndef PARTS_CUH
#define PARTS_CUH

#include "real.cuh"

/* Lanes are columns, warps share the parts. */
static __global__ void parts_kernel(struct grad dw, const float *part, int64_t parts, int64_t n)
{
    __shared__ float of_warp[32][33];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t j = (int64_t)blockIdx.x * 32 + lane;
    float sum = 0;
#pragma unroll 8
    for (int64_t i = warp; i < parts; i += 32)
        sum += j < n ? part[i * n + j] : 0;
    of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp || j >= n)
        return;
    sum = 0;
    for (int i = 0; i < 32; i++)
        sum += of_warp[i][lane];
    grad_put<1>(dw, j, &sum);
}

static inline void parts_sum(struct lane *l, struct grad dw, const float *part, int64_t parts,
                             int64_t n)
{
    parts_kernel<<<blocks_of(n, 32), 1024, 0, stream(l)>>>(dw, part, parts, n);
}

#endif
