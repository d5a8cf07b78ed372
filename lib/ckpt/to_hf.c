/* to_hf.c -- a checkpoint's model as a plain Hugging Face folder, and the files that travel with a
 * model in either direction. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

/* What belongs to a model beside its weights and config.json; whatever of it is there is copied.
 * tags.json is this project's: what the tags of the training data stood for. */
static const char *const side_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "tags.json",
};

static int is_part(const char *name)
{
    static const char *const own[] = {"manifest.json", "config.json", "optim",
                                      "model.safetensors.index.json"};
    size_t n = strlen(name), end = strlen(".safetensors");
    if (!strncmp(name, "model", 5) && n > end && !strcmp(name + n - end, ".safetensors"))
        return 1;
    for (int64_t i = 0; i < ARRAY_LEN(own); i++)
        if (!strcmp(name, own[i]))
            return 1;
    for (int64_t i = 0; i < ARRAY_LEN(side_files); i++)
        if (!strcmp(name, side_files[i]))
            return 1;
    return 0;
}

void ckpt_spare(const char *path)
{
    dir_spare(path, "checkpoint or Hugging Face folder", is_part);
}

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
