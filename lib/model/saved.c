/* saved.c -- slots for what a segment keeps, on blocks that are counted and reused.
 *
 * Recompute and offload belong here and only here: a segment asks to keep and to fetch and never
 * knows where the bytes have been in between. */
#include "model/model.h"

#include <stdlib.h>

struct saved_block {
    void *p;
    int64_t bytes;
    int uses;
    struct saved_block *next; /* in the pool's list of free blocks */
};

struct pool {
    struct arena arena;
    struct saved_block *idle;
    int64_t bytes;
};

struct pool *pool_new(const struct dev_ops *dev)
{
    struct pool *p = xcalloc(1, sizeof *p);
    arena_init(&p->arena, dev);
    return p;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    while (p->idle) {
        struct saved_block *b = p->idle;
        p->idle = b->next;
        free(b);
    }
    arena_release(&p->arena);
    free(p);
}

int64_t pool_bytes(const struct pool *p)
{
    return p->bytes;
}

/* Sizes are rounded up to an eighth of their power of two, so that a row count that varies from
 * step to step (tokens received) soon finds its block again. */
static int64_t size_class(int64_t bytes)
{
    int64_t step = 256;
    while (step * 16 < bytes)
        step *= 2;
    return (MAX(bytes, 1) + step - 1) / step * step;
}

static struct saved_block *block_take(struct pool *p, int64_t bytes)
{
    int64_t size = size_class(bytes);
    for (struct saved_block **at = &p->idle; *at; at = &(*at)->next)
        if ((*at)->bytes == size) {
            struct saved_block *b = *at;
            *at = b->next;
            return b;
        }
    struct saved_block *b = xcalloc(1, sizeof *b);
    b->p = arena_take(&p->arena, size);
    b->bytes = size;
    p->bytes += size;
    return b;
}

void *saved_keep(struct saved *s, enum slot k, int64_t bytes)
{
    saved_release(s, k);
    s->slot[k] = block_take(s->pool, bytes);
    s->slot[k]->uses = 1;
    return s->slot[k]->p;
}

void *saved_fetch(struct saved *s, enum slot k)
{
    if (!s->slot[k])
        die("internal error: slot %d was not kept", k);
    return s->slot[k]->p;
}

void saved_share(struct saved *to, enum slot k, struct saved *from, enum slot j)
{
    saved_fetch(from, j);
    from->slot[j]->uses++;
    saved_release(to, k);
    to->slot[k] = from->slot[j];
}

void saved_release(struct saved *s, enum slot k)
{
    struct saved_block *b = s->slot[k];
    s->slot[k] = NULL;
    if (b && --b->uses == 0) {
        b->next = s->pool->idle;
        s->pool->idle = b;
    }
}

void saved_clear(struct saved *s)
{
    for (int k = 0; k < SLOTS; k++)
        saved_release(s, k);
    free(s->sent);
    free(s->recvd);
    s->sent = s->recvd = NULL;
}
