/* writer.c -- one rank's files: its slices of the model under their own names, and its rectangles
 * of the optimizer's tensors.
 *
 * A model file is what PyTorch and transformers take: one rectangle a tensor, and where any is a
 * part, DCP_SHARDING_INFO says so for all of them (PyTorch looks up every tensor there or none). */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

enum { MODEL, OPTIMIZER, GROUPS };
static const char *const file_pattern[GROUPS] = {"model-%05d-of-%05d.safetensors",
                                                 "optim/optim-%05d-of-%05d.safetensors"};

struct ckpt_writer {
    char *dir;
    int rank, ranks;
    struct table t;
    struct buf copies; /* void *: what is freed at the end */
};

struct ckpt_writer *ckpt_writer_open(const char *dir, int rank, int ranks)
{
    struct ckpt_writer *w = xcalloc(1, sizeof *w);
    w->dir = xstrdup(dir);
    w->rank = rank;
    w->ranks = ranks;
    return w;
}

static struct slice *slice_add(struct ckpt_writer *w, const char *set, const struct param *p,
                               struct rect r, enum dtype type)
{
    if (!torch_dtype_known(type))
        die("%s: %s tensor \"%s\": a checkpoint holds no %s", w->dir, set, p->name,
            dtype_name(type));
    struct slice *s = table_add(&w->t, set, p->name);
    s->rows = p->rows;
    s->cols = p->cols;
    s->r = r;
    s->type = type;
    return s;
}

void ckpt_put(struct ckpt_writer *w, const char *set, const struct param *p, struct rect r,
              const void *data, enum dtype from, enum dtype to)
{
    if (r.rows == 0 || r.cols == 0)
        return;
    struct slice *s = slice_add(w, set, p, r, to);
    s->data = data;
    if (from != to) {
        int64_t n = r.rows * r.cols;
        void *copy = xmalloc((size_t)(n * dtype_size(to)));
        dtype_convert(copy, to, data, from, n);
        s->data = copy;
        ckpt_hold(w, copy);
    }
}

void ckpt_put_later(struct ckpt_writer *w, const char *set, const struct param *p, struct rect r,
                    enum dtype type, void (*put)(void *arg, struct blob_file *f), void *arg)
{
    if (r.rows == 0 || r.cols == 0)
        return;
    struct slice *s = slice_add(w, set, p, r, type);
    s->put = put;
    s->arg = arg;
}

void ckpt_hold(struct ckpt_writer *w, void *p)
{
    buf_add(&w->copies, &p, sizeof p);
}

static int64_t slice_bytes(const struct slice *s)
{
    return s->r.rows * s->r.cols * dtype_size(s->type);
}

int64_t ckpt_writer_bytes(const struct ckpt_writer *w)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < w->t.slices; i++)
        sum += slice_bytes(&w->t.slice[i]);
    return sum;
}

void ckpt_move(struct ckpt_writer *w, void *(*move)(void *arg, const void *data, int64_t bytes),
               void *arg)
{
    for (struct slice *s = w->t.slice; s < w->t.slice + w->t.slices; s++)
        s->data = move(arg, s->data, slice_bytes(s));
}

static int is_whole(const struct slice *s)
{
    return s->r.rows == s->rows && s->r.cols == MAX(1, s->cols);
}

static int group_of(const struct slice *s)
{
    return strcmp(s->set, "model") ? OPTIMIZER : MODEL;
}

static void records_add(struct blob *b, const char *key, const struct buf *members)
{
    char *object = xasprintf("{%s}", members->data ? members->data : "");
    blob_meta(b, key, object);
    free(object);
}

