/* pack.c -- documents into packed sequences into row groups.
 *
 * A packed sequence is a run of neighbouring documents that fit into seq tokens together.  An item,
 * one document or the two of a pair, goes into the sequence at hand or, where it does not fit,
 * begins the next one (next fit).  With a window, that many items are collected first and laid out
 * best fit, the longest first, each into the fullest sequence that still takes it: less padding,
 * another order. */
#include "shard/shard_priv.h"

#include <stdlib.h>
#include <string.h>

/* Columns of one F32 a row, by name. */
enum { VALUES = 4 };
static const char *const value_name[VALUES] = {"weight", "reward", "margin", "ref_logp"};

struct held {            /* a document in the window */
    int64_t at, n, pair; /* at: its first token in the window's buffers */
    float value[VALUES];
};
struct item {                                /* what may not be split */
    int64_t first, docs, tokens, order, bin; /* bin: its sequence's name */
};

struct packer {
    struct sink *sink;
    struct set_info info;
    int64_t group_tokens, window, sequences;
    int has_value[VALUES], has_pair;
    struct fingerprint print;

    struct buf window_token, window_target, window_doc, window_item; /* items not laid out yet */
    int waits; /* for the second document of a pair */

    struct buf token, target, offset, value[VALUES], pair, pack; /* the row group at hand */
    int64_t rows, tokens, pack_tokens; /* pack_tokens: of the last packed sequence */
};

struct packer *packer_open(const char *path, const struct set_info *info, int64_t group_tokens)
{
    struct packer *p = xcalloc(1, sizeof *p);
    p->sink = sink_open(path);
    set_info_copy(&p->info, info);
    p->group_tokens = sink_is_file(p->sink) ? INT64_MAX / 2 : MAX(group_tokens, info->seq);
    p->window = 1;
    for (int k = 0; k < VALUES; k++)
        p->has_value[k] = set_info_has(info, value_name[k]);
    p->has_pair = set_info_has(info, "pair");
    fingerprint_start(&p->print);
    return p;
}

void packer_window(struct packer *p, int64_t items)
{
    p->window = MAX(items, 1);
}

void packer_zstd(struct packer *p)
{
    sink_zstd(p->sink);
}

void packer_file(struct packer *p, const char *name, const void *bytes, size_t n)
{
    sink_file(p->sink, name, bytes, n);
}

static void group_put(struct packer *p)
{
    int64_t none = 0, end = p->tokens;
    struct rows r = {.rows = p->rows, .tokens = p->tokens};
    r.sequences = (int64_t)(p->pack.len / sizeof none);
    buf_add(&p->offset, &end, sizeof end);
    r.token = (const int32_t *)p->token.data;
    r.target = (const uint8_t *)p->target.data;
    r.offset = (const int64_t *)p->offset.data;
    const float **value[VALUES] = {&r.weight, &r.reward, &r.margin, &r.ref_logp}; /* (rows) each */
    for (int k = 0; k < VALUES; k++)
        *value[k] = p->has_value[k] ? (const float *)p->value[k].data : NULL;
    r.pair = p->has_pair ? (const int64_t *)p->pair.data : NULL;
    r.pack = (const int64_t *)p->pack.data;

    struct blob b = {0};
    int64_t offsets = r.rows + 1;
    set_info_put(&p->info, &b);
    blob_tensor(&b, "tokens", DT_I32, 1, &r.tokens, r.token);
    blob_tensor(&b, "tokens.offsets", DT_I64, 1, &offsets, r.offset);
    blob_tensor(&b, "target", DT_U8, 1, &r.tokens, r.target);
    blob_tensor(&b, "pack", DT_I64, 1, &r.sequences, r.pack);
    for (int k = 0; k < VALUES; k++)
        if (p->has_value[k])
            blob_tensor(&b, value_name[k], DT_F32, 1, &r.rows, *value[k]);
    if (p->has_pair)
        blob_tensor(&b, "pair", DT_I64, 1, &r.rows, r.pair);
    fingerprint_add(&p->print, &r);
    sink_put(p->sink, &b, &r);
    blob_release(&b);

    struct buf *column[] = {&p->token, &p->target, &p->offset, &p->pair, &p->pack};
    for (int i = 0; i < ARRAY_LEN(column); i++)
        buf_reset(column[i]);
    for (int k = 0; k < VALUES; k++)
        buf_reset(&p->value[k]);
    p->rows = p->tokens = p->pack_tokens = 0;
}

