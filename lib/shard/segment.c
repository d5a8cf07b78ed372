/* segment.c -- what makes a stream whole: every blob of a segment carries its number, and the end
 * blob carries the counts and a chained hash of all of them.  A stream that is cut off between two
 * blobs, or from which one was lost, does not add up. */
#include "shard/shard_priv.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

void segment_start(struct segment *g)
{
    *g = (struct segment){0};
    memset(g->chain, '0', 16);
}

static int64_t length_of(const struct blob *b, const char *name)
{
    const struct tensor *t = blob_find(b, name);
    return t && t->ndim == 1 ? t->shape[0] : 0;
}

void segment_add(struct segment *g, const struct blob *b)
{
    const char *schema = blob_get(b, "schema");
    char link[33];
    memcpy(link, g->chain, 16);
    memcpy(link + 16, blob_get(b, "xxh3.header"), 16);
    hash_hex(g->chain, hash_xxh3(link, 32));
    g->blobs++;
    if (schema && !strcmp(schema, "moeutils.rows")) {
        g->rows += length_of(b, "weight");
        g->tokens += length_of(b, "tokens");
        g->sequences += length_of(b, "pack");
    }
}

char *segment_end_check(const struct segment *g, const struct blob *end)
{
    const struct {
        const char *key;
        int64_t counted;
    } sum[] = {
        {"blobs", g->blobs}, {"rows", g->rows}, {"tokens", g->tokens}, {"sequences", g->sequences}};
    for (int64_t i = 0; i < ARRAY_LEN(sum); i++) {
        int64_t said;
        char *why = meta_count(end, sum[i].key, &said);
        if (why)
            return why;
        if (said != sum[i].counted)
            return xasprintf("the end blob counts %lld %s, the stream has %lld", (long long)said,
                             sum[i].key, (long long)sum[i].counted);
    }
    const char *chain = blob_get(end, "chain");
    if (!chain || strcmp(chain, g->chain))
        return xstrdup("the end blob's chained hash is another stream's");
    return end->tensors ? xstrdup("the end blob holds tensors") : NULL;
}

static void frame_add(ZSTD_CCtx *z, struct out *o, const void *p, size_t n, ZSTD_EndDirective how)
{
    char bytes[1 << 14];
    ZSTD_inBuffer in = {p, n, 0};
    size_t left;
    do {
        ZSTD_outBuffer out = {bytes, sizeof bytes, 0};
        left = ZSTD_compressStream2(z, &out, &in, how);
        if (ZSTD_isError(left))
            die("zstd: %s", ZSTD_getErrorName(left));
        if (out.pos)
            out_write(o, bytes, out.pos);
    } while (how == ZSTD_e_end ? left > 0 : in.pos < in.size);
}

/* Level 1: tokens shrink threefold at the speed of a disk, and higher levels gain little. */
static void frame_write(struct blob *b, struct out *o)
{
    struct buf h = {0};
    uint8_t length[8];
    blob_header(b, SHARD_STREAM_ALIGN, &h);
    header_length(length, h.len);
    ZSTD_CCtx *z = ZSTD_createCCtx();
    if (!z)
        die("no memory for zstd");
    ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, 1);
    frame_add(z, o, length, 8, ZSTD_e_continue);
    frame_add(z, o, h.data, h.len, ZSTD_e_continue);
    for (int64_t i = 0; i < b->tensors; i++)
        frame_add(z, o, b->tensor[i].data, (size_t)b->tensor[i].bytes, ZSTD_e_continue);
    frame_add(z, o, NULL, 0, ZSTD_e_end);
    ZSTD_freeCCtx(z);
    buf_release(&h);
}

static void blob_put(struct blob *b, struct out *o, int zstd)
{
    if (zstd)
        frame_write(b, o);
    else
        blob_write(b, o, SHARD_STREAM_ALIGN);
}

static void meta_number(struct blob *b, const char *key, int64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)n);
    blob_meta(b, key, text);
}

void segment_write(struct segment *g, struct blob *b, struct out *o, int zstd)
{
    meta_number(b, "blob", g->blobs);
    blob_put(b, o, zstd);
    segment_add(g, b);
}

void segment_write_end(struct segment *g, struct out *o, int zstd)
{
    struct blob end = {0};
    blob_meta(&end, "schema", "moeutils.end");
    blob_meta(&end, "version", "1");
    meta_number(&end, "blob", g->blobs);
    meta_number(&end, "blobs", g->blobs);
    meta_number(&end, "rows", g->rows);
    meta_number(&end, "tokens", g->tokens);
    meta_number(&end, "sequences", g->sequences);
    blob_meta(&end, "chain", g->chain);
    blob_put(&end, o, zstd);
    blob_release(&end);
}
