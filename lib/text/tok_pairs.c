/* tok_pairs.c -- the table of merges is made here; lookups are in the header. */

#include "text/tok_pairs.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

void pairs_init(struct pairs *p, size_t most)
{
    for (p->slots = 64; p->slots < 2 * most; p->slots *= 2)
        ;
    p->slot = xmalloc(p->slots * sizeof *p->slot);
    memset(p->slot, -1, p->slots * sizeof *p->slot);
    p->maybe = xcalloc(p->slots / 16, sizeof *p->maybe);
}

void pairs_put(struct pairs *p, struct merge m)
{
    uint64_t bit = pairs_hash(m.left, m.right) & (4 * p->slots - 1);

    *pairs_slot(p, m.left, m.right) = m;
    p->maybe[bit / 64] |= (uint64_t)1 << bit % 64;
}

void pairs_release(struct pairs *p)
{
    free(p->slot);
    free(p->maybe);
}
