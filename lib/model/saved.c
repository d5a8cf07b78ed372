/* saved.c -- slots for what a segment keeps, on blocks that are counted.
 *
 * Recompute and offload belong here and only here: a segment asks to keep and to fetch and never
 * knows where the bytes have been in between. */
#include "model/model.h"

#include <stdlib.h>

struct saved_block {
    struct heap_block *at;
    int uses;
};

void *saved_keep(struct saved *s, enum slot k, int64_t bytes)
{
    saved_release(s, k);
    s->slot[k] = xcalloc(1, sizeof *s->slot[k]);
    *s->slot[k] = (struct saved_block){heap_take(s->heap, bytes, HEAP_BOTTOM), 1};
    return s->slot[k]->at->p;
}

void *saved_fetch(struct saved *s, enum slot k)
{
    if (!s->slot[k])
        die("internal error: slot %d was not kept", k);
    return s->slot[k]->at->p;
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
        heap_give(s->heap, b->at);
        free(b);
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
