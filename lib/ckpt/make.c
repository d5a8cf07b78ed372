/* make.c -- a checkpoint of tensors that come from elsewhere, each put when it is its turn. */
#include "ckpt_priv.h"

#include <stdlib.h>

static char *file_write(const char *dir, int f, int n, const struct making *m, int64_t tensors)
{
    struct ckpt_writer *w = ckpt_writer_open(dir, f, n);
    for (; tensors--; m++)
        ckpt_put_later(w, "model", m->p, (struct rect){0, 0, m->p->rows, MAX(1, m->p->cols)},
                       m->type, m->put, m->arg);
    return ckpt_writer_close(w);
}

void ckpt_make(const char *to, const struct making *m, int64_t n, const struct config *c,
               const char *beside, int64_t file_bytes)
{
    int64_t *bytes = xmalloc((size_t)n * sizeof *bytes), *end = xmalloc((size_t)n * sizeof *end);
    for (int64_t i = 0; i < n; i++)
        bytes[i] = m[i].p->rows * MAX(1, m[i].p->cols) * dtype_size(m[i].type);
    int files = files_cut(bytes, n, file_bytes, end);
    char *tmp = dir_begin(to), **part = xmalloc((size_t)files * sizeof *part);
    for (int f = 0; f < files; f++) {
        int64_t lo = f ? end[f - 1] : 0;
        part[f] = file_write(tmp, f, files, m + lo, end[f] - lo);
    }
    side_files_copy(beside, tmp);
    ckpt_manifest_write(tmp, part, files, "{\"step\":0}", c, m[0].type);
    dir_publish(tmp, to);

    for (int f = 0; f < files; f++)
        free(part[f]);
    free(part);
    free(tmp);
    free(bytes);
    free(end);
}
