/* reader.c -- any rectangle of any tensor of a checkpoint, whatever slices it was cut into.
 *
 * The manifest is believed only as far as it can be proved: every file is there with its size,
 * every tensor is covered exactly once, and the first time a slice is touched it is read whole and
 * hashed. One slice is in memory at a time. */
#include "ckpt_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ckpt {
    char *path;
    struct json_doc *doc;
    struct json state;
    struct table t;
    struct shard_file **open; /* (t.files), NULL until it is needed */
    struct buf scratch;       /* a slice, or some rows of one */
};

static int has_manifest(const char *dir)
{
    char *name = path_join(dir, "manifest.json");
    int has = path_exists(name);
    free(name);
    return has;
}

/* The folder path stands for: itself, or what its `last` does.  A symbolic link is followed now and
 * once, so that a checkpoint published meanwhile does not mix with this one. */
static char *find(const char *path)
{
    char *dir = xstrdup(path), to[4096];
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
        dir[n - 1] = 0;
    if (!path_exists(dir))
        die("%s:", dir);
    char *at = has_manifest(dir) ? xstrdup(dir) : path_join(dir, "last");
    if (!has_manifest(at))
        die_damaged("%s: no manifest.json: not a checkpoint (unfinished, or a Hugging Face folder: "
                    "see ckpt-reshard --from-hf)",
                    dir);
    ssize_t n = readlink(at, to, sizeof to - 1);
    if (n > 0) {
        to[n] = 0;
        char *slash = strrchr(at, '/');
        char *link = at;
        at = to[0] == '/' || !slash ? xstrdup(to)
                                    : xasprintf("%.*s%s", (int)(slash + 1 - at), at, to);
        free(link);
    }
    free(dir);
    return at;
}

static const char *schema_fault(struct json root)
{
    struct json v;
    size_t len;
    int64_t version;
    const char *s = json_type(root) == JSON_OBJECT && json_get(root, "schema", &v)
                        ? json_string(v, &len)
                        : NULL;
    if (!s || strcmp(s, "moeutils.ckpt"))
        return "not the manifest of a checkpoint";
    if (!json_get(root, "version", &v) || json_int(v, &version) || version != 1)
        return "a version this program does not know";
    if (!json_get(root, "state", &v) || json_type(v) != JSON_OBJECT)
        return "\"state\" is missing or no object";
    return NULL;
}

struct ckpt *ckpt_open(const char *path)
{
    struct ckpt *k = xcalloc(1, sizeof *k);
    k->path = find(path);
    k->doc = json_doc_new();
    char *name = path_join(k->path, "manifest.json");
    struct buf text = read_file(name);
    struct json root;
    const char *why;
    if (json_parse(k->doc, text.data, text.len, &root, &why) || (why = schema_fault(root)))
        die_damaged("%s: %s", name, why);
    char *fault = table_parse(&k->t, root);
    if (!fault)
        fault = table_prove(&k->t);
    if (fault)
        die_damaged("%s: %s", name, fault);
    if ((why = seal_fault(&text, root)))
        die_damaged("%s: %s", name, why);
    if ((fault = hashes_fault(k->path, root)))
        die_damaged("%s", fault);
    json_get(root, "state", &k->state);
    buf_release(&text);
    free(name);

    k->open = xcalloc((size_t)k->t.files + 1, sizeof(struct shard_file *));
    for (int64_t i = 0; i < k->t.files; i++) {
        struct stat st;
        if (stat((name = path_join(k->path, k->t.file[i].name)), &st))
            die_damaged("%s: %s", name, strerror(errno));
        if (st.st_size != k->t.file[i].bytes)
            die_damaged("%s: %lld bytes, the manifest says %lld", name, (long long)st.st_size,
                        (long long)k->t.file[i].bytes);
        free(name);
    }
    return k;
}

const char *ckpt_path(const struct ckpt *k)
{
    return k->path;
}

struct json ckpt_state(const struct ckpt *k)
{
    return k->state;
}

const struct table *ckpt_table(const struct ckpt *k)
{
    return &k->t;
}

void ckpt_config(const struct ckpt *k, struct config *c)
{
    char *name = path_join(k->path, "config.json");
    if (!path_exists(name))
        die_damaged("%s: missing", name);
    struct buf text = read_file(name);
    config_parse(c, text.data, text.len, name);
    buf_release(&text);
    free(name);
}

