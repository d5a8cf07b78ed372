/* heap.c -- the memory of a step: blocks of chunks, kept ones from below and passing ones from
 * above.
 *
 * Nothing here touches the memory, so where a block lies depends only on what was asked for before:
 * a step that is repeated from an empty heap has the same addresses every time, and one on the dry
 * device needs what the same on a GPU does.  Free blocks are a list in the order of addresses;
 * there are few of them, since a step gives back in the reverse order of taking, but for a little.
 */
#include "dev/dev.h"

#include <stdlib.h>

enum { ALIGN = 256, CHUNK_MIN = 1 << 20, GROWTH = 256 };

void heap_init(struct heap *h, const struct dev_ops *dev)
{
    *h = (struct heap){.dev = dev};
}

static int before(const struct heap_block *a, const struct heap_block *b)
{
    return a->chunk != b->chunk ? a->chunk < b->chunk : a->p < b->p;
}

static int adjoin(const struct heap_block *a, const struct heap_block *b)
{
    return a->chunk == b->chunk && a->p + a->bytes == b->p;
}

/* The block after a becomes part of it where it begins at its end. */
static void join_next(struct heap_block *a)
{
    struct heap_block *b = a->next;
    if (b && adjoin(a, b)) {
        a->bytes += b->bytes;
        a->next = b->next;
        free(b);
    }
}

static void put_back(struct heap *h, struct heap_block *b)
{
    struct heap_block **at = &h->idle, *last = NULL;
    while (*at && before(*at, b)) {
        last = *at;
        at = &last->next;
    }
    b->next = *at;
    *at = b;
    join_next(b);
    if (last)
        join_next(last);
}

static struct heap_block *block_new(char *p, int64_t bytes, int64_t chunk)
{
    struct heap_block *b = xcalloc(1, sizeof *b);
    *b = (struct heap_block){p, bytes, chunk, NULL};
    return b;
}

static void grow(struct heap *h, int64_t bytes)
{
    char *p = dev_alloc(h->dev, bytes, "a step's memory");
    h->chunk = xrealloc(h->chunk, (size_t)(h->chunks + 1) * sizeof *h->chunk);
    h->chunk[h->chunks] = (struct heap_chunk){p, bytes};
    h->bytes += bytes;
    put_back(h, block_new(p, bytes, h->chunks++));
}

static void drop_chunks(struct heap *h)
{
    while (h->idle) {
        struct heap_block *b = h->idle;
        h->idle = b->next;
        free(b);
    }
    for (int64_t i = 0; i < h->chunks; i++)
        h->dev->free(h->chunk[i].p);
    h->chunks = h->bytes = 0;
}

static int64_t aligned(int64_t bytes)
{
    return (MAX(bytes, 1) + ALIGN - 1) / ALIGN * ALIGN;
}

/* An empty heap becomes one chunk. */
static void settle(struct heap *h, int64_t bytes)
{
    drop_chunks(h);
    grow(h, h->settled = aligned(bytes));
    h->spare = MAX(2 * h->spare, h->settled / GROWTH);
}

void heap_reserve(struct heap *h, int64_t bytes)
{
    if (bytes > h->bytes)
        settle(h, bytes);
}

/* Where a free block of so many bytes hangs, NULL for none.  From the top it is the last; from the
 * bottom the first that is nearly filled, so that a small one takes no place that a large one will
 * come back to, else the largest. */
static struct heap_block **find(struct heap *h, int64_t bytes, enum heap_end end)
{
    struct heap_block **found = NULL;
    for (struct heap_block **at = &h->idle; *at; at = &(*at)->next) {
        int64_t more = (*at)->bytes - bytes;
        if (end == HEAP_BOTTOM && more >= 0 && more <= bytes / 8)
            return at;
        if (more >= 0 && (end == HEAP_TOP || !found || (*at)->bytes > (*found)->bytes))
            found = at;
    }
    return found;
}

struct heap_block *heap_take(struct heap *h, int64_t bytes, enum heap_end end)
{
    bytes = aligned(bytes);
    struct heap_block **at = find(h, bytes, end);
    if (!at) {
        grow(h, MAX(bytes, CHUNK_MIN));
        at = find(h, bytes, end);
    }
    h->used += bytes;
    h->peak = MAX(h->peak, h->used);
    struct heap_block *b = *at;
    if (b->bytes == bytes) {
        *at = b->next;
        return b;
    }
    b->bytes -= bytes;
    if (end == HEAP_TOP)
        return block_new(b->p + b->bytes, bytes, b->chunk);
    b->p += bytes;
    return block_new(b->p - bytes, bytes, b->chunk);
}

void heap_give(struct heap *h, struct heap_block *b)
{
    h->used -= b->bytes;
    put_back(h, b);
    if (!h->used && h->chunks > 1 && !h->fixed)
        settle(h, MAX(h->peak, h->settled + h->spare));
}

void heap_release(struct heap *h)
{
    drop_chunks(h);
    free(h->chunk);
    heap_init(h, h->dev);
}
