/* megatron.c -- Megatron-LM's indexed datasets: PREFIX.bin, the tokens of all sequences end to end,
 * and PREFIX.idx, where each begins and which are a document.
 *
 * The index: "MMIDIDX\0\0", version 1 (u64), type of a token (u8), sequences S and entries D of the
 * last list (u64), then the sequences' lengths (i32, S) and byte offsets (i64, S), and the number
 * of the sequence that each document begins with, S at the end (i64, D).  Little endian, nothing
 * aligned.
 *
 * Nothing but tokens has a place there.  What else a document has is counted and said. */
#include "shard/shard.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[9] = "MMIDIDX\0";
enum { HEADER = 34, U16_VOCAB = 65500 /* from here on Megatron takes i32 */ };
enum { CODE_I32 = 4, CODE_U16 = 8 };

/* By the code of the type; 0: floats, and what there is not. */
static const struct {
    int bytes, is_signed;
} types[] = {{0, 0}, {1, 0}, {1, 1}, {2, 1}, {4, 1}, {8, 1}, {0, 0}, {0, 0}, {2, 0}};

static char *with_suffix(const char *prefix, const char *suffix)
{
    size_t n = strlen(prefix);
    if (n > 4 && (!strcmp(prefix + n - 4, ".bin") || !strcmp(prefix + n - 4, ".idx")))
        n -= 4;
    return xasprintf("%.*s%s", (int)n, prefix, suffix);
}

/* ---- writing ---- */

struct writer {
    char *idx;
    struct out *bin;
    int code;
    int64_t at;                 /* bytes of tokens so far */
    struct buf length, pointer; /* i32 and i64 of each document */
    int64_t masked, weighted;   /* tokens that are not learnt, documents of another weight than 1 */
};

static void *create(const char *path, int64_t vocab)
{
    if (!path || !strcmp(path, "-"))
        die_misused(
            "Megatron's format is two files, PREFIX.bin and PREFIX.idx: -o PREFIX is wanted");
    struct writer *w = xcalloc(1, sizeof *w);
    char *bin = with_suffix(path, ".bin");
    w->idx = with_suffix(path, ".idx");
    w->code = vocab < U16_VOCAB ? CODE_U16 : CODE_I32;
    w->bin = out_open(bin);
    free(bin);
    return w;
}

static const char *put(void *format, const struct doc *d, unsigned parts)
{
    struct writer *w = format;
    int32_t n = (int32_t)d->n;
    if (parts & DOC_PAIR)
        return "a pair, which Megatron's format cannot hold together";
    buf_add(&w->length, &n, sizeof n);
    buf_add(&w->pointer, &w->at, sizeof w->at);
    for (int64_t i = 0; i < d->n; i++) {
        uint16_t narrow = (uint16_t)d->token[i];
        out_write(w->bin, w->code == CODE_U16 ? (void *)&narrow : (void *)&d->token[i],
                  (size_t)types[w->code].bytes);
        w->masked += i && !d->target[i]; /* the first token has nothing that it could follow from */
    }
    w->weighted += d->weight != 1;
    w->at += d->n * types[w->code].bytes;
    return NULL;
}

/* The index is published last and the old one goes first, so that there never is one of other data.
 */
static void finish(void *format)
{
    struct writer *w = format;
    uint64_t n = w->length.len / sizeof(int32_t), entries = n + 1, version = 1;
    uint8_t code = (uint8_t)w->code;
    unlink(w->idx);
    out_close(w->bin);
    struct out *o = out_open(w->idx);
    out_write(o, magic, sizeof magic);
    out_write(o, &version, sizeof version);
    out_write(o, &code, sizeof code);
    out_write(o, &n, sizeof n);
    out_write(o, &entries, sizeof entries);
    if (n) {
        out_write(o, w->length.data, w->length.len);
        out_write(o, w->pointer.data, w->pointer.len);
    }
    for (uint64_t i = 0; i <= n; i++)
        out_write(o, &i, sizeof i);
    out_close(o);
    if (w->masked || w->weighted)
        warn("Megatron's format holds neither masks nor weights: %lld tokens will be learnt that "
             "are "
             "not to be, and %lld documents count as others do",
             (long long)w->masked, (long long)w->weighted);
    buf_release(&w->length);
    buf_release(&w->pointer);
    free(w->idx);
    free(w);
}

/* ---- reading ---- */

struct reader {
    char *idx, *bin;
    const uint8_t *index, *data; /* mapped */
    size_t index_bytes, data_bytes;
    const uint8_t *length, *pointer, *document; /* in the index: i32 (n), i64 (n), i64 (docs + 1) */
    int64_t n, docs, next;
    int code;
    struct buf token, target;
};

