/* from_hf.c -- a plain Hugging Face folder, taken in without losing a bit.
 *
 * It is judged whole before anything is written: config.json says which tensors a model of its
 * family has, and each one that is missing, unknown, there twice or of another shape is named. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

enum { FAULTS_SHOWN = 20 };

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
    } * found;
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
        fault(d, "%s: tensor \"%s\" has shape %s, config.json asks for %s", d->name[file], t->name,
              is, wanted);
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
        ckpt_put(w, "model", p, (struct rect){0, 0, p->rows, MAX(1, p->cols)}, data, t->type,
                 t->type);
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
