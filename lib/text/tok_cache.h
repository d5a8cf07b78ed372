/* tok_cache.h -- the ids of short pieces by their bytes. */
#ifndef TEXT_TOK_CACHE_H
#define TEXT_TOK_CACHE_H

#include <stddef.h>
#include <stdint.h>

enum { CACHED_BYTES = 32, CACHED_IDS = 7 };
struct cached {
    uint64_t key[4];
    uint8_t len, n; /* bytes, 0: empty; ids, the caller's */
    int32_t id[CACHED_IDS];
};
struct tok_cache;
struct tok_cache *tok_cache_new(void); /* free() releases it */
/* The entry of a piece of 1 to CACHED_BYTES bytes.  Where it is not found it has become the
 * piece's: fill it, or set its len to 0. */
struct cached *tok_cache_at(struct tok_cache *c, const char *s, size_t n, int *found);

#endif
