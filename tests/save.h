/* save.h -- a checkpoint of what a trainer holds, by all its ranks; as a run writes it, without the
 * run. */
#ifndef SAVE_H
#define SAVE_H

#include "train/train.h"

#include <stdlib.h>
#include <string.h>

static void save(struct trainer *t, struct world *w, const char *dir)
{
    struct model *m = &t->model;
    int n = world_size(w);
    int64_t len[64];
    char *part[64];
    optim_whole(&t->optim);
    struct ckpt_writer *out = ckpt_writer_open(dir, world_rank(w), n);
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        enum dtype type = model_type(m, l->buffer);
        if (l->writes)
            ckpt_put(out, "model", l->p, l->r, model_weight(m, l), type, type);
    }
    optim_save(&t->optim, out);
    char *mine = ckpt_writer_close(out);
    comm_gather_bytes(m->comm[GROUP_WORLD], mine, strlen(mine), part, len);
    if (world_rank(w) == 0)
        ckpt_manifest_write(dir, part, n, "{}", &m->cfg, m->op->real);
    for (int i = 0; i < n; i++)
        free(part[i]);
    free(mine);
}

#endif
