/* nll.cu -- the weighted negative log likelihood: dlogp = -weight / denom, loss += sum -weight logp
 * (T). Bound: launch; the sum is one block's, in a fixed order. */
#include "real.cuh"

static __global__ void nll_dgrad_kernel(stat *dlogp, const stat *weight, const stat *denom,
                                        int64_t t)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < t)
        dlogp[i] = -weight[i] / *denom;
}

extern "C" void OPNAME(nll_dgrad)(struct lane *l, void *dlogp, const void *weight,
                                  const void *denom, int64_t t)
{
    nll_dgrad_kernel<<<blocks_of(t, 256), 256, 0, stream(l)>>>((stat *)dlogp, (const stat *)weight,
                                                               (const stat *)denom, t);
    launched("nll_dgrad", "%lld", (long long)t);
}

static __global__ void nll_loss_kernel(stat *loss, const stat *weight, const stat *logp, int64_t t)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < t; i += blockDim.x)
        sum -= (double)weight[i] * (double)logp[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *loss += (float)sum;
}

extern "C" void OPNAME(nll_loss)(struct lane *l, void *loss, const void *weight, const void *logp,
                                 int64_t t)
{
    nll_loss_kernel<<<1, 1024, 0, stream(l)>>>((stat *)loss, (const stat *)weight,
                                               (const stat *)logp, t);
    launched("nll_loss", "%lld", (long long)t);
}
