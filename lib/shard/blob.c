/* blob.c -- a blob in memory, and how it is written.
 *
 * The bytes are a function of the tensors and the metadata alone: tensors by element width (widest
 * first, so that all are aligned without padding) and then by name, metadata by key, no free choice
 * left.  Equal data give equal files. */
#include "shard/shard_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int width_then_name(const void *pa, const void *pb)
{
    const struct tensor *a = pa, *b = pb;
    int64_t wa = dtype_size(a->type), wb = dtype_size(b->type);
    return wa != wb ? (wa < wb) - (wa > wb) : strcmp(a->name, b->name);
}

void blob_tensor(struct blob *b, const char *name, enum dtype t, int ndim, const int64_t *shape,
                 const void *data)
{
    assert(ndim >= 0 && ndim <= SHARD_DIMS);
    if (!*name || strlen(name) > SHARD_NAME_MAX || !strcmp(name, "header"))
        die("tensor name \"%s\" is empty, too long or reserved", name);
    if ((b->tensors & (b->tensors - 1)) == 0)
        b->tensor = xrealloc(b->tensor, (size_t)MAX(8, 2 * b->tensors) * sizeof *b->tensor);
    struct tensor *x = &b->tensor[b->tensors++];
    *x = (struct tensor){.name = xstrdup(name), .type = t, .ndim = ndim, .data = (void *)data};
    x->bytes = dtype_size(t);
    for (int i = 0; i < ndim; i++)
        x->bytes *= x->shape[i] = shape[i];
    b->sorted = 0;
}

