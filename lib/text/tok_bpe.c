/* tok_bpe.c -- the merges: of all neighbours that can merge, the pair learnt first, leftmost first.
 *
 * Words are short: all their pairs are looked through for the first one, a few vector instructions.
 * Of long pieces a heap holds every pair that could merge, by rank and place; one that has changed
 * since is recognised by its rank and skipped.  So a piece of n symbols costs n log n, which
 * matters where a tokenizer cuts nothing and a book is one piece. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT = 128, RANKS = UINT32_MAX / SHORT / 2 }; /* a rank and a place fit 32 bits */

static void ids_reserve(struct ids *v, int64_t more)
{
    if (v->cap - v->n < more) {
        v->cap = MAX(64, 2 * v->cap);
        v->id = xrealloc(v->id, (size_t)v->cap * sizeof *v->id);
    }
}

void ids_add(struct ids *v, int32_t id)
{
    ids_reserve(v, 1);
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
    const struct merge *m =
        s->next >= 0 ? pairs_get(&t->merges, s->id, t->symbol[s->next].id) : NULL;

    s->rank = m ? m->rank : -1;
    if (m)
        heap_push(t, (struct candidate){s->rank, i});
}

/* The piece's first symbols: bytes, or characters, with bytes by name or the unknown token for the
 * rest.  As in the library, an unknown one waits for the next that is known, past bytes. */
static int32_t symbols_init(struct tok *t, const char *s, size_t n)
{
    int32_t count = 0;
    int waits = 0;

    if ((int64_t)n > t->symbols_cap) {
        t->symbols_cap = (int64_t)n * 2;
        t->symbol = xrealloc(t->symbol, (size_t)t->symbols_cap * sizeof *t->symbol);
        t->first = xrealloc(t->first, (size_t)t->symbols_cap * sizeof *t->first);
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
            t->first[count++] = t->fallback[(unsigned char)*from];
        if (bytes || (id < 0 && t->unk < 0)) /* the latter is lost */
            continue;
        if (waits && (id >= 0 || !t->fuse_unk))
            t->first[count++] = t->unk;
        waits = id < 0;
        if (id >= 0)
            t->first[count++] = id;
    }
    if (waits)
        t->first[count++] = t->unk;
    return count;
}

