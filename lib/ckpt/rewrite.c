/* rewrite.c -- a checkpoint into another with the same tensors and state, cut anew by rows. */
#include "ckpt_priv.h"

#include <stdlib.h>

struct piece { /* of a tensor: what falls to one file */
    struct ckpt *k;
    const struct slice *s; /* the tensor's first */
    struct param p;
    struct rect r;
};

static void piece_put(void *arg, struct blob_file *f)
{
    const struct piece *x = arg;
    ckpt_copy(x->k, x->s->set, &x->p, x->r, f, x->s->type);
}

/* File f of n gets the rows of every tensor, of the model and of the optimizer, that fall to it. */
static char *file_write(struct ckpt *k, const char *dir, int f, int n)
{
    const struct table *t = ckpt_table(k);
    struct ckpt_writer *w = ckpt_writer_open(dir, f, n);
    for (int64_t i = 0; i < t->slices; i = table_run(t, i)) {
        const struct slice *s = &t->slice[i];
        struct param p = {.name = s->name, .rows = s->rows, .cols = s->cols};
        int64_t lo = p.rows * f / n, hi = p.rows * (f + 1) / n;
        struct piece *x = xmalloc(sizeof *x);
        *x = (struct piece){k, s, p, {lo, 0, hi - lo, MAX(1, p.cols)}};
        ckpt_hold(w, x);
        ckpt_put_later(w, s->set, &x->p, x->r, s->type, piece_put, x);
    }
    return ckpt_writer_close(w);
}

void ckpt_rewrite(const char *from, const char *to, int files)
{
    struct ckpt *k = ckpt_open(from);
    struct config c;
    struct buf state = {0};
    ckpt_config(k, &c);
    json_write(&state, ckpt_state(k));

    char *tmp = dir_begin(to);
    char **part = xcalloc((size_t)files, sizeof *part);
    for (int f = 0; f < files; f++)
        part[f] = file_write(k, tmp, f, files);
    side_files_copy(ckpt_path(k), tmp);
    ckpt_manifest_write(tmp, part, files, state.data, &c, ckpt_type(k, &c));
    dir_publish(tmp, to);

    for (int f = 0; f < files; f++)
        free(part[f]);
    free(part);
    free(tmp);
    buf_release(&state);
    config_release(&c);
    ckpt_close(k);
}
