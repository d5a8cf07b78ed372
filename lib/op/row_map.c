/* row_map.c -- which received row goes to which expert: a stable counting sort by expert.
 *
 * Each expert's rows begin at a multiple of ROW_ALIGN; the rows between are padding. */
#include "real.h"

void OPNAME(row_map)(struct lane *l, int32_t *at, int32_t *count, int32_t *source, int32_t *place,
                     const int32_t *index, int64_t n, int64_t k, int64_t first, int64_t e,
                     int64_t m)
{
    memset(count, 0, (size_t)e * sizeof *count);
    for (int64_t i = 0; i < n * k; i++)
        if (index[i] >= first && index[i] < first + e)
            count[index[i] - first]++;
    at[0] = 0;
    for (int64_t i = 0; i < e; i++) {
        at[i + 1] = at[i] + (count[i] + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
        count[i] = 0; /* counted again below, as the next free row */
    }
    if (at[e] > m)
        die("row_map: %d expert rows where there is room for %lld", at[e], (long long)m);
    for (int64_t i = 0; i < m; i++)
        source[i] = -1;
    for (int64_t i = 0; i < n * k; i++) {
        int64_t x = index[i] - first;
        place[i] = -1;
        if (x < 0 || x >= e)
            continue;
        place[i] = at[x] + count[x]++;
        source[place[i]] = (int32_t)i;
    }
}