/* The next item begins a packed sequence, and where the group is full, a group. */
static void pack_begin(struct packer *p)
{
    if (p->tokens && p->tokens > p->group_tokens - p->info.seq)
        group_put(p);
    buf_add(&p->pack, &p->rows, sizeof p->rows);
    p->pack_tokens = 0;
    p->sequences++;
}

static void item_put(struct packer *p, const struct item *x)
{
    const struct held *d = (const struct held *)p->window_doc.data + x->first;
    for (const struct held *end = d + x->docs; d < end; d++) {
        buf_add(&p->offset, &p->tokens, sizeof p->tokens);
        buf_add(&p->token, (int32_t *)p->window_token.data + d->at, (size_t)d->n * sizeof(int32_t));
        buf_add(&p->target, p->window_target.data + d->at, (size_t)d->n);
        for (int k = 0; k < VALUES; k++)
            if (p->has_value[k])
                buf_add(&p->value[k], &d->value[k], sizeof d->value[k]);
        if (p->has_pair)
            buf_add(&p->pair, &d->pair, sizeof d->pair);
        p->tokens += d->n;
        p->rows++;
    }
    p->pack_tokens += x->tokens;
}

static int longest_first(const void *pa, const void *pb)
{
    const struct item *a = pa, *b = pb;
    if (a->tokens != b->tokens)
        return (a->tokens < b->tokens) - (a->tokens > b->tokens);
    return (a->order > b->order) - (a->order < b->order);
}

static int bin_then_order(const void *pa, const void *pb)
{
    const struct item *a = pa, *b = pb;
    if (a->bin != b->bin)
        return (a->bin > b->bin) - (a->bin < b->bin);
    return (a->order > b->order) - (a->order < b->order);
}

/* Sequences under way by their room, to find the fullest that still takes an item: a binary tree of
 * how many there are of each room, its leaves from `leaves` on, and a list of them for each.  A
 * sequence is named by the place of its longest item in the input, so that order stays near to it.
 */
struct shelf {
    int64_t leaves, *count; /* (2 leaves) */
    int64_t *first, *next;  /* (leaves) by room; (documents) by name: sequences, -1 at the end */
};

static void shelf_init(struct shelf *s, int64_t most, int64_t names)
{
    for (s->leaves = 1; s->leaves <= most;)
        s->leaves *= 2;
    s->count = xcalloc((size_t)s->leaves, 2 * sizeof *s->count);
    s->first = xmalloc((size_t)s->leaves * sizeof *s->first);
    s->next = xmalloc((size_t)names * sizeof *s->next);
    memset(s->first, -1, (size_t)s->leaves * sizeof *s->first);
}

static void shelf_release(struct shelf *s)
{
    free(s->count), free(s->first), free(s->next);
}

static void shelf_count(struct shelf *s, int64_t room, int64_t change)
{
    for (int64_t i = s->leaves + room; i; i /= 2)
        s->count[i] += change;
}

static void shelf_put(struct shelf *s, int64_t name, int64_t room)
{
    s->next[name] = s->first[room];
    s->first[room] = name;
    shelf_count(s, room, 1);
}

static int64_t shelf_take(struct shelf *s, int64_t room)
{
    int64_t name = s->first[room];
    s->first[room] = s->next[name];
    shelf_count(s, room, -1);
    return name;
}

/* The least room of a sequence that is `least` or more, or -1. */
static int64_t shelf_find(const struct shelf *s, int64_t least)
{
    int64_t i = s->leaves + least;
    while (!s->count[i]) { /* on to the next subtree on the right */
        while (i % 2)
            i /= 2;
        if (!i++)
            return -1;
    }
    while (i < s->leaves)
        i = 2 * i + !s->count[2 * i];
    return i - s->leaves;
}