static int64_t meta_place(const struct blob *b, const char *key)
{
    int64_t lo = 0, hi = b->keys;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (strcmp(b->key[mid], key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void blob_meta(struct blob *b, const char *key, const char *value)
{
    int64_t at = meta_place(b, key);
    if (at < b->keys && !strcmp(b->key[at], key)) {
        free(b->value[at]);
        b->value[at] = xstrdup(value);
        return;
    }
    if ((b->keys & (b->keys - 1)) == 0) {
        size_t room = (size_t)MAX(8, 2 * b->keys) * sizeof(char *);
        b->key = xrealloc(b->key, room);
        b->value = xrealloc(b->value, room);
    }
    memmove(b->key + at + 1, b->key + at, (size_t)(b->keys - at) * sizeof(char *));
    memmove(b->value + at + 1, b->value + at, (size_t)(b->keys - at) * sizeof(char *));
    b->key[at] = xstrdup(key);
    b->value[at] = xstrdup(value);
    b->keys++;
}

const char *blob_get(const struct blob *b, const char *key)
{
    int64_t at = meta_place(b, key);
    return at < b->keys && !strcmp(b->key[at], key) ? b->value[at] : NULL;
}

struct tensor *blob_find(const struct blob *b, const char *name)
{
    if (!b->sorted) {
        for (int64_t i = 0; i < b->tensors; i++)
            if (!strcmp(b->tensor[i].name, name))
                return &b->tensor[i];
        return NULL;
    }
    /* One search for each element width there is. */
    static const enum dtype width[] = {DT_I64, DT_I32, DT_I16, DT_U8};
    for (int64_t w = 0; w < ARRAY_LEN(width); w++) {
        struct tensor key = {.name = (char *)name, .type = width[w]};
        struct tensor *t =
            bsearch(&key, b->tensor, (size_t)b->tensors, sizeof *b->tensor, width_then_name);
        if (t)
            return t;
    }
    return NULL;
}

void blob_reset(struct blob *b)
{
    for (int64_t i = 0; i < b->tensors; i++)
        free(b->tensor[i].name);
    for (int64_t i = 0; i < b->keys; i++) {
        free(b->key[i]);
        free(b->value[i]);
    }
    free(b->tensor);
    free(b->key);
    free(b->value);
    *b = (struct blob){.memory = b->memory};
}

void blob_release(struct blob *b)
{
    blob_reset(b);
    free(b->memory);
    b->memory = NULL;
}

void blob_sort(struct blob *b)
{
    if (b->tensors)
        qsort(b->tensor, (size_t)b->tensors, sizeof *b->tensor, width_then_name);
    b->sorted = 1;
}

static int by_name(const void *pa, const void *pb)
{
    return strcmp((*(struct tensor *const *)pa)->name, (*(struct tensor *const *)pb)->name);
}

/* In order of name, so that each key goes to the end of the list instead of into its middle.  A
 * tensor without data is one whose bytes go by in blob_file.c, which sees to its checksum. */
static void blob_hash(struct blob *b)
{
    struct tensor **order = xmalloc((size_t)(b->tensors + 1) * sizeof *order);
    for (int64_t i = 0; i < b->tensors; i++)
        order[i] = &b->tensor[i];
    if (b->tensors)
        qsort(order, (size_t)b->tensors, sizeof *order, by_name);
    for (int64_t i = 0; i < b->tensors; i++) {
        struct tensor *t = order[i];
        if (i && !strcmp(order[i - 1]->name, t->name))
            die("tensor \"%s\" was added twice", t->name);
        char key[SHARD_NAME_MAX + 8], hex[17] = "0000000000000000";
        snprintf(key, sizeof key, "xxh3.%s", t->name);
        if (t->data || !t->bytes)
            hash_hex(hex, hash_xxh3(t->data, (size_t)t->bytes));
        else if (blob_get(b, key))
            continue;
        blob_meta(b, key, hex);
    }
    free(order);
    blob_meta(b, "xxh3.header", "0000000000000000");
}

static const char header_key[] = "\"xxh3.header\":\"";

int64_t header_hash_at(const char *text, int64_t n)
{
    /* These bytes cannot stand in a string, where the quotes would be escaped, nor after a value.
     */
    const char *p = memmem(text, (size_t)n, header_key, sizeof header_key - 1);
    int64_t at = p ? p - text + (int64_t)sizeof header_key - 1 : -1;
    return at >= 0 && at + 16 < n ? at : -1;
}

uint64_t header_hash(const char *text, int64_t n, int64_t at)
{
    struct hash_stream *h = hash_stream_new();
    hash_stream_add(h, text, (size_t)at);
    hash_stream_add(h, "0000000000000000", 16);
    hash_stream_add(h, text + at + 16, (size_t)(n - at - 16));
    uint64_t v = hash_stream_value(h);
    hash_stream_free(h);
    return v;
}

static void header_build(struct buf *h, struct blob *b)
{
    buf_str(h, "{\"__metadata__\":{");
    for (int64_t i = 0; i < b->keys; i++) {
        buf_str(h, i ? "," : "");
        json_quote(h, b->key[i], strlen(b->key[i]));
        buf_char(h, ':');
        json_quote(h, b->value[i], strlen(b->value[i]));
    }
    buf_char(h, '}');
    int64_t at = 0;
    for (int64_t i = 0; i < b->tensors; i++) {
        struct tensor *t = &b->tensor[i];
        buf_char(h, ',');
        json_quote(h, t->name, strlen(t->name));
        buf_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->type));
        for (int d = 0; d < t->ndim; d++)
            buf_printf(h, "%s%lld", d ? "," : "", (long long)t->shape[d]);
        t->at = at;
        at += t->bytes;
        buf_printf(h, "],\"data_offsets\":[%lld,%lld]}", (long long)t->at, (long long)at);
    }
    buf_char(h, '}');
}

void blob_header(struct blob *b, int64_t align, struct buf *h)
{
    blob_sort(b);
    blob_hash(b);
    header_build(h, b);
    while ((8 + (int64_t)h->len) % align)
        buf_char(h, ' ');
    int64_t max = align == SHARD_FILE_ALIGN ? SHARD_HEADER_MAX_FILE : SHARD_HEADER_MAX_STREAM;
    if ((int64_t)h->len > max)
        die("%lld tensors need a header of %zu bytes; a reader takes %lld", (long long)b->tensors,
            h->len, (long long)max);

    char hex[17];
    int64_t at = header_hash_at(h->data, (int64_t)h->len);
    hash_hex(hex, header_hash(h->data, (int64_t)h->len, at));
    memcpy(h->data + at, hex, 16);
    blob_meta(b, "xxh3.header", hex);
}

void header_length(uint8_t bytes[8], uint64_t n)
{
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(n >> (8 * i));
}

void blob_write(struct blob *b, struct out *o, int64_t align)
{
    struct buf h = {0};
    uint8_t length[8];
    blob_header(b, align, &h);
    header_length(length, h.len);
    out_write(o, length, 8);
    out_write(o, h.data, h.len);
    for (int64_t i = 0; i < b->tensors; i++)
        if (b->tensor[i].bytes)
            out_write(o, b->tensor[i].data, (size_t)b->tensor[i].bytes);
    buf_release(&h);
}
