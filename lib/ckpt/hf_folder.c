/* hf_folder.c -- a plain Hugging Face folder, judged whole before anything of it is used.
 *
 * config.json says which tensors a model of its family has, and each one that is missing, unknown,
 * there twice or of another shape is named.  A parameter may also lie in a larger tensor: where
 * transformers keeps the experts of a layer in one, that is our list of them laid end to end. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

enum { FAULTS_SHOWN = 20 };

struct alias { /* a tensor's name, and the parameters that lie in it end to end */
    char *name;
    int64_t first, n;
    int experts; /* all of a layer; else one parameter */
};

struct hf_folder {
    const char *path;
    struct shard_file **file;
    char **name; /* (files) */
    int64_t files;
    const struct param *param; /* (params) */
    int64_t params;
    struct param *copy; /* (copies) what the folder may have of these once more */
    int64_t copies;
    struct alias *alias; /* (aliases) sorted by name */
    int64_t aliases;
    struct fp8_blocks blocks;
    struct found { /* (params) */
        struct shard_file *file, *factor_file;
        const struct tensor *tensor, *factor; /* NULL: not found yet; of what has no factors */
        int64_t at;                           /* where in the tensor, elements */
    } * found;
    int64_t faults;
};

static void fault(struct hf_folder *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fault(struct hf_folder *d, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (d->faults++ < FAULTS_SHOWN)
        warn("%s: %s", d->path, text);
}

static void index_judge(void *arg, const char *tensor, const char *file)
{
    struct hf_folder *d = arg;
    int64_t i = 0;
    while (strcmp(d->name[i], file))
        i++;
    if (!blob_find(shard_header(d->file[i]), tensor))
        fault(d, "model.safetensors.index.json: tensor \"%s\" is not in %s", tensor, file);
}

static void files_open(struct hf_folder *d)
{
    d->name = hf_files(d->path, &d->files);
    d->file = xmalloc((size_t)d->files * sizeof *d->file);
    for (int64_t i = 0; i < d->files; i++) {
        char *path = path_join(d->path, d->name[i]);
        d->file[i] = shard_open(path);
        free(path);
    }
}

static void files_close(struct hf_folder *d)
{
    for (int64_t i = 0; i < d->files; i++) {
        shard_close(d->file[i]);
        free(d->name[i]);
    }
    free(d->file);
    free(d->name);
}

/* ---- names ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct alias *)a)->name, ((const struct alias *)b)->name);
}

static void alias_add(struct hf_folder *d, char *name, int64_t first, int experts)
{
    struct alias *last = d->aliases ? &d->alias[d->aliases - 1] : NULL;
    if (last && !strcmp(last->name, name) && last->first + last->n == first) {
        last->n++;
        free(name);
        return;
    }
    if ((d->aliases & (d->aliases - 1)) == 0)
        d->alias = xrealloc(d->alias, (size_t)MAX(1, 2 * d->aliases) * sizeof *d->alias);
    d->alias[d->aliases++] = (struct alias){name, first, 1, experts};
}

/* What transformers calls the parameter, or the tensor that it is a part of, in memory, which is
 * what some programs save. */
static char *name_in_memory(const struct param *p)
{
    static const char hub[] = ".block_sparse_moe.", experts[] = ".experts.";
    const char *at = strstr(p->name, hub);
    char *name = at ? xasprintf("%.*s.mlp.%s", (int)(at - p->name), p->name, at + sizeof hub - 1)
                    : xstrdup(p->name);
    char *one = strstr(name, experts);
    if (one && p->expert >= 0) {
        char *all = xasprintf("%.*s%s", (int)(one + sizeof experts - 1 - name), name,
                              p->role == P_UP ? "gate_up_proj" : "down_proj");
        free(name);
        name = all;
    }
    return name;
}

static void names_list(struct hf_folder *d)
{
    for (int64_t i = 0; i < d->params; i++)
        alias_add(d, xstrdup(d->param[i].name), i, 0);
    for (int64_t i = 0; i < d->params; i++) {
        char *name = name_in_memory(&d->param[i]);
        if (strcmp(name, d->param[i].name))
            alias_add(d, name, i, d->param[i].expert >= 0);
        else
            free(name);
    }
    qsort(d->alias, (size_t)d->aliases, sizeof *d->alias, by_name);
}

static const struct alias *alias_find(const struct hf_folder *d, const char *name)
{
    struct alias key = {.name = (char *)name};
    return bsearch(&key, d->alias, (size_t)d->aliases, sizeof key, by_name);
}

/* ---- tensors ---- */

static char *shape_text(int ndim, const int64_t *shape)
{
    struct buf b = {0};
    buf_char(&b, '(');
    for (int i = 0; i < ndim; i++)
        buf_printf(&b, "%s%lld", i ? ", " : "", (long long)shape[i]);
    buf_char(&b, ')');
    return b.data;
}

/* The shape of the tensor of that name; returns its dimensions. */
static int shape_wanted(const struct hf_folder *d, const struct alias *a, int64_t shape[3])
{
    const struct param *first = &d->param[a->first], *last = first + a->n - 1;
    shape[0] = first->rows;
    shape[1] = first->cols;
    if (!a->experts)
        return first->cols ? 2 : 1;
    shape[0] = last->expert + 1;
    shape[1] = a->n / shape[0] * first->rows;
    shape[2] = first->cols;
    return 3;
}

/* The factors of a weight in blocks of FP8: NAME_scale_inv goes with NAME. */
static int factor_take(struct hf_folder *d, int64_t file, const struct tensor *t)
{
    static const char suffix[] = "_scale_inv";
    size_t n = strlen(t->name), end = sizeof suffix - 1;
    if (!d->blocks.rows || n < end || strcmp(t->name + n - end, suffix))
        return 0;
    char *weight = xstrndup(t->name, n - end);
    const struct alias *a = alias_find(d, weight);
    free(weight);
    if (!a || a->experts)
        return 0;
    d->found[a->first].factor_file = d->file[file];
    d->found[a->first].factor = t;
    return 1;
}

/* Whether a tensor has the bytes of another one of the folder. */
static int is_same(struct hf_folder *d, int64_t file, const struct tensor *t, const char *other)
{
    for (int64_t i = 0; i < d->files; i++) {
        const struct tensor *e = blob_find(shard_header(d->file[i]), other);
        if (e && e->type == t->type && e->bytes == t->bytes)
            return shard_blocks(d->file[i], e, NULL, NULL) ==
                   shard_blocks(d->file[file], t, NULL, NULL);
    }
    return 0;
}

/* Older folders have what is computed from config.json anyway, or the embedding a second time as
 * the head that it is tied to. */
static int is_derived(struct hf_folder *d, const struct config *c, int64_t file,
                      const struct tensor *t)
{
    static const char table[] = ".rotary_emb.inv_freq";
    size_t n = strlen(t->name), end = sizeof table - 1;
    if (n > end && !strcmp(t->name + n - end, table))
        return 1;
    return c->tied && !strcmp(t->name, "lm_head.weight") &&
           is_same(d, file, t, "model.embed_tokens.weight");
}

/* A tensor that repeats another one is held to it and then not needed. */
static int is_copy(struct hf_folder *d, int64_t file, const struct tensor *t)
{
    for (int64_t i = 0; i < d->copies; i++) {
        if (strcmp(t->name, d->copy[i].name))
            continue;
        if (!is_same(d, file, t, d->copy[i].of))
            fault(d, "%s: tensor \"%s\" is not the same as \"%s\", which it stands for",
                  d->name[file], t->name, d->copy[i].of);
        return 1;
    }
    return 0;
}

static void tensor_judge(struct hf_folder *d, const struct config *c, int64_t file,
                         const struct tensor *t)
{
    const struct alias *a = alias_find(d, t->name);
    int64_t shape[3];
    if (!a) {
        if (!factor_take(d, file, t) && !is_derived(d, c, file, t) && !is_copy(d, file, t))
            fault(d, "%s: tensor \"%s\" is none of this model's", d->name[file], t->name);
        return;
    }
    int ndim = shape_wanted(d, a, shape);
    if (t->ndim != ndim || memcmp(t->shape, shape, (size_t)ndim * sizeof *shape)) {
        char *is = shape_text(t->ndim, t->shape), *wanted = shape_text(ndim, shape);
        fault(d, "%s: tensor \"%s\" has shape %s, config.json asks for %s", d->name[file], t->name,
              is, wanted);
        free(is);
        free(wanted);
    } else if (!torch_dtype_known(t->type) && !(t->type == DT_F8_E4M3 && d->blocks.rows)) {
        fault(d, "%s: tensor \"%s\" is %s, not a type of weights", d->name[file], t->name,
              dtype_name(t->type));
    }
    int twice = 0;
    int64_t size = d->param[a->first].rows * MAX(1, d->param[a->first].cols);
    for (int64_t i = 0; i < a->n; i++) {
        struct found *f = &d->found[a->first + i];
        twice |= f->tensor != NULL;
        f->file = d->file[file];
        f->tensor = t;
        f->at = i * size;
    }
    if (twice)
        fault(d, "%s: tensor \"%s\" is in another file or tensor too", d->name[file], t->name);
}

/* After all tensors: what is missing of parameter i. */
static void found_judge(struct hf_folder *d, int64_t i)
{
    const struct found *f = &d->found[i];
    const struct param *p = &d->param[i];
    if (!f->tensor) {
        fault(d, "tensor \"%s\" is missing", p->name);
        return;
    }
    int quantised = f->tensor->type == DT_F8_E4M3;
    if (!quantised != !f->factor)
        fault(d,
              quantised ? "tensor \"%s\" is F8_E4M3 and has no \"%s_scale_inv\""
                        : "tensor \"%s\" is not F8_E4M3 and has a \"%s_scale_inv\"",
              p->name, p->name);
    if (!quantised || !f->factor)
        return;
    int64_t rows = (p->rows + d->blocks.rows - 1) / d->blocks.rows;
    int64_t cols = (MAX(1, p->cols) + d->blocks.cols - 1) / d->blocks.cols;
    if (f->factor->ndim != 2 || f->factor->shape[0] != rows || f->factor->shape[1] != cols) {
        char *is = shape_text(f->factor->ndim, f->factor->shape);
        fault(d, "tensor \"%s\" has shape %s, the blocks of its weight are (%lld, %lld)",
              f->factor->name, is, (long long)rows, (long long)cols);
        free(is);
    } else if (!torch_dtype_known(f->factor->type)) {
        fault(d, "tensor \"%s\" is %s, not a type of factors", f->factor->name,
              dtype_name(f->factor->type));
    }
}

struct hf_folder *hf_folder_open(const char *path, const struct config *c, const struct param *p,
                                 int64_t n, struct fp8_blocks blocks)
{
    struct hf_folder *d = xcalloc(1, sizeof *d);
    *d = (struct hf_folder){.path = path, .param = p, .params = n, .blocks = blocks};
    d->copy = arch_copies(c, &d->copies);
    d->found = xcalloc((size_t)n + 1, sizeof *d->found);
    names_list(d);
    files_open(d);
    hf_index_each(path, index_judge, d);
    for (int64_t i = 0; i < d->files; i++) {
        const struct blob *b = shard_header(d->file[i]);
        for (int64_t j = 0; j < b->tensors; j++)
            tensor_judge(d, c, i, &b->tensor[j]);
    }
    for (int64_t i = 0; i < n; i++)
        found_judge(d, i);
    if (d->faults)
        die_damaged("%s: %lld faults in the weights; nothing was written", path,
                    (long long)d->faults);
    return d;
}

int hf_folder_has(const char *path, const char *name)
{
    struct hf_folder d = {.path = path};
    int found = 0;
    files_open(&d);
    for (int64_t i = 0; i < d.files; i++)
        found |= blob_find(shard_header(d.file[i]), name) != NULL;
    files_close(&d);
    return found;
}

enum dtype hf_folder_type(const struct hf_folder *d, int64_t i)
{
    return d->found[i].factor ? DT_BF16 : d->found[i].tensor->type;
}

static void quantised_put(const struct hf_folder *d, int64_t i, struct blob_file *f, enum dtype to)
{
    const struct found *x = &d->found[i];
    int64_t factors = x->factor->bytes / dtype_size(x->factor->type);
    uint8_t *src = xmalloc((size_t)x->tensor->bytes + 1); /* (rows, cols) */
    void *raw = xmalloc((size_t)x->factor->bytes + 1);
    float *factor = xmalloc((size_t)(factors + 1) * sizeof *factor); /* (blocks down, across) */
    shard_read(x->file, x->tensor, src);
    shard_read(x->factor_file, x->factor, raw);
    dtype_convert(factor, DT_F32, raw, x->factor->type, factors);
    fp8_put(f, to, src, d->param[i].rows, MAX(1, d->param[i].cols), factor, d->blocks);
    free(src);
    free(raw);
    free(factor);
}

void hf_folder_put(const struct hf_folder *d, int64_t i, struct blob_file *f, enum dtype to)
{
    const struct found *x = &d->found[i];
    const struct tensor *t = x->tensor;
    int64_t n = d->param[i].rows * MAX(1, d->param[i].cols), size = dtype_size(t->type);
    if (x->factor) {
        quantised_put(d, i, f, to);
    } else if (n * size == t->bytes) {
        tensor_put(f, to, x->file, t);
    } else {
        void *part = xmalloc((size_t)(n * size) + 1);
        shard_read_part(x->file, t, x->at * size, n * size, part);
        elements_put(f, to, part, t->type, n);
        free(part);
    }
}

void hf_folder_close(struct hf_folder *d)
{
    files_close(d);
    for (int64_t i = 0; i < d->aliases; i++)
        free(d->alias[i].name);
    params_free(d->copy, d->copies);
    free(d->alias);
    free(d->found);
    free(d);
}
