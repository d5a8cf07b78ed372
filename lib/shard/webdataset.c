/* webdataset.c -- WebDataset's tar: the files of one sample are neighbours and share a name up to
 * its first dot.  A document is NUMBER.tokens.npy (i4), NUMBER.target.npy (u1: 1 is learnt) and
 * NUMBER.json: its weight and whatever else it has.
 *
 * In a tar from elsewhere only the tokens must be there, of any type of integers; without a target
 * all of them are learnt, and files of other names are passed over. */
#include "shard/shard.h"

#include <archive.h>
#include <archive_entry.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What NUMBER.json may have beside the weight. */
static const struct {
    unsigned part;
    const char *key;
    size_t at;
} values[] = {{DOC_REWARD, "reward", offsetof(struct doc, reward)},
              {DOC_MARGIN, "margin", offsetof(struct doc, margin)},
              {DOC_REF_LOGP, "ref_logp", offsetof(struct doc, ref_logp)}};

enum { FILE_MAX = 1 << 30 }; /* what a tar may unpack to in memory, however small it is */

/* ---- writing ---- */

struct writer {
    struct archive *tar;
    struct out *out;
    int64_t docs;
    struct buf file;
};

static la_ssize_t tar_write(struct archive *a, void *w, const void *bytes, size_t n)
{
    out_write(((struct writer *)w)->out, bytes, n);
    return (la_ssize_t)n;
}

static void *create(const char *path, int64_t vocab)
{
    struct writer *w = xcalloc(1, sizeof *w);
    w->out = out_open(path);
    w->tar = archive_write_new();
    if (!w->tar || archive_write_set_format_ustar(w->tar) ||
        archive_write_open(w->tar, w, NULL, tar_write, NULL))
        die("%s: %s", path ? path : "standard output", archive_error_string(w->tar));
    return w;
}

/* No time and no owner, so that the same documents are the same bytes. */
static void file_put(struct writer *w, const char *suffix)
{
    struct archive_entry *e = archive_entry_new();
    char *name = xasprintf("%09lld.%s", (long long)w->docs, suffix);
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_mtime(e, 0, 0);
    archive_entry_set_size(e, (la_int64_t)w->file.len);
    if (archive_write_header(w->tar, e) ||
        archive_write_data(w->tar, w->file.data, w->file.len) != (la_ssize_t)w->file.len)
        die("%s: %s", name, archive_error_string(w->tar));
    archive_entry_free(e);
    free(name);
}

/* NumPy's format 1.0: magic, version, length of the header (u16), header, elements. */
static void npy_put(struct writer *w, const char *suffix, const char *type, const void *data,
                    int64_t n, size_t size)
{
    enum { HEAD = 128 };
    buf_reset(&w->file);
    buf_add(&w->file, "\x93NUMPY\1\0", 8);
    buf_add(&w->file, (uint8_t[]){HEAD - 10, 0}, 2);
    buf_printf(&w->file, "{'descr': '%s', 'fortran_order': False, 'shape': (%lld,), }", type,
               (long long)n);
    while (w->file.len < HEAD - 1)
        buf_char(&w->file, ' ');
    buf_char(&w->file, '\n');
    buf_add(&w->file, data, (size_t)n * size);
    file_put(w, suffix);
}

static const char *put(void *format, const struct doc *d, unsigned parts)
{
    struct writer *w = format;
    npy_put(w, "tokens.npy", "<i4", d->token, d->n, sizeof *d->token);
    npy_put(w, "target.npy", "|u1", d->target, d->n, sizeof *d->target);
    buf_reset(&w->file);
    buf_str(&w->file, "{\"weight\":");
    json_number(&w->file, d->weight);
    if (parts & DOC_PAIR)
        buf_printf(&w->file, ",\"pair\":%lld", (long long)d->pair);
    for (int64_t i = 0; i < ARRAY_LEN(values); i++)
        if (parts & values[i].part) {
            buf_printf(&w->file, ",\"%s\":", values[i].key);
            json_number(&w->file, *(const double *)((const char *)d + values[i].at));
        }
    buf_char(&w->file, '}');
    file_put(w, "json");
    w->docs++;
    return NULL;
}

