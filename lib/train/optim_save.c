/* optim_save.c -- what an optimizer holds, into checkpoints and out of them: moments and masters,
 * in rectangles of tensors. */
#include "train/train.h"

#include <stdlib.h>

void optim_fill_master(struct optim *o)
{
    enum { PIECE = 16 << 20 }; /* elements on the host at once */
    const struct model *m = o->m;
    struct lane *l = m->lane;
    int64_t rsz = dtype_size(m->op->real), ssz = dtype_size(m->op->stat);
    if (o->own)
        return;
    void *w = xmalloc(PIECE * rsz), *master = xmalloc(PIECE * ssz);
    for (int64_t i = 0; i < m->layout.buckets; i++) {
        const struct bucket *b = &m->layout.bucket[i];
        char *from = (char *)m->weight[b->buffer] + b->own * rsz;
        char *to = (char *)o->shard[b->buffer].master + b->in_shard * ssz;
        for (int64_t at = 0; at < b->part; at += PIECE) {
            int64_t n = MIN(PIECE, b->part - at);
            l->dev->get(l, w, from + at * rsz, n * rsz);
            l->dev->wait(l);
            dtype_convert(master, m->op->stat, w, m->op->real, n);
            l->dev->put(l, to + at * ssz, master, n * ssz);
            l->dev->wait(l);
        }
    }
    free(w), free(master);
}

void optim_set_count(struct optim *o, double committed)
{
    double state[STEP_STATE] = {[STEP_COUNT] = committed}, host[STEP_STATE];
    struct lane *l = o->m->lane;
    dtype_convert(host, o->m->op->stat, state, DT_F64, STEP_STATE);
    l->dev->put(l, o->state, host, STEP_STATE * dtype_size(o->m->op->stat));
    l->dev->wait(l);
}

/* The arrays of a shard that a checkpoint holds, under their names there. */
struct array {
    const char *name;
    char *data; /* (shard) */
    enum dtype type;
};
static int arrays(const struct optim *o, int b, struct array a[3])
{
    int n = 0;
    for (int i = 0; i < o->def->moments; i++)
        a[n++] = (struct array){o->def->moment[i], o->shard[b].moment[i], o->moment_type};
    if (!o->own)
        a[n++] = (struct array){"master", o->shard[b].master, o->m->op->stat};
    return n;
}

void optim_save(const struct optim *o, struct ckpt_writer *w)
{
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        struct array a[3];
        int n = arrays(o, b, a);
        for (int i = 0; i < n; i++)
            for (int64_t j = 0; j < o->shard[b].pieces; j++) {
                const struct optim_piece *p = &o->shard[b].piece[j];
                if (p->writes)
                    ckpt_put(w, a[i].name, p->p, p->r, a[i].data + p->at * dtype_size(a[i].type),
                             a[i].type, a[i].type);
            }
    }
}

void optim_load(struct optim *o, struct ckpt *k)
{
    struct lane *l = o->m->lane;
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        struct array a[3];
        int n = arrays(o, b, a);
        for (int i = 0; i < n; i++)
            for (int64_t j = 0; j < o->shard[b].pieces; j++) {
                const struct optim_piece *p = &o->shard[b].piece[j];
                int64_t size = dtype_size(a[i].type), bytes = p->r.rows * p->r.cols * size;
                void *host = xmalloc(MAX(bytes, 1));
                ckpt_get(k, a[i].name, p->p, p->r, host, a[i].type);
                l->dev->put(l, a[i].data + p->at * size, host, bytes);
                l->dev->wait(l);
                free(host);
            }
    }
}
