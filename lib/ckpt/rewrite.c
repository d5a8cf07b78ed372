/* rewrite.c -- a checkpoint into another with the same tensors and state, cut anew by rows. */
#include "ckpt_priv.h"

#include <stdlib.h>

/* File f of n gets the rows of every tensor, of the model and of the optimizer, that fall to it. */
static char *file_write(struct ckpt *k, const char *dir, int f, int n)
{
    const struct table *t = ckpt_table(k);
    struct spool *spool = spool_open(dir);
    struct ckpt_writer *w = ckpt_writer_open(dir, f, n);
    for (int64_t i = 0; i < t->slices; i = table_run(t, i)) {
        const struct slice *s = &t->slice[i];
        struct param p = {.name = s->name, .rows = s->rows, .cols = s->cols};
        int64_t lo = p.rows * f / n, hi = p.rows * (f + 1) / n;
        struct rect r = {lo, 0, hi - lo, MAX(1, p.cols)};
        if (hi == lo)
            continue;
        void *data = spool_take(spool, r.rows * r.cols * dtype_size(s->type));
        ckpt_get(k, s->set, &p, r, data, s->type);
        ckpt_put(w, s->set, &p, r, data, s->type, s->type);
    }
    char *part = ckpt_writer_close(w);
    spool_close(spool);
    return part;
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
