/* hf.c -- plain Hugging Face folders: taken in and given out without losing a bit.
 *
 * A folder is judged whole before anything is written: config.json says which tensors a model of its
 * family has, and each one that is missing, unknown, there twice or of another shape is named. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

enum { FAULTS_SHOWN = 20 };

/* What belongs to a model beside its weights and config.json; whatever of it is there is copied. */
static const char *const side_files[] = {
    "tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja"};

void side_files_copy(const char *from, const char *to)
{
    for (int64_t i = 0; i < ARRAY_LEN(side_files); i++) {
        char *src = path_join(from, side_files[i]), *dst = path_join(to, side_files[i]);
        if (path_exists(src)) {
            struct buf bytes = read_file(src);
            write_file(dst, bytes.data, bytes.len);
            buf_release(&bytes);
        }
        free(src);
        free(dst);
    }
}

/* ---- in ---- */

struct folder {
    const char *path;
    struct shard_file **file;
    char **name; /* (files) */
    int64_t files;
    struct param *param;
    int64_t params;
    const struct param **by_name; /* (params) sorted */
    struct found {                /* (params) */
        struct shard_file *file;
        const struct tensor *tensor; /* NULL: not found yet */
    } *found;
    int64_t faults;
};

static void fault(struct folder *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fault(struct folder *d, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (d->faults++ < FAULTS_SHOWN)
        warn("%s: %s", d->path, text);
}

static void file_add(struct folder *d, const char *name)
{
    for (int64_t i = 0; i < d->files; i++)
        if (!strcmp(d->name[i], name))
            return;
    if (!*name || strchr(name, '/'))
        die_damaged("%s: model.safetensors.index.json: \"%s\" is no file name", d->path, name);
    char *path = path_join(d->path, name);
    if (!path_exists(path))
        die_damaged("%s: missing", path);
    size_t n = (size_t)d->files + 1;
    d->file = xrealloc(d->file, n * sizeof *d->file);
    d->name = xrealloc(d->name, n * sizeof *d->name);
    d->file[d->files] = shard_open(path);
    d->name[d->files++] = xstrdup(name);
    free(path);
}

/* One model.safetensors, or the files of an index. */
static void folder_files(struct folder *d)
{
    char *single = path_join(d->path, "model.safetensors");
    char *index = path_join(d->path, "model.safetensors.index.json");
    if (path_exists(single)) {
        file_add(d, "model.safetensors");
    } else if (path_exists(index)) {
        struct json_doc *doc = json_doc_new();
        struct buf text = read_file(index);
        struct json root, map;
        struct json_iter i;
        size_t len;
        const char *why = NULL;
        if (json_parse(doc, text.data, text.len, &root, &why))
            die_damaged("%s: %s", index, why);
        if (json_type(root) != JSON_OBJECT || !json_get(root, "weight_map", &map) ||
            json_type(map) != JSON_OBJECT)
            die_damaged("%s: \"weight_map\" is missing or no object", index);
        for (json_iter_init(&i, map); json_iter_next(&i);) {
            const char *name = json_string(i.value, &len);
            if (!name)
                die_damaged("%s: the file of \"%s\" is no string", index, i.key);
            file_add(d, name);
        }
        buf_release(&text);
        json_doc_free(doc);
    } else {
        die_damaged("%s: neither model.safetensors nor model.safetensors.index.json", d->path);
    }
    free(single);
    free(index);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct param *const *)a)->name, (*(const struct param *const *)b)->name);
}

static char *shape_text(int ndim, const int64_t *shape)
{
    struct buf b = {0};
    buf_char(&b, '(');
    for (int i = 0; i < ndim; i++)
        buf_printf(&b, "%s%lld", i ? ", " : "", (long long)shape[i]);
    buf_char(&b, ')');
    return b.data;
}

static void tensor_judge(struct folder *d, int64_t file, const struct tensor *t)
{
    const struct param key = {.name = t->name}, *pkey = &key, **hit = NULL;
    if (d->params)
        hit = bsearch(&pkey, d->by_name, (size_t)d->params, sizeof *d->by_name, by_name);
    if (!hit) {
        fault(d, "%s: tensor \"%s\" is none of this model's", d->name[file], t->name);
        return;
    }
    const struct param *p = *hit;
    struct found *f = &d->found[p - d->param];
    if (f->tensor)
        fault(d, "%s: tensor \"%s\" is in another file too", d->name[file], t->name);
    else if (t->ndim != (p->cols ? 2 : 1) || t->shape[0] != p->rows ||
             (p->cols && t->shape[1] != p->cols)) {
        char *is = shape_text(t->ndim, t->shape);
        char *wanted = shape_text(p->cols ? 2 : 1, (int64_t[]){p->rows, p->cols});
        fault(d, "%s: tensor \"%s\" has shape %s, config.json asks for %s", d->name[file], t->name, is,
              wanted);
        free(is);
        free(wanted);
    } else if (!torch_dtype_known(t->type))
        fault(d, "%s: tensor \"%s\" is %s, not a type of weights", d->name[file], t->name,
              dtype_name(t->type));
    *f = (struct found){d->file[file], t};
}

static void folder_open(struct folder *d, const struct config *c)
{
    d->param = arch_params(c, &d->params);
    d->found = xcalloc((size_t)d->params + 1, sizeof *d->found);
    d->by_name = xmalloc(((size_t)d->params + 1) * sizeof *d->by_name);
    for (int64_t i = 0; i < d->params; i++)
        d->by_name[i] = &d->param[i];
    qsort(d->by_name, (size_t)d->params, sizeof *d->by_name, by_name);
    folder_files(d);
    for (int64_t i = 0; i < d->files; i++) {
        const struct blob *b = shard_header(d->file[i]);
        for (int64_t j = 0; j < b->tensors; j++)
            tensor_judge(d, i, &b->tensor[j]);
    }
    for (int64_t i = 0; i < d->params; i++)
        if (!d->found[i].tensor)
            fault(d, "tensor \"%s\" is missing", d->param[i].name);
    if (d->faults)
        die_damaged("%s: %lld faults in the weights; nothing was written", d->path,
                    (long long)d->faults);
}