static void finish(void *format)
{
    struct writer *w = format;
    if (archive_write_close(w->tar))
        die("tar: %s", archive_error_string(w->tar));
    archive_write_free(w->tar);
    out_close(w->out);
    buf_release(&w->file);
    free(w);
}

/* ---- reading ---- */

struct reader {
    const char *path;
    struct archive *tar;
    struct archive_entry *entry; /* read and not yet taken; NULL at the end */
    struct json_doc *json;
    char *name; /* of the file at hand, for messages */
    struct buf file, token, target;
};

static void entry_next(struct reader *r)
{
    int s = archive_read_next_header(r->tar, &r->entry);
    if (s == ARCHIVE_EOF)
        r->entry = NULL;
    else if (s != ARCHIVE_OK)
        die_damaged("%s: %s", r->path, archive_error_string(r->tar));
}

static void *open_reader(const char *path)
{
    enum { BLOCK = 1 << 16 };
    struct reader *r = xcalloc(1, sizeof *r);
    r->path = !strcmp(path, "-") ? "standard input" : path;
    r->json = json_doc_new();
    r->tar = archive_read_new();
    archive_read_support_filter_all(r->tar);
    archive_read_support_format_tar(r->tar);
    if (archive_read_open_filename(r->tar, !strcmp(path, "-") ? NULL : path, BLOCK))
        die_damaged("%s: %s", r->path, archive_error_string(r->tar));
    entry_next(r);
    return r;
}

_Noreturn static void refuse(const struct reader *r, const char *why)
{
    die_damaged("%s: %s: %s", r->path, r->name, why);
}

static void file_read(struct reader *r)
{
    const void *block;
    size_t n;
    la_int64_t at;
    int s;
    buf_reset(&r->file);
    while (!(s = archive_read_data_block(r->tar, &block, &n, &at))) {
        if (r->file.len + n > FILE_MAX)
            refuse(r, "longer than 1 GiB");
        buf_add(&r->file, block, n);
    }
    if (s != ARCHIVE_EOF)
        refuse(r, archive_error_string(r->tar));
}

/* One dimension of integers, whatever their type; those that no token can be become -1. */
static void npy_read(struct reader *r, struct buf *out)
{
    static const struct {
        const char *descr;
        int bytes, is_signed;
    } types[] = {{"'<i4'", 4, 1}, {"'<u2'", 2, 0}, {"'<i8'", 8, 1},
                 {"'<u4'", 4, 0}, {"'|u1'", 1, 0}, {"'|b1'", 1, 0},
                 {"'<i2'", 2, 1}, {"'|i1'", 1, 1}, {"'<u8'", 8, 0}};
    const uint8_t *p = (const uint8_t *)r->file.data;
    size_t head = 0, k = 0;
    if (r->file.len < 12 || memcmp(p, "\x93NUMPY", 6))
        refuse(r, "not an array of NumPy's");
    head = p[6] == 1 ? 10u + p[8] + 256u * p[9]
                     : 12u + p[8] + 256u * p[9] + 65536u * p[10] + 16777216u * (size_t)p[11];
    if (head > r->file.len)
        refuse(r, "cut off");
    char *text = xstrndup((const char *)p + (p[6] == 1 ? 10 : 12), head - (p[6] == 1 ? 10 : 12));
    while (k < ARRAY_LEN(types) && !strstr(text, types[k].descr))
        k++;
    long long n = -1;
    const char *shape = strstr(text, "'shape': (");
    if (k == ARRAY_LEN(types) || !shape || sscanf(shape, "'shape': (%lld,)", &n) != 1 || n < 0)
        refuse(r, "not one dimension of integers");
    if ((r->file.len - head) / (size_t)types[k].bytes != (size_t)n ||
        (r->file.len - head) % (size_t)types[k].bytes)
        refuse(r, "not as long as its shape says");
    free(text);
    p += head;
    buf_reset(out);
    for (long long i = 0; i < n; i++, p += types[k].bytes) {
        int64_t x = 0;
        int unused = 64 - 8 * types[k].bytes;
        memcpy(&x, p, (size_t)types[k].bytes);
        if (types[k].is_signed)
            x = (int64_t)((uint64_t)x << unused) >> unused;
        int32_t id = x < 0 || x > INT32_MAX ? -1 : (int32_t)x;
        buf_add(out, &id, sizeof id);
    }
}