/* The file's metadata: each tensor's global shape and offset for us, its offset for PyTorch. */
static void describe(struct blob *b, const struct table *t, int group)
{
    struct buf own = {0}, dcp = {0};
    int partial = 0;
    for (const struct slice *s = t->slice; s < t->slice + t->slices; s++) {
        if (group_of(s) != group)
            continue;
        partial |= !is_whole(s);
        buf_str(&own, own.len ? "," : "");
        json_quote(&own, s->tensor, strlen(s->tensor));
        buf_str(&own, ":{\"shape\":");
        slice_dims_print(s, SLICE_GLOBAL, &own);
        buf_str(&own, ",\"offset\":");
        slice_dims_print(s, SLICE_OFFSET, &own);
        buf_char(&own, '}');
        buf_str(&dcp, dcp.len ? "," : "");
        json_quote(&dcp, s->tensor, strlen(s->tensor));
        buf_str(&dcp, ":{\"saved_offsets\":");
        slice_dims_print(s, SLICE_OFFSET, &dcp);
        buf_char(&dcp, '}');
    }
    blob_meta(b, "schema", "moeutils.ckpt");
    blob_meta(b, "version", "1");
    blob_meta(b, "format", "pt"); /* transformers refuses a file without */
    records_add(b, "moeutils.slices", &own);
    if (group == MODEL && partial) {
        blob_meta(b, "DCP_VERSION", "1.0");
        records_add(b, "DCP_SHARDING_INFO", &dcp);
    }
    buf_release(&own);
    buf_release(&dcp);
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp((*(struct slice *const *)a)->tensor, (*(struct slice *const *)b)->tensor);
}

/* The file itself: by_name are the slices of b's tensors, sorted.  Returns its bytes. */
static int64_t slices_write(struct blob *b, struct slice **by_name, const char *path)
{
    struct blob_file *f = blob_file_open(b, path);
    for (int64_t i = 0; i < b->tensors; i++) {
        struct slice key = {.tensor = b->tensor[i].name}, *pkey = &key;
        struct slice *s = *(struct slice **)bsearch(&pkey, by_name, (size_t)b->tensors,
                                                    sizeof *by_name, by_tensor_name);
        if (s->put)
            s->put(s->arg, f);
        else
            blob_file_put(f, s->data, b->tensor[i].bytes);
    }
    int64_t bytes = blob_file_close(f);
    for (int64_t i = 0; i < b->tensors; i++) {
        char *key = xasprintf("xxh3.%s", by_name[i]->tensor);
        snprintf(by_name[i]->hash, sizeof by_name[i]->hash, "%s", blob_get(b, key));
        free(key);
    }
    return bytes;
}

static void group_write(struct ckpt_writer *w, int group)
{
    struct table *t = &w->t;
    struct blob b = {0};
    struct slice **by_name = xmalloc((size_t)(t->slices + 1) * sizeof *by_name); /* (b.tensors) */
    for (struct slice *s = t->slice; s < t->slice + t->slices; s++) {
        if (group_of(s) != group)
            continue;
        s->file = t->files;
        by_name[b.tensors] = s;
        blob_tensor(&b, s->tensor, s->type, s->cols ? 2 : 1, (int64_t[]){s->r.rows, s->r.cols},
                    NULL);
    }
    if (b.tensors) {
        describe(&b, t, group);
        char *name = xasprintf(file_pattern[group], w->rank + 1, w->ranks);
        char *path = path_join(w->dir, name);
        if (group == OPTIMIZER) {
            char *folder = path_join(w->dir, "optim");
            make_dirs(folder);
            free(folder);
        }
        qsort(by_name, (size_t)b.tensors, sizeof *by_name, by_tensor_name);
        table_file(t, name, slices_write(&b, by_name, path));
        free(path);
        free(name);
    }
    blob_release(&b);
    free(by_name);
}

char *ckpt_writer_close(struct ckpt_writer *w)
{
    struct table *t = &w->t;
    table_sort(t);
    for (int64_t i = 0, j; i < t->slices; i = j) {
        j = table_run(t, i);
        for (int64_t k = i; k < j; k++) {
            struct slice *s = &t->slice[k];
            s->tensor = group_of(s) == MODEL
                            ? xstrdup(s->name)
                            : xasprintf("%s/%s/%lld", s->set, s->name, (long long)(k - i));
        }
    }
    for (int g = 0; g < GROUPS; g++)
        group_write(w, g);
    struct buf part = {0};
    buf_char(&part, '{');
    table_print(t, &part);
    buf_char(&part, '}');
    for (size_t i = 0; i < w->copies.len; i += sizeof(void *)) {
        void *copy;
        memcpy(&copy, w->copies.data + i, sizeof copy);
        free(copy);
    }
    buf_release(&w->copies);
    table_release(t);
    free(w->dir);
    free(w);
    return part.data;
}