static void folder_close(struct folder *d)
{
    for (int64_t i = 0; i < d->files; i++) {
        shard_close(d->file[i]);
        free(d->name[i]);
    }
    free(d->file);
    free(d->name);
    free(d->found);
    free(d->by_name);
    params_free(d->param, d->params);
}

void ckpt_from_hf(const char *from, const char *to)
{
    struct folder d = {.path = from};
    struct config c;
    char *name = path_join(from, "config.json");
    if (!path_exists(name))
        die_damaged("%s: no config.json: not a Hugging Face folder", from);
    struct buf text = read_file(name);
    config_parse(&c, text.data, text.len, name);
    folder_open(&d, &c);

    char *tmp = dir_begin(to);
    struct spool *spool = spool_open(tmp);
    struct ckpt_writer *w = ckpt_writer_open(tmp, 0, 1);
    for (int64_t i = 0; i < d.params; i++) {
        const struct param *p = &d.param[i];
        const struct tensor *t = d.found[i].tensor;
        void *data = spool_take(spool, t->bytes);
        shard_read(d.found[i].file, t, data);
        ckpt_put(w, "model", p, (struct rect){0, 0, p->rows, MAX(1, p->cols)}, data, t->type, t->type);
    }
    char *part = ckpt_writer_close(w);
    spool_close(spool);
    side_files_copy(from, tmp);
    ckpt_manifest_write(tmp, &part, 1, "{\"step\":0}", &c, d.found[0].tensor->type);
    dir_publish(tmp, to);

    free(part);
    free(tmp);
    folder_close(&d);
    config_release(&c);
    buf_release(&text);
    free(name);
}

/* ---- out ---- */

/* Everything the checkpoint's model has must be something the family has: what a Hugging Face folder
 * has no name for would be lost without a word. */
static void outsiders_refuse(const struct ckpt *k, const struct param *p, int64_t n)
{
    const struct table *t = ckpt_table(k);
    int64_t tensors = 0;
    for (int64_t i = 0; i < t->slices; i = table_run(t, i))
        tensors += !strcmp(t->slice[i].set, "model");
    for (int64_t i = 0; i < n; i++)
        if (!ckpt_has(k, "model", p[i].name))
            die_damaged("%s: no model tensor \"%s\"", ckpt_path(k), p[i].name);
    if (tensors != n)
        die("%s: %lld tensors of the model, a %lld-tensor family: a Hugging Face folder cannot hold "
            "the others",
            ckpt_path(k), (long long)tensors, (long long)n);
}

/* Parameters lo..hi, whole, as one file. */
static void hf_file_write(struct ckpt *k, const char *dir, const char *name, const struct param *p,
                          int64_t lo, int64_t hi, enum dtype type, struct index *x)
{
    struct spool *spool = spool_open(dir);
    struct blob b = {0};
    blob_meta(&b, "format", "pt");
    for (int64_t i = lo; i < hi; i++) {
        int64_t cols = MAX(1, p[i].cols), shape[2] = {p[i].rows, p[i].cols};
        enum dtype to = type == DT_COUNT ? stored_type(k, p[i].name) : type;
        int64_t bytes = p[i].rows * cols * dtype_size(to);
        void *data = spool_take(spool, bytes);
        ckpt_get(k, "model", &p[i], (struct rect){0, 0, p[i].rows, cols}, data, to);
        blob_tensor(&b, p[i].name, to, p[i].cols ? 2 : 1, shape, data);
        index_add(x, p[i].name, name, bytes);
    }
    char *path = path_join(dir, name);
    struct out *o = out_open(path);
    blob_write(&b, o, SHARD_FILE_ALIGN);
    out_close(o);
    blob_release(&b);
    spool_close(spool);
    free(path);
}

void ckpt_to_hf(const char *from, const char *to, enum dtype type, int files)
{
    struct ckpt *k = ckpt_open(from);
    struct config c;
    int64_t n;
    ckpt_config(k, &c);
    struct param *p = arch_params(&c, &n);
    outsiders_refuse(k, p, n);

    char *tmp = dir_begin(to);
    struct index *x = index_new();
    int64_t total = params_count(p, n), done = 0, lo = 0;
    for (int f = 0; f < files; f++) {
        int64_t hi = lo;
        while (hi < n && (f == files - 1 || done < (f + 1) * (total / files)))
            done += p[hi].rows * MAX(1, p[hi].cols), hi++;
        char *name = files == 1 ? xstrdup("model.safetensors")
                                : xasprintf("model-%05d-of-%05d.safetensors", f + 1, files);
        if (hi > lo)
            hf_file_write(k, tmp, name, p, lo, hi, type, x);
        lo = hi;
        free(name);
    }
    if (files > 1)
        index_write(x, tmp);
    else
        index_free(x);
    struct buf text = {0};
    config_write(&c, &text, torch_dtype(type == DT_COUNT ? ckpt_type(k, &c) : type));
    char *name = path_join(tmp, "config.json");
    write_file(name, text.data, text.len);
    side_files_copy(ckpt_path(k), tmp);
    dir_publish(tmp, to);

    free(name);
    free(tmp);
    buf_release(&text);
    params_free(p, n);
    config_release(&c);
    ckpt_close(k);
}