int ckpt_has(const struct ckpt *k, const char *set, const char *name)
{
    return table_find(&k->t, set, name) >= 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void ckpt_only(const struct ckpt *k, const struct param *p, int64_t n)
{
    char **name = xmalloc((size_t)MAX(n, 1) * sizeof *name); /* (n) sorted */
    for (int64_t i = 0; i < n; i++)
        name[i] = p[i].name;
    qsort(name, (size_t)n, sizeof *name, by_name);
    for (int64_t i = 0; i < k->t.slices; i = table_run(&k->t, i))
        if (!bsearch(&k->t.slice[i].name, name, (size_t)n, sizeof *name, by_name))
            die_damaged("%s: %s tensor \"%s\" is none of this model", k->path, k->t.slice[i].set,
                        k->t.slice[i].name);
    free(name);
}

enum dtype stored_type(const struct ckpt *k, const char *name)
{
    int64_t i = table_find(&k->t, "model", name);
    if (i < 0)
        die_damaged("%s: no model tensor \"%s\"", k->path, name);
    return k->t.slice[i].type;
}

enum dtype ckpt_type(const struct ckpt *k, const struct config *c)
{
    int64_t n;
    struct param *p = arch_params(c, &n);
    enum dtype type = stored_type(k, p[0].name);
    params_free(p, n);
    return type;
}

/* The slice's tensor in its file, if the file is the one the manifest speaks of. */
static const struct tensor *slice_tensor(struct ckpt *k, const struct slice *s,
                                         struct shard_file **f)
{
    const char *file = k->t.file[s->file].name;
    if (!k->open[s->file]) {
        char *path = path_join(k->path, file);
        k->open[s->file] = shard_open(path);
        free(path);
    }
    *f = k->open[s->file];
    const struct tensor *x = blob_find(shard_header(*f), s->tensor);
    if (!x || x->type != s->type || x->bytes != s->r.rows * s->r.cols * dtype_size(s->type) ||
        x->ndim != (s->cols ? 2 : 1) || x->shape[0] != s->r.rows)
        die_damaged("%s/%s: tensor \"%s\" is not as the manifest says", k->path, file, s->tensor);
    return x;
}

static void slice_verify(const struct ckpt *k, struct slice *s, uint64_t hash)
{
    char hex[17];
    hash_hex(hex, hash);
    if (strcmp(hex, s->hash))
        die_damaged("%s/%s: tensor \"%s\" is damaged: its hash is %s, the manifest says %s",
                    k->path, k->t.file[s->file].name, s->tensor, hex, s->hash);
    s->good = 1;
}

/* Rows lo..lo + n of the slice; good until the next call. */
static const char *slice_rows(struct ckpt *k, struct slice *s, int64_t lo, int64_t n)
{
    struct shard_file *f;
    const struct tensor *x = slice_tensor(k, s, &f);
    int64_t row_bytes = s->r.cols * dtype_size(s->type);
    buf_reset(&k->scratch);
    if (s->good) {
        buf_reserve(&k->scratch, (size_t)(n * row_bytes));
        shard_read_part(f, x, lo * row_bytes, n * row_bytes, k->scratch.data);
        return k->scratch.data;
    }
    buf_reserve(&k->scratch, (size_t)x->bytes);
    shard_read(f, x, k->scratch.data);
    slice_verify(k, s, hash_xxh3(k->scratch.data, (size_t)x->bytes));
    return k->scratch.data + lo * row_bytes;
}

static void copy_elements(void *dst, enum dtype to, const void *src, enum dtype from, int64_t n)
{
    if (to == from)
        memcpy(dst, src, (size_t)(n * dtype_size(to)));
    else
        dtype_convert(dst, to, src, from, n);
}

/* The tensor's first slice. */
static int64_t tensor_find(const struct ckpt *k, const char *set, const struct param *p)
{
    int64_t i = table_find(&k->t, set, p->name);
    if (i < 0)
        die_damaged("%s: no %s tensor \"%s\"", k->path, set, p->name);
    if (k->t.slice[i].rows != p->rows || k->t.slice[i].cols != p->cols)
        die_damaged("%s: %s tensor \"%s\" is %lld x %lld, wanted is %lld x %lld", k->path, set,
                    p->name, (long long)k->t.slice[i].rows, (long long)k->t.slice[i].cols,
                    (long long)p->rows, (long long)p->cols);
    return i;
}

void ckpt_get(struct ckpt *k, const char *set, const struct param *p, struct rect r, void *dst,
              enum dtype to)
{
    int64_t i = tensor_find(k, set, p);
    for (int64_t end = table_run(&k->t, i); i < end; i++) {
        struct slice *s = &k->t.slice[i];
        int64_t row = MAX(r.row, s->r.row), row_end = MIN(r.row + r.rows, s->r.row + s->r.rows);
        int64_t col = MAX(r.col, s->r.col), col_end = MIN(r.col + r.cols, s->r.col + s->r.cols);
        if (row >= row_end || col >= col_end)
            continue;
        int64_t from_size = dtype_size(s->type), to_size = dtype_size(to), n = col_end - col;
        const char *src = slice_rows(k, s, row - s->r.row, row_end - row);
        for (; row < row_end; row++, src += s->r.cols * from_size) {
            char *out = (char *)dst + ((row - r.row) * r.cols + col - r.col) * to_size;
            copy_elements(out, to, src + (col - s->r.col) * from_size, s->type, n);
        }
    }
}

void ckpt_copy(struct ckpt *k, const char *set, const struct param *p, struct rect r,
               struct blob_file *f, enum dtype to)
{
    struct slice *s = &k->t.slice[tensor_find(k, set, p)];
    if (memcmp(&s->r, &r, sizeof r)) {
        int64_t bytes = r.rows * r.cols * dtype_size(to);
        void *all = xmalloc((size_t)bytes);
        ckpt_get(k, set, p, r, all, to);
        blob_file_put(f, all, bytes);
        free(all);
    } else { /* as it lies there */
        struct shard_file *from;
        const struct tensor *x = slice_tensor(k, s, &from);
        slice_verify(k, s, tensor_put(f, to, from, x));
    }
}

void ckpt_close(struct ckpt *k)
{
    for (int64_t i = 0; i < k->t.files; i++)
        if (k->open[i])
            shard_close(k->open[i]);
    free(k->open);
    table_release(&k->t);
    json_doc_free(k->doc);
    buf_release(&k->scratch);
    free(k->path);
    free(k);
}
