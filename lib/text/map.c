/* map.c -- open addressing with linear probing, at most half full; keys lie end to end in one
 * buffer. */

#include "text/map.h"

#include <stdlib.h>
#include <string.h>

static struct map_slot *map_slot(const struct map *m, uint64_t hash, const void *key, size_t len)
{
    for (size_t i = hash & (m->slots - 1);; i = (i + 1) & (m->slots - 1)) {
        struct map_slot *s = &m->slot[i];
        if (s->value < 0 ||
            (s->hash == hash && s->len == len && !memcmp(m->keys.data + s->at, key, len)))
            return s;
    }
}

static void map_grow(struct map *m)
{
    struct map_slot *old = m->slot;
    size_t n = m->slots;

    m->slots = n ? 2 * n : 64;
    m->slot = xmalloc(m->slots * sizeof *m->slot);
    for (size_t i = 0; i < m->slots; i++)
        m->slot[i].value = -1;
    for (size_t k = 0; k < n; k++)
        if (old[k].value >= 0)
            *map_slot(m, old[k].hash, m->keys.data + old[k].at, old[k].len) = old[k];
    free(old);
}

int32_t map_get(const struct map *m, const void *key, size_t len)
{
    return m->n ? map_slot(m, hash_xxh3(key, len), key, len)->value : -1;
}

int32_t *map_put(struct map *m, const void *key, size_t len)
{
    uint64_t hash = hash_xxh3(key, len);
    struct map_slot *s;

    if (2 * (m->n + 1) > m->slots)
        map_grow(m);
    s = map_slot(m, hash, key, len);
    if (s->value < 0) {
        *s = (struct map_slot){hash, m->keys.len, (uint32_t)len, -1};
        buf_add(&m->keys, key, len);
        m->n++;
    }
    return &s->value;
}

void map_reset(struct map *m)
{
    for (size_t i = 0; i < m->slots; i++)
        m->slot[i].value = -1;
    m->n = 0;
    buf_reset(&m->keys);
}

void map_release(struct map *m)
{
    free(m->slot);
    buf_release(&m->keys);
    *m = (struct map){0};
}
