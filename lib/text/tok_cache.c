/* tok_cache.c -- pieces come again, most of them soon: the ids of short pieces by their bytes.
 *
 * A piece of 1 to 32 bytes is held by four words that overlap where it is shorter than they are, so
 * that two of one length are equal where the words are.  An entry is a line of memory, each piece
 * has one place, and the newest has it: nothing grows and nothing is ever cleared. */

#include "text/tok_cache.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

enum { PLACES = 1 << 15 };

struct tok_cache {
    struct cached place[PLACES];
};

struct tok_cache *tok_cache_new(void)
{
    void *c = aligned_alloc(64, sizeof(struct tok_cache));

    if (!c)
        die("out of memory");
    return memset(c, 0, sizeof(struct tok_cache));
}

static uint64_t word(const char *s)
{
    uint64_t w;

    memcpy(&w, s, sizeof w);
    return w;
}

static uint64_t half(const char *s)
{
    uint32_t w;

    memcpy(&w, s, sizeof w);
    return w;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

struct cached *tok_cache_at(struct tok_cache *c, const char *s, size_t n, int *found)
{
    uint64_t k[4] = {0};

    if (n > 16) {
        k[0] = word(s), k[1] = word(s + 8), k[2] = word(s + n - 16), k[3] = word(s + n - 8);
    } else if (n >= 8) {
        k[0] = word(s), k[1] = word(s + n - 8);
    } else if (n >= 4) {
        k[0] = half(s), k[1] = half(s + n - 4);
    } else {
        for (size_t i = 0; i < n; i++)
            k[0] = k[0] << 8 | (unsigned char)s[i];
    }
    uint64_t hash = mix(k[0] ^ 0x2d358dccaa6c78a5u ^ n, k[1] ^ 0x8bb84b93962eacc9u) ^
                    mix(k[2] ^ 0x4b33a62ed433d4a3u, k[3] ^ 0x4d5a2da51de1aa47u);
    struct cached *e = &c->place[hash & (PLACES - 1)];

    *found = e->len == n && !memcmp(e->key, k, sizeof k);
    if (!*found) {
        memcpy(e->key, k, sizeof k);
        e->len = (uint8_t)n;
    }
    return e;
}
