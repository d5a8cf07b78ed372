/* balance.cu -- experts that had fewer choices than the mean are chosen more readily, and the
 * reverse.  Loads are whole numbers, whose sum a double holds exactly.
 *
 * Bound: launch. */
#include "real.cuh"

enum { THREADS = 256 };

static __global__ void balance_kernel(stat *bias, const stat *load, const stat *state, int64_t e,
                                      float rate)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < e; i += THREADS)
        sum += load[i];
    sum = block_sum(sum);
    if (!(state[STEP_OK] > 0))
        return;
    for (int64_t i = threadIdx.x; i < e; i += THREADS) {
        double more = sum - (double)load[i] * (double)e;
        bias[i] += more > 0 ? rate : more < 0 ? -rate : 0;
    }
}

extern "C" void OPNAME(balance)(struct lane *l, void *bias, const void *load, const void *state,
                                int64_t e, double rate)
{
    balance_kernel<<<1, THREADS, 0, stream(l)>>>((stat *)bias, (const stat *)load,
                                                 (const stat *)state, e, (float)rate);
    launched("balance", "%lld", (long long)e);
}
