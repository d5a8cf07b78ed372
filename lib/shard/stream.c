/* stream.c -- reads blobs one after the other from a file or a pipe.
 *
 * Nothing is sought, so a pipe and a file are the same to it.  A blob is returned in place, in one
 * buffer that grows to the largest blob and is reused.  zstd frames are told from bare blobs by
 * their first four bytes, which as a header's length would be over the limit; frames may hold a
 * blob each, a whole stream, or be cut anywhere. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

enum { IN_BYTES = 1 << 18, GROWTH = 64 << 20, ZSTD_SKIPPABLE = 0x184D2A50 };
enum place { AT_START, AFTER_FILE, IN_SEGMENT, AFTER_SEGMENT };

struct stream {
    char *name;
    int fd;
    uint8_t *in; /* bytes as they came: in[in_at] to in[in_end] are not used yet */
    size_t in_at, in_end;
    ZSTD_DCtx *z;
    int in_frame, framed; /* inside a frame; this blob began in one */
    enum place place;
    struct segment segment;
    struct blob blob;
    struct buf header;
    int64_t room; /* bytes at blob.memory */
};

struct stream *stream_open(const char *path)
{
    struct stream *s = xcalloc(1, sizeof *s);
    int is_stdin = !strcmp(path, "-");
    s->name = xstrdup(is_stdin ? "stdin" : path);
    s->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        die("open %s:", path);
    s->in = xmalloc(IN_BYTES);
    return s;
}

/* Makes at least `want` bytes ready, fewer at the end of the input only.  Returns how many are. */
static size_t in_fill(struct stream *s, size_t want)
{
    if (s->in_end - s->in_at < want && s->in_at) {
        memmove(s->in, s->in + s->in_at, s->in_end - s->in_at);
        s->in_end -= s->in_at;
        s->in_at = 0;
    }
    while (s->in_end - s->in_at < want) {
        ssize_t got = read(s->fd, s->in + s->in_end, IN_BYTES - s->in_end);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die("read %s:", s->name);
        if (!got)
            break;
        s->in_end += (size_t)got;
    }
    return s->in_end - s->in_at;
}

int frame_magic(const uint8_t p[4])
{
    uint32_t magic = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return magic == ZSTD_MAGICNUMBER || (magic & ~15u) == ZSTD_SKIPPABLE;
}

static int64_t frame_bytes(struct stream *s, void *dst, int64_t n)
{
    ZSTD_outBuffer out = {dst, (size_t)n, 0};
    ZSTD_inBuffer in = {s->in + s->in_at, s->in_end - s->in_at, 0};
    size_t left = ZSTD_decompressStream(s->z, &out, &in);
    if (ZSTD_isError(left))
        die_damaged("%s: zstd: %s", s->name, ZSTD_getErrorName(left));
    if (left && !in.size && !out.pos)
        die_damaged("%s: cut off inside a zstd frame", s->name);
    s->in_at += in.pos;
    s->in_frame = left > 0;
    return (int64_t)out.pos;
}

/* Fills dst with the next n bytes; fewer at the end only.  at_blob: a blob begins here, and with it
 * the choice between bare and compressed. */
static int64_t stream_bytes(struct stream *s, void *dst, int64_t n, int at_blob)
{
    int64_t got = 0;
    while (got < n) {
        size_t have = in_fill(s, s->in_frame ? 1 : 4);
        if (!s->in_frame && at_blob && !got)
            s->framed = have >= 4 && frame_magic(s->in + s->in_at);
        if (!s->in_frame && s->framed && have >= 4 && frame_magic(s->in + s->in_at)) {
            s->z = s->z ? s->z : ZSTD_createDCtx();
            if (!s->z)
                die("no memory for zstd");
            s->in_frame = 1;
        }
        if (s->in_frame) {
            got += frame_bytes(s, (char *)dst + got, n - got);
        } else if (s->framed || !have) {
            break;
        } else {
            size_t take = MIN(have, (size_t)(n - got));
            memcpy((char *)dst + got, s->in + s->in_at, take);
            s->in_at += take;
            got += (int64_t)take;
        }
    }
    return got;
}

static void need(struct stream *s, void *dst, int64_t n)
{
    if (stream_bytes(s, dst, n, 0) < n)
        die_damaged("%s: cut off inside blob %lld", s->name, (long long)s->segment.blobs);
}