static void merge_long(struct tok *t, int32_t count, struct ids *out)
{
    for (int32_t i = 0; i < count; i++) {
        t->symbol[i].id = t->first[i];
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
        left->id = pairs_get(&t->merges, left->id, right->id)->id;
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

/* order[i]: the rank of symbol i's merge with the next one, above i; all ones: none. */
static void short_pair(const struct tok *t, uint32_t *order, int32_t *made, int i, int32_t left,
                       int32_t right)
{
    const struct merge *m = pairs_get(&t->merges, left, right);

    order[i] = m ? (uint32_t)m->rank * SHORT + (uint32_t)i : UINT32_MAX;
    if (m)
        made[i] = m->id;
}

static void merge_short(struct tok *t, int count, struct ids *out)
{
    uint32_t order[SHORT];
    int32_t made[SHORT], *id = t->first;
    uint8_t next[SHORT + 1], prev[SHORT + 1];
    int padded = (count + 7) & ~7;

    for (int i = 0; i < count; i++) {
        next[i] = (uint8_t)(i + 1);
        prev[i] = (uint8_t)(i - 1);
        if (i + 1 < count)
            short_pair(t, order, made, i, id[i], id[i + 1]);
    }
    for (int i = MAX(count - 1, 0); i < padded; i++)
        order[i] = UINT32_MAX;
    for (;;) {
        uint32_t best = UINT32_MAX;
        for (int i = 0; i < padded; i++)
            best = MIN(best, order[i]);
        if (best == UINT32_MAX)
            break;
        int i = (int)(best % SHORT), gone = next[i], after = next[gone];
        id[i] = made[i];
        next[i] = (uint8_t)after;
        order[gone] = order[i] = UINT32_MAX;
        if (after < count) {
            prev[after] = (uint8_t)i;
            short_pair(t, order, made, i, id[i], id[after]);
        }
        if (i)
            short_pair(t, order, made, prev[i], id[prev[i]], id[i]);
    }
    for (int i = 0; i < count; i = next[i])
        ids_add(out, id[i]);
}

static void merge(struct tok *t, const char *piece, size_t n, struct ids *out)
{
    int32_t count = symbols_init(t, piece, n);

    if (count <= SHORT && t->merges.slots <= RANKS)
        merge_short(t, count, out);
    else
        merge_long(t, count, out);
}

/* The token that is the whole piece, as the file spells it, or -1. */
static int32_t whole_piece(const struct tok *t, const char *s, size_t n)
{
    struct buf b = {0};
    int32_t id;

    if (!t->byte_level)
        return map_get(&t->ids, s, n);
    for (size_t i = 0; i < n && b.len <= t->longest; i++) {
        const char *c = t->byte_char[(unsigned char)s[i]];
        buf_add(&b, c, c[1] ? 2 : 1);
    }
    id = b.len <= t->longest ? map_get(&t->ids, b.data, b.len) : -1;
    buf_release(&b);
    return id;
}

static void encode(struct tok *t, const char *piece, size_t n, struct ids *out)
{
    int32_t id = t->ignore_merges ? whole_piece(t, piece, n) : -1;

    if (id >= 0)
        ids_add(out, id);
    else
        merge(t, piece, n, out);
}

static void encode_part(struct tok *t, const char *piece, size_t n, struct ids *out)
{
    int64_t from = out->n;
    int found;

    if (n > INT32_MAX / 2)
        die("a piece of text of %zu bytes without a place to cut it", n);
    if (n > CACHED_BYTES) {
        encode(t, piece, n, out);
        return;
    }
    if (!t->cache)
        t->cache = tok_cache_new();
    struct cached *c = tok_cache_at(t->cache, piece, n, &found);
    if (found) {
        ids_reserve(out, CACHED_IDS);
        memcpy(out->id + from, c->id, sizeof c->id);
        out->n += c->n;
        return;
    }
    encode(t, piece, n, out);
    if (out->n - from > CACHED_IDS) {
        c->len = 0;
        return;
    }
    c->n = (uint8_t)(out->n - from);
    if (c->n) /* a piece may be lost as a whole */
        memcpy(c->id, out->id + from, c->n * sizeof *c->id);
}

/* Two characters that stand beside each other in no token are never in one token.  A hashed set may
 * say that they do where they do not. */
static size_t beside_bit(uint32_t a, uint32_t b)
{
    return (((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u) >> 44;
}

static void beside_fill(struct tok *t)
{
    t->known = xcalloc(0x110000 / 8, 1);
    t->beside = xcalloc((1 << 20) / 8, 1);
    for (size_t i = 0; i < t->ids.slots; i++) {
        const struct map_slot *s = &t->ids.slot[i];
        if (s->value < 0 || !s->len)
            continue;
        const char *p = t->ids.keys.data + s->at, *end = p + s->len;
        uint32_t a = utf8_next(&p), b;
        if (p == end)
            t->known[a / 8] |= (uint8_t)(1 << a % 8);
        for (; p < end; a = b) {
            b = utf8_next(&p);
            t->beside[beside_bit(a, b) / 8] |= (uint8_t)(1 << beside_bit(a, b) % 8);
        }
    }
}

/* A piece may be a book where a tokenizer cuts nothing, so it is cut where no token can lie:
 * between two characters of the vocabulary (others may be fused, or lost) that no token has so. */
void tok_merge(struct tok *t, const char *piece, size_t n, struct ids *out)
{
    const char *from = piece, *end = piece + n, *p = piece;

    if (n > CACHED_BYTES && !t->byte_level && !t->ignore_merges) {
        if (!t->known)
            beside_fill(t);
        for (uint32_t a = 0xfffe, b; p < end; a = b) {
            const char *start = p;
            b = utf8_next(&p);
            size_t bit = beside_bit(a, b);
            if (start == from || t->beside[bit / 8] >> bit % 8 & 1 ||
                !(t->known[a / 8] >> a % 8 & 1) || !(t->known[b / 8] >> b % 8 & 1))
                continue;
            encode_part(t, from, (size_t)(start - from), out);
            from = start;
        }
    }
    encode_part(t, from, (size_t)(end - from), out);
}
