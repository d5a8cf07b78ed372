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

/* The smallest idle block that fits, and is not so large that another will miss it: steps of one
 * shape find their own again, and a row count that varies from step to step (tokens received) soon
 * finds one. */
static struct saved_block *block_take(struct pool *p, int64_t bytes)
{
    struct saved_block **best = NULL;
    for (struct saved_block **at = &p->idle; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (*at)->bytes - bytes <= bytes / 8 + 256 &&
            (!best || (*at)->bytes < (*best)->bytes))
            best = at;
    if (best) {
        struct saved_block *b = *best;
        *best = b->next;
        return b;
    }
    struct saved_block *b = xcalloc(1, sizeof *b);
    b->p = arena_take(&p->arena, bytes);
    b->bytes = MAX(bytes, 1);
    p->bytes += b->bytes;
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

int saved_holds(const struct saved *s, enum slot k)
{
    return s->slot[k] != NULL;
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