static const uint8_t *map(const char *path, size_t *bytes)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        die("%s:", path);
    *bytes = (size_t)st.st_size;
    void *at = *bytes ? mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (at == MAP_FAILED)
        die("map %s:", path);
    close(fd);
    return at;
}

static int64_t i64_at(const uint8_t *p, int64_t i)
{
    int64_t x;
    memcpy(&x, p + 8 * i, 8);
    return x;
}

static int64_t i32_at(const uint8_t *p, int64_t i)
{
    int32_t x;
    memcpy(&x, p + 4 * i, 4);
    return x;
}

/* NULL, or what is wrong with the index.  Every number in it is checked before any is used. */
static const char *index_fault(struct reader *r)
{
    const uint8_t *p = r->index;
    if (r->index_bytes < HEADER || memcmp(p, magic, sizeof magic))
        return "not an index of Megatron's";
    if (i64_at(p + 9, 0) != 1)
        return "not version 1";
    r->code = p[17];
    r->n = i64_at(p + 18, 0);
    r->docs = MAX(i64_at(p + 26, 0), 0) - 1;
    if (r->code >= ARRAY_LEN(types) || !types[r->code].bytes)
        return "its tokens are of no type of integers";
    int64_t max = (int64_t)r->index_bytes;
    if (r->n < 0 || r->docs < 0 || r->n > max || r->docs > max ||
        HEADER + 12 * r->n + 8 * (r->docs + 1) != max)
        return "it is not as long as its counts say (cut off, or multimodal)";
    r->length = p + HEADER;
    r->pointer = r->length + 4 * r->n;
    r->document = r->pointer + 8 * r->n;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t at = i64_at(r->pointer, i), bytes = i32_at(r->length, i) * types[r->code].bytes;
        if (bytes < 0 || at < 0 || at > (int64_t)r->data_bytes - bytes)
            return "a sequence lies outside of the .bin";
    }
    if (i64_at(r->document, 0) != 0 || i64_at(r->document, r->docs) != r->n)
        return "its documents do not begin with the first sequence and end with the last";
    for (int64_t i = 0; i < r->docs; i++)
        if (i64_at(r->document, i) > i64_at(r->document, i + 1))
            return "its documents are not in order";
    return NULL;
}

static void *open_reader(const char *path)
{
    struct reader *r = xcalloc(1, sizeof *r);
    r->idx = with_suffix(path, ".idx");
    r->bin = with_suffix(path, ".bin");
    r->index = map(r->idx, &r->index_bytes);
    r->data = map(r->bin, &r->data_bytes);
    const char *why = index_fault(r);
    if (why)
        die_damaged("%s: %s", r->idx, why);
    return r;
}

/* Ids beyond an i32 become -1, which no vocabulary has. */
static int32_t token_at(const uint8_t *p, int code)
{
    int64_t x = 0;
    memcpy(&x, p, (size_t)types[code].bytes);
    int unused = 64 - 8 * types[code].bytes;
    if (types[code].is_signed)
        x = (int64_t)((uint64_t)x << unused) >> unused;
    return x < 0 || x > INT32_MAX ? -1 : (int32_t)x;
}

static int next(void *format, struct doc *d, unsigned *parts)
{
    struct reader *r = format;
    if (r->next == r->docs)
        return 0;
    int64_t lo = i64_at(r->document, r->next), hi = i64_at(r->document, ++r->next);
    buf_reset(&r->token);
    buf_reset(&r->target);
    for (int64_t s = lo; s < hi; s++) {
        const uint8_t *p = r->data + i64_at(r->pointer, s);
        for (int64_t i = 0; i < i32_at(r->length, s); i++, p += types[r->code].bytes) {
            int32_t id = token_at(p, r->code);
            buf_add(&r->token, &id, sizeof id);
            buf_char(&r->target, 1);
        }
    }
    *parts = 0;
    *d = (struct doc){.token = (int32_t *)r->token.data,
                      .target = (uint8_t *)r->target.data,
                      .n = (int64_t)r->target.len,
                      .weight = 1,
                      .reward = __builtin_nan(""),
                      .pair = -1};
    return 1;
}

static void close_reader(void *format)
{
    struct reader *r = format;
    munmap((void *)r->index, r->index_bytes);
    if (r->data)
        munmap((void *)r->data, r->data_bytes);
    buf_release(&r->token);
    buf_release(&r->target);
    free(r->idx);
    free(r->bin);
    free(r);
}

const struct docs_format docs_megatron = {"megatron",  create, put,         finish,
                                          open_reader, next,   close_reader};