static void window_best_fit(struct packer *p, struct item *item, int64_t n)
{
    struct shelf shelf;
    int64_t most = MIN(p->info.seq, (int64_t)p->window_target.len);
    shelf_init(&shelf, most, (int64_t)(p->window_doc.len / sizeof(struct held)));
    qsort(item, (size_t)n, sizeof *item, longest_first);
    for (int64_t i = 0; i < n; i++) {
        int64_t room = shelf_find(&shelf, item[i].tokens);
        item[i].bin = room < 0 ? item[i].order : shelf_take(&shelf, room);
        shelf_put(&shelf, item[i].bin, (room < 0 ? most : room) - item[i].tokens);
    }
    shelf_release(&shelf);
    qsort(item, (size_t)n, sizeof *item, bin_then_order);
    for (int64_t i = 0; i < n; i++) {
        if (!i || item[i].bin != item[i - 1].bin)
            pack_begin(p);
        item_put(p, &item[i]);
    }
}

static void window_put(struct packer *p)
{
    struct item *item = (struct item *)p->window_item.data;
    int64_t n = (int64_t)(p->window_item.len / sizeof *item);
    if (p->window > 1 && n) {
        window_best_fit(p, item, n);
    } else if (n) {
        if (!p->sequences || p->pack_tokens + item->tokens > p->info.seq)
            pack_begin(p);
        item_put(p, item);
    }
    buf_reset(&p->window_token);
    buf_reset(&p->window_target);
    buf_reset(&p->window_doc);
    buf_reset(&p->window_item);
}

void packer_add(struct packer *p, const struct doc *d)
{
    int64_t docs = (int64_t)(p->window_doc.len / sizeof(struct held));
    struct held h = {(int64_t)p->window_target.len,
                     d->n,
                     d->pair,
                     {(float)d->weight, (float)d->reward, (float)d->margin, (float)d->ref_logp}};
    if (d->n < 1)
        die("packer: a document has no tokens");
    buf_add(&p->window_token, d->token, (size_t)d->n * sizeof *d->token);
    buf_add(&p->window_target, d->target, (size_t)d->n);
    buf_add(&p->window_doc, &h, sizeof h);

    struct item x = {docs, 1, d->n, docs, 0};
    if (d->pair >= 0 && !p->waits) {
        p->waits = 1;
        return;
    }
    if (p->waits) {
        const struct held *other = (const struct held *)p->window_doc.data + docs - 1;
        if (other->pair != d->pair)
            die("packer: pair %lld has one document only", (long long)other->pair);
        x = (struct item){docs - 1, 2, other->n + d->n, docs - 1, 0};
        p->waits = 0;
    }
    if (x.tokens > p->info.seq)
        die("packer: %lld tokens do not fit into a sequence of %lld", (long long)x.tokens,
            (long long)p->info.seq);
    buf_add(&p->window_item, &x, sizeof x);
    if ((int64_t)(p->window_item.len / sizeof x) >= p->window)
        window_put(p);
}

int64_t packer_close(struct packer *p, const char *provenance)
{
    if (p->waits)
        die("packer: the last pair has one document only");
    window_put(p);
    if (p->tokens || !p->sequences) /* data of no rows are one empty group */
        group_put(p);
    char print[17];
    fingerprint_end(&p->print, &p->info, print);
    sink_close(p->sink, &p->info, print, provenance);

    struct buf *all[] = {&p->window_token, &p->window_target, &p->window_doc,
                         &p->window_item,  &p->token,         &p->target,
                         &p->offset,       &p->pair,          &p->pack};
    for (int i = 0; i < ARRAY_LEN(all); i++)
        buf_release(all[i]);
    for (int k = 0; k < VALUES; k++)
        buf_release(&p->value[k]);
    set_info_release(&p->info);
    int64_t sequences = p->sequences;
    free(p);
    return sequences;
}
