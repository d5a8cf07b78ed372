/* tally.c -- what a device has given out: a list of blocks, since a free names no size. */
#include "dev/tally.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void tally_add(struct tally *t, void *p, int64_t bytes)
{
    pthread_mutex_lock(&lock);
    if (t->n == t->cap) {
        t->cap = MAX(2 * t->cap, 64);
        t->block = xrealloc(t->block, (size_t)t->cap * sizeof *t->block);
    }
    t->block[t->n++] = (struct tally_block){p, bytes};
    t->peak = t->used ? t->peak : 0;
    t->used += bytes;
    t->peak = MAX(t->peak, t->used);
    pthread_mutex_unlock(&lock);
}

void tally_remove(struct tally *t, const void *p)
{
    pthread_mutex_lock(&lock);
    for (int64_t i = t->n - 1; p && i >= 0; i--)
        if (t->block[i].p == p) {
            t->used -= t->block[i].bytes;
            t->block[i] = t->block[--t->n];
            break;
        }
    pthread_mutex_unlock(&lock);
}

void tally_read(struct tally *t, struct dev_memory *m)
{
    pthread_mutex_lock(&lock);
    m->used = t->used;
    m->peak = t->peak;
    pthread_mutex_unlock(&lock);
}
