/* tok_pairs.h -- which two ids merge, into what and how soon: open addressing with linear probing,
 * at most half full.  Most pairs do not merge; a set of bits, small enough to stay near, says so of
 * nine in ten. */
#ifndef TEXT_TOK_PAIRS_H
#define TEXT_TOK_PAIRS_H

#include <stddef.h>
#include <stdint.h>

struct merge {
    int32_t left, right, rank, id; /* rank -1: no merge */
};
struct pairs {
    struct merge *slot;
    size_t slots;
    uint64_t *maybe; /* [4 x slots] bits */
};

void pairs_init(struct pairs *p, size_t most);
void pairs_put(struct pairs *p, struct merge m); /* of two merges of one pair the last counts */
void pairs_release(struct pairs *p);

static inline uint64_t pairs_hash(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u >> 24;
}
static inline struct merge *pairs_slot(const struct pairs *p, int32_t left, int32_t right)
{
    for (uint64_t i = pairs_hash(left, right);; i++) {
        struct merge *m = &p->slot[i & (p->slots - 1)];
        if (m->rank < 0 || (m->left == left && m->right == right))
            return m;
    }
}
/* NULL where they do not merge. */
static inline const struct merge *pairs_get(const struct pairs *p, int32_t left, int32_t right)
{
    uint64_t bit = pairs_hash(left, right) & (4 * p->slots - 1);

    if (!(p->maybe[bit / 64] >> bit % 64 & 1))
        return NULL;
    const struct merge *m = pairs_slot(p, left, right);
    return m->rank < 0 ? NULL : m;
}

#endif
