/* file.c -- one file: the header is read and checked on opening, tensors when asked for.
 *
 * Reads are pread() of large blocks, hashed while they are still in the cache. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BLOCK = 1 << 20 };

struct shard_file {
    char *path;
    int fd;
    int64_t data_at; /* where the data section begins */
    struct blob blob;
};

static void file_read(const struct shard_file *f, void *dst, int64_t n, int64_t at)
{
    for (char *p = dst; n > 0;) {
        ssize_t got = pread(f->fd, p, (size_t)n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die("read %s:", f->path);
        if (!got)
            die_damaged("%s: cut off at byte %lld", f->path, (long long)at);
        p += got;
        at += got;
        n -= got;
    }
}

/* A regular file, bare, that is no stream: in a stream's first header metadata "blob" comes first.
 */
int shard_is_file(const char *path)
{
    static const char stream[] = "{\"__metadata__\":{\"blob\":\"";
    struct stat st;
    if (!strcmp(path, "-"))
        return 0;
    if (stat(path, &st))
        die("open %s:", path);
    if (!S_ISREG(st.st_mode))
        return 0;
    char head[8 + sizeof stream - 1] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, head, sizeof head, 0) < 0)
        die("open %s:", path);
    close(fd);
    return memcmp(head + 8, stream, sizeof stream - 1) && !frame_magic((const uint8_t *)head);
}

struct shard_file *shard_open(const char *path)
{
    struct shard_file *f = xcalloc(1, sizeof *f);
    f->path = xstrdup(path);
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused, not waited for */
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st))
        die("open %s:", path);
    if (!S_ISREG(st.st_mode))
        die("%s: not a regular file", path);
    if (st.st_size < 8)
        die_damaged("%s: %lld bytes are no safetensors file", path, (long long)st.st_size);

    uint8_t length[8];
    uint64_t n = 0;
    file_read(f, length, 8, 0);
    for (int i = 7; i >= 0; i--)
        n = n << 8 | length[i];
    if (!memcmp(length, "version ", 8))
        die_damaged("%s: a pointer of Git LFS (git lfs pull fetches the file itself)", path);
    if (n > SHARD_HEADER_MAX_FILE)
        die_damaged("%s: not safetensors, or a header of %llu bytes, over the limit of %d", path,
                    (unsigned long long)n, SHARD_HEADER_MAX_FILE);
    if ((int64_t)n > st.st_size - 8)
        die_damaged("%s: cut off: a header of %llu bytes in a file of %lld", path,
                    (unsigned long long)n, (long long)st.st_size);
    char *text = xmalloc(n + 1);
    file_read(f, text, (int64_t)n, 8);

    char *why = header_parse(&f->blob, text, (int64_t)n);
    blob_sort(&f->blob);
    if (!why && header_claims_profile(&f->blob)) {
        why = header_profile(&f->blob, text, (int64_t)n);
        if (!why && blob_get(&f->blob, "blob"))
            why = xstrdup("a stream, or a piece of one, and not a file");
    }
    free(text);
    if (why)
        die_damaged("%s: %s", path, why);
    f->data_at = 8 + (int64_t)n;
    int64_t promised = header_data_bytes(&f->blob), there = st.st_size - f->data_at;
    if (there < promised)
        die_damaged("%s: cut off: %lld bytes of data, the header promises %lld", path,
                    (long long)there, (long long)promised);
    if (there > promised)
        die_damaged("%s: %lld trailing bytes after the last tensor", path,
                    (long long)(there - promised));
    return f;
}

const struct blob *shard_header(const struct shard_file *f)
{
    return &f->blob;
}

uint64_t shard_blocks(struct shard_file *f, const struct tensor *t,
                      void (*take)(void *arg, const void *bytes, int64_t n), void *arg)
{
    struct hash_stream *h = hash_stream_new();
    char *block = xmalloc(READ_BLOCK);
    for (int64_t at = 0; at < t->bytes; at += READ_BLOCK) {
        int64_t n = MIN(READ_BLOCK, t->bytes - at);
        file_read(f, block, n, f->data_at + t->at + at);
        hash_stream_add(h, block, (size_t)n);
        if (take)
            take(arg, block, n);
    }
    uint64_t hash = hash_stream_value(h);
    char *why = tensor_verify(&f->blob, t, hash);
    if (why)
        die_damaged("%s: %s", f->path, why);
    hash_stream_free(h);
    free(block);
    return hash;
}

void shard_read(struct shard_file *f, const struct tensor *t, void *dst)
{
    struct hash_stream *h = hash_stream_new();
    for (int64_t at = 0; at < t->bytes; at += READ_BLOCK) {
        int64_t n = MIN(READ_BLOCK, t->bytes - at);
        file_read(f, (char *)dst + at, n, f->data_at + t->at + at);
        hash_stream_add(h, (char *)dst + at, (size_t)n);
    }
    char *why = tensor_verify(&f->blob, t, hash_stream_value(h));
    if (why)
        die_damaged("%s: %s", f->path, why);
    hash_stream_free(h);
}

void shard_read_part(struct shard_file *f, const struct tensor *t, int64_t at, int64_t n, void *dst)
{
    if (at < 0 || n < 0 || n > t->bytes - at)
        die("%s: bytes %lld to %lld of tensor \"%s\", which has %lld", f->path, (long long)at,
            (long long)(at + n), t->name, (long long)t->bytes);
    file_read(f, dst, n, f->data_at + t->at + at);
}

void *shard_map(struct shard_file *f, size_t *bytes)
{
    *bytes = (size_t)(f->data_at + header_data_bytes(&f->blob));
    char *map = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, f->fd, 0);
    if (map == MAP_FAILED)
        die("map %s:", f->path);
    for (int64_t i = 0; i < f->blob.tensors; i++)
        f->blob.tensor[i].data = map + f->data_at + f->blob.tensor[i].at;
    return map;
}

void shard_close(struct shard_file *f)
{
    close(f->fd);
    blob_release(&f->blob);
    free(f->path);
    free(f);
}

void shard_check(const char *path)
{
    struct shard_file *f = shard_open(path);
    if (!header_claims_profile(&f->blob))
        die_damaged("%s: sound as plain safetensors, but without checksums to verify", path);
    for (int64_t i = 0; i < f->blob.tensors; i++)
        shard_blocks(f, &f->blob.tensor[i], NULL, NULL);
    shard_close(f);
}
