/* map.h -- byte strings to integers: vocabularies, word counts, pairs (an 8-byte key), caches. */
#ifndef TEXT_MAP_H
#define TEXT_MAP_H

#include "base/base.h"

/* A zeroed struct is an empty map.  Keys are copied; values are at least 0. */
struct map {
    struct map_slot {
        uint64_t hash;
        size_t at; /* of the key in keys */
        uint32_t len;
        int32_t value; /* -1: the slot is free */
    } * slot;
    size_t slots, n;
    struct buf keys;
};
int32_t map_get(const struct map *m, const void *key, size_t len); /* -1 when absent */
/* The value's place, which is -1 for a new key: store something before the next call. */
int32_t *map_put(struct map *m, const void *key, size_t len);
void map_reset(struct map *m); /* empty, memory kept */
void map_release(struct map *m);

#endif
