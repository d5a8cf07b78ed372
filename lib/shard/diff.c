/* diff.c -- two files or folders, compared tensor by tensor.
 *
 * How tensors are spread over files, and their order, do not matter: a tensor is known by its
 * folder and its name.  Where files of one folder share a name, as those of a set do, the file is
 * part of it. */
#include "shard/shard_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct member {
    char *key, *where; /* where: its file, relative to the folder compared */
    struct shard_file *file;
    const struct tensor *tensor;
};
struct side {
    struct shard_file **file;
    struct member *member; /* by key */
    int64_t files, members;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->key, ((const struct member *)b)->key);
}

static void side_add(struct side *s, const char *path, const char *where)
{
    if (!shard_is_file(path))
        die("%s: not a shard file or a folder of them", path);
    struct shard_file *f = shard_open(path);
    const struct blob *b = shard_header(f);
    const char *slash = strrchr(where, '/');
    int folder = slash ? (int)(slash - where) + 1 : 0;
    s->file = xrealloc(s->file, (size_t)(s->files + 1) * sizeof *s->file);
    s->file[s->files++] = f;
    s->member = xrealloc(s->member, (size_t)(s->members + b->tensors + 1) * sizeof *s->member);
    for (int64_t i = 0; i < b->tensors; i++)
        s->member[s->members++] = (struct member){
            .key = xasprintf("%.*s%s", folder, where, b->tensor[i].name),
            .where = xstrdup(where),
            .file = f,
            .tensor = &b->tensor[i],
        };
}

static void side_open(struct side *s, const char *path)
{
    if (path_is_dir(path)) {
        int64_t n;
        char **name = shard_list(path, &n);
        for (int64_t i = 0; i < n; i++) {
            char *full = path_join(path, name[i]);
            side_add(s, full, name[i]);
            free(full);
            free(name[i]);
        }
        free(name);
    } else {
        side_add(s, path, "");
    }
    qsort(s->member, (size_t)s->members, sizeof *s->member, by_key);
    char *shared = NULL; /* the key as it was */
    for (int64_t i = 0; i < s->members; i++) {
        struct member *m = &s->member[i];
        int again = shared && !strcmp(shared, m->key);
        if (again || (i + 1 < s->members && !strcmp(m->key, m[1].key))) {
            free(shared);
            shared = m->key;
            m->key = xasprintf("%s:%s", m->where, m->tensor->name);
        }
    }
    free(shared);
    qsort(s->member, (size_t)s->members, sizeof *s->member, by_key);
}

static void side_close(struct side *s)
{
    for (int64_t i = 0; i < s->files; i++)
        shard_close(s->file[i]);
    for (int64_t i = 0; i < s->members; i++) {
        free(s->member[i].key);
        free(s->member[i].where);
    }
    free(s->file);
    free(s->member);
}

static char *form(const struct tensor *t)
{
    struct buf b = {0};
    buf_printf(&b, "%s ", dtype_name(t->type));
    shape_print(t, &b);
    return b.data;
}

static int is_float(enum dtype t)
{
    return t == DT_F64 || t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

/* The largest |a - b| of two floating tensors; NaN where only one of them is NaN. */
static double distance(enum dtype type, const char *a, const char *b, int64_t n)
{
    enum { BLOCK = 1024 };
    double x[BLOCK], y[BLOCK], most = 0;
    int64_t size = dtype_size(type);
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = MIN(BLOCK, n - i);
        dtype_convert(x, DT_F64, a + i * size, type, m);
        dtype_convert(y, DT_F64, b + i * size, type, m);
        for (int64_t k = 0; k < m; k++) {
            if (isnan(x[k]) != isnan(y[k]))
                return NAN;
            if (x[k] != y[k] && !isnan(x[k]))
                most = fmax(most, fabs(x[k] - y[k]));
        }
    }
    return most;
}

void shard_diff_lone(struct out *o, const struct tensor *t, const char *path)
{
    char *what = form(t);
    out_printf(o, "%s\t%s\tonly in %s\n", t->name, what, path);
    free(what);
}

int shard_diff_pair(struct out *o, const struct tensor *a, const struct tensor *b)
{
    char *left = form(a), *right = form(b);
    int differ = strcmp(left, right) != 0;
    if (differ) {
        out_printf(o, "%s\t%s\t%s\n", a->name, left, right);
    } else {
        const char *x = a->data, *y = b->data;
        int64_t size = dtype_size(a->type), n = a->bytes / size, apart = 0;
        for (int64_t i = 0; i < n; i++)
            apart += memcmp(x + i * size, y + i * size, (size_t)size) != 0;
        differ = apart > 0;
        if (differ)
            out_printf(o, "%s\t%s\t%lld of %lld differ", a->name, left, (long long)apart,
                       (long long)n);
        if (differ && is_float(a->type))
            out_printf(o, ", by up to %g", distance(a->type, x, y, n));
        if (differ)
            out_write(o, "\n", 1);
    }
    free(left);
    free(right);
    return differ;
}

/* The member's tensor under its key, with data the caller frees. */
static struct tensor loaded(const struct member *m)
{
    struct tensor t = *m->tensor;
    t.name = m->key;
    t.data = xmalloc((size_t)t.bytes + 1);
    shard_read(m->file, m->tensor, t.data);
    return t;
}

int64_t shard_diff(const char *a, const char *b, struct out *o, int64_t *tensors)
{
    struct side l = {0}, r = {0};
    int64_t i = 0, k = 0, differ = 0;
    side_open(&l, a);
    side_open(&r, b);
    for (*tensors = 0; i < l.members || k < r.members; ++*tensors) {
        int order = i == l.members ? 1 : k == r.members ? -1 : by_key(&l.member[i], &r.member[k]);
        if (order) {
            const struct member *m = order < 0 ? &l.member[i++] : &r.member[k++];
            struct tensor t = *m->tensor;
            t.name = m->key;
            shard_diff_lone(o, &t, order < 0 ? a : b);
            differ++;
        } else {
            struct tensor t = loaded(&l.member[i++]), u = loaded(&r.member[k++]);
            differ += shard_diff_pair(o, &t, &u);
            free(t.data);
            free(u.data);
        }
    }
    side_close(&l);
    side_close(&r);
    return differ;
}
