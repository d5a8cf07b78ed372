/* diff.c -- checkpoints and Hugging Face folders against each other, by whole tensors.
 *
 * How a side is cut and over which files it is spread does not matter.  A folder of Hugging Face's
 * has no optimizer, so against one only the model is compared. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

struct item {
    char *key;
    struct tensor t;           /* its name is the key */
    const struct slice *first; /* in a checkpoint */
    struct shard_file *file;   /* else */
    const struct tensor *stored;
};
struct side {
    const char *path;
    struct ckpt *k;
    struct shard_file **file;
    struct item *item; /* by key */
    int64_t files, items;
};

static struct item *item_add(struct side *s, char *key)
{
    if ((s->items & (s->items - 1)) == 0) /* room for twice as many */
        s->item = xrealloc(s->item, (size_t)MAX(2 * s->items, 1) * sizeof *s->item);
    struct item *x = &s->item[s->items++];
    *x = (struct item){.key = key};
    return x;
}

static void item_slices(struct side *s, char *key, const struct slice *f)
{
    struct item *x = item_add(s, key);
    x->first = f;
    x->t = (struct tensor){.type = f->type,
                           .ndim = f->cols ? 2 : 1,
                           .shape = {f->rows, f->cols},
                           .bytes = f->rows * MAX(f->cols, 1) * dtype_size(f->type)};
}

/* What a Hugging Face folder has twice. */
static void side_copies(struct side *s)
{
    struct config c;
    int64_t n;
    ckpt_config(s->k, &c);
    struct param *copy = arch_copies(&c, &n);
    for (int64_t i = 0; i < n; i++) {
        int64_t of = table_find(ckpt_table(s->k), "model", copy[i].of);
        if (of >= 0)
            item_slices(s, xstrdup(copy[i].name), &ckpt_table(s->k)->slice[of]);
    }
    params_free(copy, n);
    config_release(&c);
}

static void side_open_ckpt(struct side *s, int model_only)
{
    s->k = ckpt_open(s->path);
    const struct table *t = ckpt_table(s->k);
    if (model_only)
        side_copies(s);
    for (int64_t i = 0; i < t->slices; i = table_run(t, i)) {
        const struct slice *f = &t->slice[i];
        int in_model = !strcmp(f->set, "model");
        if (model_only && !in_model)
            continue;
        item_slices(s, in_model ? xstrdup(f->name) : xasprintf("optim/%s/%s", f->set, f->name), f);
    }
}

static void side_open_folder(struct side *s)
{
    char **name = (hf_is(s->path) ? hf_files : shard_list)(s->path, &s->files);
    s->file = xcalloc((size_t)s->files, sizeof(struct shard_file *));
    for (int64_t i = 0; i < s->files; i++) {
        char *path = path_join(s->path, name[i]);
        s->file[i] = shard_open(path);
        const struct blob *b = shard_header(s->file[i]);
        for (int64_t k = 0; k < b->tensors; k++) {
            struct item *x = item_add(s, xstrdup(b->tensor[k].name));
            x->t = b->tensor[k];
            x->file = s->file[i];
            x->stored = &b->tensor[k];
        }
        free(path);
        free(name[i]);
    }
    free(name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->key, ((const struct item *)b)->key);
}

static void side_open(struct side *s, const char *path, int model_only)
{
    *s = (struct side){.path = path};
    if (ckpt_is(path))
        side_open_ckpt(s, model_only);
    else
        side_open_folder(s);
    if (s->items)
        qsort(s->item, (size_t)s->items, sizeof *s->item, by_key);
    for (int64_t i = 0; i < s->items; i++) {
        s->item[i].t.name = s->item[i].key;
        if (i && !by_key(&s->item[i - 1], &s->item[i]))
            die("%s: tensor \"%s\" is in two files", path, s->item[i].key);
    }
}

static void side_close(struct side *s)
{
    for (int64_t i = 0; i < s->items; i++)
        free(s->item[i].key);
    for (int64_t i = 0; i < s->files; i++)
        shard_close(s->file[i]);
    if (s->k)
        ckpt_close(s->k);
    free(s->file);
    free(s->item);
}

static void item_read(const struct side *s, struct item *x)
{
    x->t.data = xmalloc((size_t)x->t.bytes + 1);
    if (!x->first) {
        shard_read(x->file, x->stored, x->t.data);
        return;
    }
    struct param p = {.name = x->first->name, .rows = x->first->rows, .cols = x->first->cols};
    struct rect whole = {0, 0, p.rows, MAX(p.cols, 1)};
    ckpt_get(s->k, x->first->set, &p, whole, x->t.data, x->t.type);
}

int64_t ckpt_diff(const char *a, const char *b, struct out *o, int64_t *tensors)
{
    struct side l, r;
    int64_t i = 0, k = 0, differ = 0;
    int model_only = !ckpt_is(a) || !ckpt_is(b);
    side_open(&l, a, model_only);
    side_open(&r, b, model_only);
    for (*tensors = 0; i < l.items || k < r.items; ++*tensors) {
        int order = i == l.items ? 1 : k == r.items ? -1 : by_key(&l.item[i], &r.item[k]);
        if (order) {
            shard_diff_lone(o, order < 0 ? &l.item[i++].t : &r.item[k++].t, order < 0 ? a : b);
            differ++;
            continue;
        }
        struct item *x = &l.item[i++], *y = &r.item[k++];
        item_read(&l, x);
        item_read(&r, y);
        differ += shard_diff_pair(o, &x->t, &y->t);
        free(x->t.data);
        free(y->t.data);
    }
    side_close(&l);
    side_close(&r);
    return differ;
}
