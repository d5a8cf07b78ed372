/* tok_bpe.c -- the merges: of all neighbours that can merge, the pair learnt first, leftmost first.
 *
 * A heap holds every pair that could merge, by rank and place; one that has changed since is
 * recognised by its rank and skipped.  So a piece of n symbols costs n log n, which matters where a
 * tokenizer cuts nothing and a book is one piece.  Words come again: the ids of short pieces are
 * cached. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_PIECE_MAX = 128, CACHE_IDS_MAX = 1 << 22 };

void ids_add(struct ids *v, int32_t id)
{
    if (v->n == v->cap) {
        v->cap = MAX(64, 2 * v->cap);
        v->id = xrealloc(v->id, (size_t)v->cap * sizeof *v->id);
    }
    v->id[v->n++] = id;
}

void ids_release(struct ids *v)
{
    free(v->id);
    *v = (struct ids){0};
}

static int before(struct candidate a, struct candidate b)
{
    return a.rank < b.rank || (a.rank == b.rank && a.at < b.at);
}

static void heap_push(struct tok *t, struct candidate c)
{
    if (t->heap_n == t->heap_cap) {
        t->heap_cap = MAX(64, 2 * t->heap_cap);
        t->heap = xrealloc(t->heap, (size_t)t->heap_cap * sizeof *t->heap);
    }
    int64_t i = t->heap_n++;
    for (; i && before(c, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
}

static struct candidate heap_pop(struct tok *t)
{
    struct candidate top = t->heap[0], last = t->heap[--t->heap_n];
    int64_t i = 0;

    for (int64_t child; (child = 2 * i + 1) < t->heap_n; i = child) {
        if (child + 1 < t->heap_n && before(t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t->heap[child], last))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* Looks up the merge of symbol i with its right neighbour and queues it. */
static void pair_up(struct tok *t, int32_t i)
{
    struct symbol *s = &t->symbol[i];
    int32_t pair[2] = {s->id, s->next >= 0 ? t->symbol[s->next].id : -1};

    s->rank = pair[0] >= 0 && pair[1] >= 0 ? map_get(&t->merges, pair, sizeof pair) : -1;
    if (s->rank >= 0)
        heap_push(t, (struct candidate){s->rank, i});
}

/* The piece's first symbols: bytes, or characters with bytes or the unknown token for the rest. */
static int32_t symbols_init(struct tok *t, const char *s, size_t n)
{
    int32_t count = 0;

    if ((int64_t)n > t->symbols_cap) {
        t->symbols_cap = (int64_t)n * 2;
        t->symbol = xrealloc(t->symbol, (size_t)t->symbols_cap * sizeof *t->symbol);
    }
    for (const char *p = s, *end = s + n; p < end;) {
        const char *from = p;
        int32_t id;
        if (t->byte_level) {
            id = t->byte_id[(unsigned char)*p++];
        } else {
            utf8_next(&p);
            id = map_get(&t->ids, from, (size_t)(p - from));
        }
        int bytes = id < 0 && t->byte_fallback;
        for (const char *b = from; bytes && b < p; b++)
            bytes = t->fallback[(unsigned char)*b] >= 0;
        for (; bytes && from < p; from++)
            t->symbol[count++].id = t->fallback[(unsigned char)*from];
        if (bytes)
            continue;
        if (id < 0 && t->fuse_unk && count && t->symbol[count - 1].id == t->unk)
            continue;
        if (id < 0 && (id = t->unk) < 0)
            continue; /* no token for it at all: it is lost */
        t->symbol[count++].id = id;
    }
    return count;
}

static void merge(struct tok *t, const char *piece, size_t n, struct ids *out)
{
    int32_t count = symbols_init(t, piece, n);

    for (int32_t i = 0; i < count; i++) {
        t->symbol[i].prev = i - 1;
        t->symbol[i].next = i + 1 < count ? i + 1 : -1;
    }
    t->heap_n = 0;
    for (int32_t i = 0; i < count; i++)
        pair_up(t, i);
    while (t->heap_n) {
        struct candidate c = heap_pop(t);
        struct symbol *left = &t->symbol[c.at];
        if (left->rank != c.rank)
            continue;
        struct symbol *right = &t->symbol[left->next];
        left->id = t->merge_id[c.rank];
        left->next = right->next;
        right->rank = -1;
        if (right->next >= 0)
            t->symbol[right->next].prev = c.at;
        pair_up(t, c.at);
        if (left->prev >= 0)
            pair_up(t, left->prev);
    }
    for (int32_t i = count ? 0 : -1; i >= 0; i = t->symbol[i].next)
        ids_add(out, t->symbol[i].id);
}

/* The token that is the whole piece, as the file spells it, or -1. */
static int32_t whole_piece(const struct tok *t, const char *s, size_t n)
{
    struct buf b = {0};
    int32_t id;

    if (!t->byte_level)
        return map_get(&t->ids, s, n);
    for (size_t i = 0; i < n; i++)
        utf8_add(&b, byte_level_char((uint8_t)s[i]));
    id = map_get(&t->ids, b.data, b.len);
    buf_release(&b);
    return id;
}

void tok_merge(struct tok *t, const char *piece, size_t n, struct ids *out)
{
    int32_t at, id;

    if (n > INT32_MAX / 2)
        die("a piece of text of %zu bytes without a place to cut it", n);
    if (n > CACHE_PIECE_MAX) {
        if (t->ignore_merges && (id = whole_piece(t, piece, n)) >= 0)
            ids_add(out, id);
        else
            merge(t, piece, n, out);
        return;
    }
    at = map_get(&t->cache, piece, n);
    if (at < 0) {
        if (t->cached.n > CACHE_IDS_MAX) {
            map_reset(&t->cache);
            t->cached.n = 0;
        }
        at = (int32_t)t->cached.n;
        *map_put(&t->cache, piece, n) = at;
        ids_add(&t->cached, 0); /* the count, known below */
        if (t->ignore_merges && (id = whole_piece(t, piece, n)) >= 0)
            ids_add(&t->cached, id);
        else
            merge(t, piece, n, &t->cached);
        t->cached.id[at] = (int32_t)(t->cached.n - at - 1);
    }
    for (int32_t i = 1; i <= t->cached.id[at]; i++)
        ids_add(out, t->cached.id[at + i]);
}
