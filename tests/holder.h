/* holder.h -- a trainer for the state that it holds, weights and AdamW's moments in f32, and not to
 * train: its batch is as small as can be. */
#ifndef HOLDER_H
#define HOLDER_H

#include "train/train.h"

#include <string.h>

static void holder_init(struct trainer *t, struct world *w, const char *config, int tp, int cp,
                        int pp, int etp, int ep)
{
    struct mesh mesh;
    struct config c;
    struct trainer_options o = {.device = "cpu",
                                .type = "f32",
                                .optim.name = "adamw",
                                .loss = "nll",
                                .micro = 1,
                                .seq = 16,
                                .threads = 1};
    const char *why = mesh_init(&mesh, world_size(w), world_rank(w), tp, cp, pp, etp, ep);
    if (why)
        die("%s", why);
    o.batch = mesh.dp;
    config_parse(&c, config, strlen(config), "holder");
    trainer_init(t, w, &mesh, &c, &o);
}

#endif
