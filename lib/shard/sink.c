/* sink.c -- where row groups go: one file, a stream, or a set.
 *
 * All three appear whole or not at all.  A set's manifest is written last and says what must be
 * there: each file's size and hashes, and the sums over all of them. */
#include "shard/shard_priv.h"

#include <stdlib.h>
#include <string.h>

struct entry { /* a file of the set */
    char *name;
    int64_t bytes, rows, tokens, sequences; /* rows -1: no shard */
    char sha256[65], xxh3[17];              /* xxh3: of the shard's header */
};

struct sink {
    char *path, *tmp; /* tmp: a set's unpublished folder */
    struct out *out;  /* a file or stream */
    int is_stream, zstd;
    struct segment segment; /* counts for all three */
    struct entry *entry;
    int64_t entries, shards;
    struct extra {
        char *tensor; /* "file.NAME" */
        struct buf bytes;
    } * extra; /* go into the next blob of a file or stream */
    int64_t extras, extras_put;
};

static int ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* By its name.  Not by the manifest: make removes that one when a recipe is stopped. */
static int is_part_of_set(const char *name)
{
    static const char *const others[] = {"manifest.json", "tokenizer.json", "tokenizer_config.json",
                                         "tags.json"};
    int end = 0;
    sscanf(name, "data-%*[0-9].safetensors%n", &end);
    for (int64_t i = 0; i < ARRAY_LEN(others) && !end; i++)
        end = strcmp(name, others[i]) ? 0 : (int)strlen(name);
    return end && !name[end];
}

struct sink *sink_open(const char *path)
{
    struct sink *s = xcalloc(1, sizeof *s);
    int is_stdout = !path || !strcmp(path, "-");
    s->path = is_stdout ? NULL : xstrdup(path);
    segment_start(&s->segment);
    if (!is_stdout && ends_with(path, "/")) {
        s->path[strlen(path) - 1] = 0;
        dir_spare(path, "set", is_part_of_set);
        s->tmp = dir_begin(s->path);
        return s;
    }
    s->zstd = !is_stdout && ends_with(path, ".sts.zst");
    s->is_stream = is_stdout || s->zstd || ends_with(path, ".sts");
    s->out = out_open(s->path);
    return s;
}

int sink_is_file(const struct sink *s)
{
    return s->out && !s->is_stream;
}

void sink_zstd(struct sink *s)
{
    if (!s->is_stream)
        die_misused("only a stream is written in zstd frames");
    s->zstd = 1;
}

static struct entry *entry_add(struct sink *s, const char *name, int64_t bytes)
{
    s->entry = xrealloc(s->entry, (size_t)(s->entries + 1) * sizeof *s->entry);
    struct entry *e = &s->entry[s->entries++];
    char *path = path_join(s->tmp, name);
    *e = (struct entry){.name = xstrdup(name), .bytes = bytes, .rows = -1};
    if (hash_sha256_file(e->sha256, path))
        die("read %s:", path);
    free(path);
    return e;
}

void sink_file(struct sink *s, const char *name, const void *bytes, size_t n)
{
    if (s->tmp) {
        char *path = path_join(s->tmp, name);
        write_file(path, bytes, n);
        free(path);
        entry_add(s, name, (int64_t)n);
        return;
    }
    s->extra = xrealloc(s->extra, (size_t)(s->extras + 1) * sizeof *s->extra);
    struct extra *x = &s->extra[s->extras++];
    *x = (struct extra){.tensor = xasprintf("file.%s", name)};
    buf_add(&x->bytes, bytes, n);
}

void sink_put(struct sink *s, struct blob *b, const struct rows *r)
{
    if (s->tmp) {
        char name[40];
        snprintf(name, sizeof name, "data-%05lld.safetensors", (long long)s->shards++);
        char *path = path_join(s->tmp, name);
        struct out *o = out_open(path);
        blob_write(b, o, SHARD_FILE_ALIGN);
        int64_t bytes = out_bytes(o);
        out_close(o);
        struct entry *e = entry_add(s, name, bytes);
        e->rows = r->rows;
        e->tokens = r->tokens;
        e->sequences = r->sequences;
        memcpy(e->xxh3, blob_get(b, "xxh3.header"), 17);
        segment_add(&s->segment, b);
        free(path);
        return;
    }
    for (; s->extras_put < s->extras; s->extras_put++) {
        const struct extra *x = &s->extra[s->extras_put];
        int64_t n = (int64_t)x->bytes.len;
        blob_tensor(b, x->tensor, DT_U8, 1, &n, x->bytes.data);
    }
    if (s->is_stream) {
        segment_write(&s->segment, b, s->out, s->zstd);
    } else {
        blob_write(b, s->out, SHARD_FILE_ALIGN);
        segment_add(&s->segment, b);
    }
}

static void put_text(struct buf *m, const char *key, const char *value)
{
    buf_printf(m, "  \"%s\": ", key);
    json_quote(m, value, strlen(value));
    buf_str(m, ",\n");
}

static void manifest_write(struct sink *s, const struct set_info *info, const char *fingerprint,
                           const char *provenance)
{
    struct buf m = {0};
    const struct segment *sum = &s->segment;
    buf_str(&m, "{\n");
    put_text(&m, "schema", "moeutils.set");
    buf_str(&m, "  \"version\": 1,\n");
    put_text(&m, "fingerprint", fingerprint);
    buf_printf(&m,
               "  \"seq\": %lld,\n  \"sequences\": %lld,\n  \"rows\": %lld,\n  \"tokens\": %lld,\n",
               (long long)info->seq, (long long)sum->sequences, (long long)sum->rows,
               (long long)sum->tokens);
    put_text(&m, "tokenizer", info->tokenizer_hash);
    put_text(&m, "columns", info->columns);
    put_text(&m, "template", info->template);
    buf_printf(&m, "  \"bos\": %lld,\n  \"eos\": %lld,\n  \"files\": [", (long long)info->bos,
               (long long)info->eos);
    for (int64_t i = 0; i < s->entries; i++) {
        const struct entry *e = &s->entry[i];
        buf_str(&m, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        json_quote(&m, e->name, strlen(e->name));
        buf_printf(&m, ", \"bytes\": %lld, \"sha256\": \"%s\"", (long long)e->bytes, e->sha256);
        if (e->rows >= 0)
            buf_printf(&m,
                       ", \"xxh3.header\": \"%s\", \"sequences\": %lld, \"rows\": %lld, "
                       "\"tokens\": %lld",
                       e->xxh3, (long long)e->sequences, (long long)e->rows, (long long)e->tokens);
        buf_char(&m, '}');
    }
    buf_printf(&m, "\n  ],\n  \"provenance\": %s\n}\n", provenance);
    char *path = path_join(s->tmp, "manifest.json");
    write_file(path, m.data, m.len);
    free(path);
    buf_release(&m);
}

void sink_close(struct sink *s, const struct set_info *info, const char *fingerprint,
                const char *provenance)
{
    if (s->tmp) {
        manifest_write(s, info, fingerprint, provenance);
        dir_publish(s->tmp, s->path);
    } else {
        if (s->is_stream)
            segment_write_end(&s->segment, s->out, s->zstd);
        out_close(s->out);
    }
    for (int64_t i = 0; i < s->entries; i++)
        free(s->entry[i].name);
    for (int64_t i = 0; i < s->extras; i++) {
        free(s->extra[i].tensor);
        buf_release(&s->extra[i].bytes);
    }
    free(s->entry);
    free(s->extra);
    free(s->path);
    free(s->tmp);
    free(s);
}
