/* blob_file.c -- a blob written into a file as its bytes come, for tensors that no memory need
 * hold.
 *
 * A header's length does not depend on its checksums, so the bytes go to their places first, each
 * tensor hashed on its way, and the header is written over the zeros before them last.  The file is
 * the one that blob_write() makes of the same tensors. */
#include "shard/shard_priv.h"

#include <assert.h>
#include <stdlib.h>

struct blob_file {
    struct blob *b;
    struct out *out;
    struct hash_stream *hash; /* of the tensor at hand */
    int64_t at, left;         /* which tensor that is, and how many of its bytes are to come */
};

/* Ends every tensor whose bytes are all there; one of no elements has none to wait for. */
static void step(struct blob_file *f)
{
    while (f->at < f->b->tensors && !f->left) {
        char key[SHARD_NAME_MAX + 8], hex[17];
        snprintf(key, sizeof key, "xxh3.%s", f->b->tensor[f->at].name);
        hash_hex(hex, hash_stream_value(f->hash));
        blob_meta(f->b, key, hex);
        hash_stream_free(f->hash);
        f->hash = hash_stream_new();
        if (++f->at < f->b->tensors)
            f->left = f->b->tensor[f->at].bytes;
    }
}

struct blob_file *blob_file_open(struct blob *b, const char *path)
{
    struct blob_file *f = xcalloc(1, sizeof *f);
    struct buf header = {0};
    uint8_t length[8] = {0};
    *f = (struct blob_file){.b = b, .out = out_open(path), .hash = hash_stream_new()};
    blob_header(b, SHARD_FILE_ALIGN, &header);
    out_write(f->out, length, sizeof length);
    out_write(f->out, header.data, header.len);
    buf_release(&header);
    f->left = b->tensors ? b->tensor[0].bytes : 0;
    step(f);
    return f;
}

void blob_file_put(struct blob_file *f, const void *bytes, int64_t n)
{
    assert(n <= f->left);
    hash_stream_add(f->hash, bytes, (size_t)n);
    out_write(f->out, bytes, (size_t)n);
    f->left -= n;
    step(f);
}

int64_t blob_file_close(struct blob_file *f)
{
    struct buf header = {0};
    uint8_t length[8];
    assert(f->at == f->b->tensors);
    blob_header(f->b, SHARD_FILE_ALIGN, &header);
    header_length(length, header.len);
    out_rewrite(f->out, 0, length, sizeof length);
    out_rewrite(f->out, sizeof length, header.data, header.len);
    int64_t bytes = out_bytes(f->out);
    out_close(f->out);
    hash_stream_free(f->hash);
    buf_release(&header);
    free(f);
    return bytes;
}
