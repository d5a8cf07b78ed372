/* opt_near.c -- the option that a mistyped one was meant to be. */
#include "opt_table.h"

#include <stdlib.h>
#include <string.h>

/* Letters to insert, drop, replace or swap with their neighbour to make one word of the other. */
static int64_t distance(const char *a, int64_t n, const char *b, int64_t m)
{
    int64_t width = m + 1, *d = xmalloc((size_t)((n + 1) * width) * sizeof(*d));
    for (int64_t i = 0; i <= n; i++)
        for (int64_t j = 0; j <= m; j++) {
            int64_t *at = d + i * width + j;
            if (!i || !j) {
                *at = i + j;
                continue;
            }
            *at = MIN(at[-1], at[-width]) + 1;
            *at = MIN(*at, at[-width - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                *at = MIN(*at, at[-2 * width - 2] + 1);
        }
    int64_t all = d[n * width + m];
    free(d);
    return all;
}

const char *opt_near(const char *word, size_t len, const struct opt *const tables[], int count)
{
    enum { WORD_MAX = 64 };
    const char *best = NULL;
    int64_t least = MIN((int64_t)len, 7) / 3 + 1; /* more is another word: 0, 1 or 2 may differ */
    for (int t = 0; t < count && len <= WORD_MAX; t++)
        for (const struct opt *o = tables[t]; o->name; o++) {
            int64_t d = distance(word, (int64_t)len, o->name, (int64_t)strlen(o->name));
            if (d && d < least) { /* 0: it is known, and not wanted here */
                least = d;
                best = o->name;
            }
        }
    return best;
}
