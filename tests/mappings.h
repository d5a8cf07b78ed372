/* mappings.h -- which mappings are tried: a list by hand that has every dimension, every pair and
 * what folding must be tried with, and all that fit. */
#ifndef MAPPINGS_H
#define MAPPINGS_H

#include "mapped.h"

static const struct mapping chosen[] = {
    /* ranks tp cp pp etp ep micro layout dispatch */
    {2, 1, 1, 1, 1, 1, 2}, /* every dimension alone */
    {2, 1, 1, 1, 1, 2, 2},
    {2, 2, 1, 1, 1, 1, 2},
    {2, 1, 1, 1, 2, 1, 2},
    {2, 1, 1, 2, 1, 1, 2},
    {2, 1, 2, 1, 1, 1, 2},
    {4, 1, 4, 1, 1, 1, 2},
    {4, 1, 1, 1, 1, 1, 1},
    {2, 2, 1, 1, 1, 2, 2}, /* EP over TP; over CP; over DP; over TP x CP */
    {2, 1, 2, 1, 1, 2, 2},
    {4, 1, 1, 1, 1, 2, 1},
    {4, 1, 1, 1, 1, 4, 2},
    {4, 2, 2, 1, 1, 4, 4},
    {4, 2, 2, 1, 1, 1, 2}, /* pairs */
    {4, 1, 2, 2, 1, 1, 2},
    {4, 1, 2, 1, 1, 1, 1},
    {4, 2, 1, 1, 2, 2, 1},
    {4, 2, 1, 2, 1, 2, 1},
    {4, 1, 2, 1, 2, 2, 2}, /* ETP over CP, EP over DP */
    {8, 2, 2, 1, 1, 4, 2}, /* EP over TP x CP beside DP; all at once */
    {8, 2, 2, 2, 2, 2, 2},
    {8, 2, 1, 1, 2, 4, 1}, /* EP over TP x DP; over TP x CP x DP */
    {8, 2, 2, 1, 1, 8, 2},
    {2, 2, 1, 1, 2, 1, 2}, /* the pairs that are left */
    {2, 1, 2, 1, 2, 1, 2},
    {4, 1, 1, 2, 1, 1, 2},
    {4, 1, 1, 2, 2, 1, 2},
    {4, 1, 1, 2, 1, 2, 2},
    {4, 2, 1, 2, 1, 1, 2},
    {4, 2, 1, 2, 2, 1, 2},
    {4, 2, 1, 1, 1, 1, 2},
    {4, 1, 1, 1, 2, 2, 2},
    {2, 1, 1, 1, 1, 2, 2, NULL, "rows"}, /* each way of dispatch where the other is chosen */
    {4, 1, 2, 1, 2, 2, 2, NULL, "rows"},
    {4, 1, 1, 1, 1, 4, 2, NULL, "all"},
    {8, 2, 2, 1, 1, 4, 2, NULL, "all"},
    {2, 1, 1, 1, 1, 2, 2, NULL, "padded"}, /* of limited capacity only */
    {2, 1, 1, 1, 2, 1, 2, NULL, "padded"},
    {4, 1, 2, 1, 2, 2, 2, NULL, "padded"},
    {4, 1, 1, 1, 1, 4, 2, NULL, "padded"},
    {4, 2, 1, 2, 1, 2, 2, NULL, "padded"},
    {8, 2, 2, 1, 1, 4, 2, NULL, "padded"},
    {8, 1, 1, 1, 1, 8, 1, NULL, "padded"},
    {4, 1, 1, 4, 1, 1, 2}, /* pipelines: deep, uneven, interleaved */
    {2, 1, 1, 2, 1, 1, 2, "3,1"},
    {2, 1, 1, 2, 1, 1, 1, "1,1,1,1"},
    {4, 2, 1, 2, 1, 2, 2, "1,1,1,1"},
    {4, 1, 2, 2, 2, 1, 2, "1,1,1,1"},
    {8, 1, 2, 2, 1, 4, 1, "1,1,1,1"},
};

/* Whether a method can be tried on a mapping. */
static int fits(const struct mapping *x, const struct method *m)
{
    int padded = x->dispatch && !strcmp(x->dispatch, "padded");
    return x->micro % MAX(m->group, 1) == 0 && (!padded || m->capacity > 0);
}

static int is_listed(const struct mapping *list, int64_t n, struct mapping x)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i].ranks == x.ranks && list[i].tp == x.tp && list[i].cp == x.cp &&
            list[i].pp == x.pp && list[i].etp == x.etp && list[i].ep == x.ep)
            return 1;
    return 0;
}

/* Adds every mapping of powers of two that fits the model, to 16 ranks; of the largest every sixth.
 */
static int64_t all_mappings(struct mapping *list, int64_t n)
{
    int64_t seen = 0;
    for (int ranks = 2; ranks <= 16; ranks *= 2)
        for (int tp = 1; tp <= 2; tp *= 2)
            for (int cp = 1; cp <= 8; cp *= 2)
                for (int pp = 1; pp <= 2; pp *= 2)
                    for (int etp = 1; etp <= 4; etp *= 2)
                        for (int ep = 1; ep <= 8; ep *= 2) {
                            int dp = ranks / (tp * cp * pp);
                            struct mapping x = {
                                ranks, tp, cp, pp, etp, ep, dp ? MIN(2, BATCH / dp) : 0};
                            if (!dp || dp > BATCH || etp * ep * pp > ranks ||
                                is_listed(list, n, x) || (ranks == 16 && seen++ % 6))
                                continue;
                            list[n++] = x;
                        }
    return n;
}

#endif
