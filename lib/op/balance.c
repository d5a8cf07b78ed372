/* balance.c -- experts that had fewer choices than the mean are chosen more readily, and the
 * reverse (Wang et al. 2024, without an auxiliary loss). */
#include "real.h"

void OPNAME(balance)(struct lane *l, void *bias, const void *load, const void *state, int64_t e,
                     double rate)
{
    stat *b = bias;
    const stat *x = load;
    double sum = 0;
    if (!(((const stat *)state)[STEP_OK] > 0))
        return;
    for (int64_t i = 0; i < e; i++)
        sum += (double)x[i];
    for (int64_t i = 0; i < e; i++) { /* exact: loads are whole numbers */
        double more = sum - (double)x[i] * (double)e;
        b[i] += (stat)(more > 0 ? rate : more < 0 ? -rate : 0);
    }
}