/* Memory grows as bytes arrive, so that a false header cannot claim more than twice what was sent.
 */
static void data_read(struct stream *s, int64_t n)
{
    for (int64_t have = 0; have < n;) {
        int64_t upto = MIN(n, MAX(s->room, MAX(GROWTH, 2 * have)));
        if (upto > s->room) {
            s->room = (upto + SHARD_STREAM_ALIGN - 1) / SHARD_STREAM_ALIGN * SHARD_STREAM_ALIGN;
            char *more = aligned_alloc(SHARD_STREAM_ALIGN, (size_t)s->room);
            if (!more)
                die("%s: no memory for a blob of %lld bytes", s->name, (long long)n);
            if (have)
                memcpy(more, s->blob.memory, (size_t)have);
            free(s->blob.memory);
            s->blob.memory = more;
        }
        need(s, (char *)s->blob.memory + have, upto - have);
        have = upto;
    }
}

static _Noreturn void damaged(const struct stream *s, const char *why)
{
    die_damaged("%s: blob %lld: %s", s->name, (long long)s->segment.blobs, why);
}

static void blob_read(struct stream *s, const uint8_t length[8])
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | length[i];
    if (n > SHARD_HEADER_MAX_FILE)
        die_damaged(
            "%s: blob %lld: not safetensors, or a header of %llu bytes, over the limit of %d",
            s->name, (long long)s->segment.blobs, (unsigned long long)n, SHARD_HEADER_MAX_FILE);
    buf_reset(&s->header);
    buf_reserve(&s->header, n + 1);
    need(s, s->header.data, (int64_t)n);

    struct blob *b = &s->blob;
    blob_reset(b);
    char *why = header_parse(b, s->header.data, (int64_t)n);
    blob_sort(b);
    if (!why && header_claims_profile(b))
        why = header_profile(b, s->header.data, (int64_t)n);
    if (why)
        damaged(s, why);
    data_read(s, header_data_bytes(b));
    for (int64_t i = 0; i < b->tensors; i++) {
        struct tensor *t = &b->tensor[i];
        t->data = (char *)b->memory + t->at;
        if ((why = tensor_verify(b, t, hash_xxh3(t->data, (size_t)t->bytes))))
            damaged(s, why);
    }
}

int stream_next(struct stream *s, struct blob *out)
{
    for (;;) {
        uint8_t length[8];
        int64_t got = stream_bytes(s, length, 8, 1);
        if (!got && !in_fill(s, 1)) {
            if (s->place == AT_START)
                die_damaged("%s: empty", s->name);
            if (s->place == IN_SEGMENT)
                die_damaged("%s: cut off after blob %lld: no end blob", s->name,
                            (long long)s->segment.blobs - 1);
            return 0;
        }
        if (s->place == AFTER_FILE)
            die_damaged("%s: trailing bytes after the last tensor", s->name);
        if (got < 8)
            die_damaged("%s: cut off inside a header's length", s->name);
        if (s->place != IN_SEGMENT)
            segment_start(&s->segment);
        blob_read(s, length);

        const char *schema = blob_get(&s->blob, "schema");
        int64_t number;
        if (!header_claims_profile(&s->blob) || !blob_get(&s->blob, "blob")) {
            if (s->place != AT_START)
                damaged(s, "a file inside a stream");
            s->place = AFTER_FILE;
            *out = s->blob;
            return 1;
        }
        char *why = meta_count(&s->blob, "blob", &number);
        if (!why && number != s->segment.blobs)
            why = xasprintf("numbered %lld: a blob is missing, or twice there", (long long)number);
        if (!why && schema && !strcmp(schema, "moeutils.end")) {
            if (!(why = segment_end_check(&s->segment, &s->blob))) {
                s->place = AFTER_SEGMENT;
                continue;
            }
        }
        if (why)
            damaged(s, why);
        segment_add(&s->segment, &s->blob);
        s->place = IN_SEGMENT;
        *out = s->blob;
        return 1;
    }
}

void stream_close(struct stream *s)
{
    if (s->fd != STDIN_FILENO)
        close(s->fd);
    ZSTD_freeDCtx(s->z);
    blob_release(&s->blob);
    buf_release(&s->header);
    free(s->in);
    free(s->name);
    free(s);
}