static void json_read(struct reader *r, struct doc *d, unsigned *parts)
{
    struct json root, v;
    const char *why;
    if (json_parse(r->json, r->file.data, r->file.len, &root, &why))
        refuse(r, why);
    if (json_type(root) != JSON_OBJECT)
        refuse(r, "not an object");
    if (json_get(root, "weight", &v) && json_real(v, &d->weight))
        refuse(r, "\"weight\" is no number");
    if (json_get(root, "pair", &v)) {
        if (json_int(v, &d->pair) || d->pair < 0)
            refuse(r, "\"pair\" is no count");
        *parts |= DOC_PAIR;
    }
    for (int64_t i = 0; i < ARRAY_LEN(values); i++)
        if (json_get(root, values[i].key, &v)) {
            if (json_real(v, (double *)((char *)d + values[i].at)))
                refuse(r, "\"reward\", \"margin\" or \"ref_logp\" is no number");
            *parts |= values[i].part;
        }
}

/* Of "dir/0017.tokens.npy": what stands after the first dot of its last part, and before. */
static const char *suffix_of(const char *name, size_t *key)
{
    const char *slash = strrchr(name, '/'), *dot = strchr(slash ? slash : name, '.');
    *key = dot ? (size_t)(dot - name) : strlen(name);
    return dot ? dot + 1 : "";
}

static int next(void *format, struct doc *d, unsigned *parts)
{
    struct reader *r = format;
    char *sample = NULL;
    size_t key;
    int has_tokens = 0, has_target = 0;
    *parts = 0;
    *d = (struct doc){.weight = 1, .reward = NAN, .pair = -1};
    for (; r->entry; entry_next(r)) {
        const char *name = archive_entry_pathname(r->entry);
        const char *suffix = suffix_of(name ? name : "", &key);
        if (!*suffix || archive_entry_filetype(r->entry) != AE_IFREG)
            continue;
        if (sample && (strncmp(sample, name, key) || sample[key]))
            break;
        if (!sample)
            sample = xstrndup(name, key);
        free(r->name);
        r->name = xstrdup(name);
        file_read(r);
        if (!strcmp(suffix, "tokens.npy"))
            npy_read(r, &r->token), has_tokens = 1;
        else if (!strcmp(suffix, "target.npy"))
            npy_read(r, &r->target), has_target = 1;
        else if (!strcmp(suffix, "json"))
            json_read(r, d, parts);
    }
    if (!sample)
        return 0;
    d->n = (int64_t)(r->token.len / sizeof(int32_t));
    if (!has_tokens)
        die_damaged("%s: sample %s has no tokens.npy", r->path, sample);
    if (has_target && r->target.len != r->token.len)
        die_damaged("%s: sample %s has %zu targets for %lld tokens", r->path, sample,
                    r->target.len / sizeof(int32_t), (long long)d->n);
    /* In place: an element of the target takes a byte where it was read from four. */
    buf_reserve(&r->target, (size_t)d->n + 1);
    for (int64_t i = 0; i < d->n; i++) {
        int32_t learnt = 1;
        if (has_target)
            memcpy(&learnt, r->target.data + 4 * i, 4);
        r->target.data[i] = learnt != 0;
    }
    d->token = (const int32_t *)r->token.data;
    d->target = (const uint8_t *)r->target.data;
    free(sample);
    return 1;
}

static void close_reader(void *format)
{
    struct reader *r = format;
    archive_read_free(r->tar);
    json_doc_free(r->json);
    buf_release(&r->file);
    buf_release(&r->token);
    buf_release(&r->target);
    free(r->name);
    free(r);
}

const struct docs_format docs_webdataset = {"webdataset", create, put,         finish,
                                            open_reader,  next,   close_reader};
