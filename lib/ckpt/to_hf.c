/* to_hf.c -- a checkpoint's model as a plain Hugging Face folder. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

/* Everything the checkpoint's model has must be something the family has: what a Hugging Face
 * folder has no name for would be lost without a word. */
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
        die("%s: %lld tensors of the model, a %lld-tensor family: a Hugging Face folder cannot "
            "hold the others",
            ckpt_path(k), (long long)tensors, (long long)n);
}

/* What a parameter, or a copy of one, is called in the checkpoint. */
static char *stored_name(const struct param *p)
{
    return p->of ? (char *)p->of : p->name;
}

static enum dtype type_of(const struct ckpt *k, const struct param *p, enum dtype asked)
{
    return type_wanted(p, stored_type(k, stored_name(p)), asked);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct param *)a)->name, ((const struct param *)b)->name);
}

/* n parameters, whole, as one file.  Sorts them. */
static void hf_file_write(struct ckpt *k, const char *dir, const char *name, struct param *p,
                          int64_t n, enum dtype type, struct index *x)
{
    struct blob b = {0};
    blob_meta(&b, "format", "pt");
    for (int64_t i = 0; i < n; i++) {
        enum dtype to = type_of(k, &p[i], type);
        blob_tensor(&b, p[i].name, to, p[i].cols ? 2 : 1, (int64_t[]){p[i].rows, p[i].cols}, NULL);
        index_add(x, p[i].name, name, b.tensor[i].bytes);
    }
    qsort(p, (size_t)n, sizeof *p, by_name);
    char *path = path_join(dir, name);
    struct blob_file *f = blob_file_open(&b, path);
    for (int64_t i = 0; i < n; i++) {
        struct param key = {.name = b.tensor[i].name};
        struct param it = *(const struct param *)bsearch(&key, p, (size_t)n, sizeof *p, by_name);
        struct rect whole = {0, 0, it.rows, MAX(1, it.cols)};
        it.name = stored_name(&it);
        ckpt_copy(k, "model", &it, whole, f, b.tensor[i].type);
    }
    blob_file_close(f);
    blob_release(&b);
    free(path);
}

/* A Hugging Face folder has the copies too. */
static struct param *with_copies(const struct config *c, struct param *p, int64_t *n)
{
    int64_t more;
    struct param *copy = arch_copies(c, &more);
    p = xrealloc(p, (size_t)(*n + more) * sizeof *p);
    memcpy(p + *n, copy, (size_t)more * sizeof *p);
    *n += more;
    free(copy);
    return p;
}

/* n parameters as files of at most file_bytes, with an index where they are several.  Sorts them.
 */
static void files_write(struct ckpt *k, const char *dir, struct param *p, int64_t n,
                        enum dtype type, int64_t file_bytes)
{
    int64_t *bytes = xmalloc((size_t)n * sizeof *bytes), *end = xmalloc((size_t)n * sizeof *end);
    for (int64_t i = 0; i < n; i++)
        bytes[i] = p[i].rows * MAX(1, p[i].cols) * dtype_size(type_of(k, &p[i], type));
    int files = files_cut(bytes, n, file_bytes, end);
    struct index *x = index_new();
    for (int f = 0; f < files; f++) {
        int64_t lo = f ? end[f - 1] : 0;
        char *name = files == 1 ? xstrdup("model.safetensors")
                                : xasprintf("model-%05d-of-%05d.safetensors", f + 1, files);
        hf_file_write(k, dir, name, p + lo, end[f] - lo, type, x);
        free(name);
    }
    if (files > 1)
        index_write(x, dir);
    else
        index_free(x);
    free(bytes);
    free(end);
}

void ckpt_to_hf(const char *from, const char *to, enum dtype type, int64_t file_bytes)
{
    struct ckpt *k = ckpt_open(from);
    struct config c;
    struct buf text = {0};
    int64_t n;
    ckpt_config(k, &c);
    struct param *p = arch_params(&c, &n);
    outsiders_refuse(k, p, n);
    p = with_copies(&c, p, &n);
    side_files_check(ckpt_path(k), &c);
    config_write(&c, &text, torch_dtype(type == DT_COUNT ? ckpt_type(k, &c) : type));

    char *tmp = dir_begin(to), *name = path_join(tmp, "config.json");
    files_write(k, tmp, p, n, type, file_bytes);
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
