/* spy.h -- what the router of a trainer chose, for tests: two ops are stood in for.
 *
 * Of what drop() keeps it adds up hashes of each row: a sum that does not depend on which rank has
 * a row when.  What route_loss() is told of each accounting group (its choices and probabilities by
 * expert, of all ranks that hold it) is copied where the host can read it after the step, also of a
 * step that was captured. */
#ifndef SPY_H
#define SPY_H

#include "train/train.h"

#include <stdlib.h>
#include <string.h>

/* n values as doubles on the host; caller frees. */
static double *to_host(struct model *m, const void *p, int64_t n, enum dtype type)
{
    void *raw = xmalloc(n * dtype_size(type));
    double *x = xmalloc(n * sizeof *x);
    m->lane->dev->get(m->lane, raw, p, n * dtype_size(type));
    m->lane->dev->wait(m->lane);
    dtype_convert(x, DT_F64, raw, type, n);
    free(raw);
    return x;
}

/* A rank may be a thread. */
static _Thread_local struct spy {
    const struct op *op;
    uint64_t kept;
    char *there; /* S (calls, 2, A, E), on the device */
    int64_t calls, at, seq;
} spy;

static void drop_spied(struct lane *l, int32_t *kept, void *dropped, const int32_t *index,
                       const void *gate, int64_t t, int64_t e, int64_t k, int64_t a, double factor)
{
    spy.op->drop(l, kept, dropped, index, gate, t, e, k, a, factor);
    for (int64_t i = 0; i < t; i += spy.seq)
        spy.kept +=
            hash_xxh3(kept + i * k, spy.seq * k * sizeof *kept) >> 32; /* so that sums fit */
}

static void route_loss_spied(struct lane *l, void *loss, const void *count, const void *psum,
                             const void *lse, const int32_t *group, int64_t t, int64_t e, int64_t k,
                             int64_t a)
{
    int64_t bytes = a * e * dtype_size(spy.op->stat);
    char *to = spy.there + spy.at++ % spy.calls * 2 * bytes;
    l->dev->copy(l, to, count, bytes);
    l->dev->copy(l, to + bytes, psum, bytes);
    spy.op->route_loss(l, loss, count, psum, lse, group, t, e, k, a);
}

static int routes(const struct task *k)
{
    return k->segment == SEG_ROUTE && k->pass == PASS_FORWARD;
}

static void spy_open(struct trainer *t, struct op *op, int drops)
{
    struct model *m = &t->model;
    *op = *m->op;
    spy = (struct spy){.op = m->op, .seq = t->o.seq};
    for (int64_t i = 0; i < t->schedule.n; i++)
        spy.calls += routes(&t->schedule.task[i]);
    spy.there = lane_alloc(m->lane,
                           MAX(spy.calls, 1) * 2 * t->batch[0].groups * m->cfg.experts *
                               dtype_size(m->op->stat),
                           "the test");
    op->route_loss = route_loss_spied;
    if (drops)
        op->drop = drop_spied;
    m->op = op;
}

/* What all ranks kept; those of TP x CP saw the same rows. */
static uint64_t kept_hash(struct model *m)
{
    int64_t sum = m->mesh.i_tp || m->mesh.i_cp ? 0 : (int64_t)spy.kept;
    comm_all_reduce(m->comm[GROUP_WORLD], NULL, &sum, 1, DT_I64, COMM_SUM);
    return sum;
}

/* The counts and probabilities of the step that is done, this rank's groups: others stay 0. */
static void spy_read(struct trainer *t, double *count, double *psum /* (groups, layers, E) */)
{
    struct model *m = &t->model;
    int64_t e = m->cfg.experts, a = t->batch[0].groups, group = MAX(t->o.group, 1), call = 0;
    double *x = to_host(m, spy.there, spy.calls * 2 * a * e, m->op->stat);
    for (int64_t i = 0; i < t->schedule.n; i++) {
        const struct task *k = &t->schedule.task[i];
        int64_t layer = 0, row = (k->micro * t->mesh.dp + t->mesh.i_dp) * t->o.micro;
        if (!routes(k))
            continue;
        while (mesh_stage(&m->mesh, layer, m->cfg.layers) != t->mesh.i_pp ||
               model_local_layer(m, layer) != k->layer)
            layer++;
        for (int64_t j = 0; j < a && !t->mesh.i_tp && !t->mesh.i_cp; j++) {
            int64_t to = ((row / group + j) * (m->cfg.layers + m->cfg.further) + layer) * e;
            memcpy(count + to, x + (call * 2 * a + j) * e, e * sizeof *x);
            memcpy(psum + to, x + (call * 2 * a + a + j) * e, e * sizeof *x);
        }
        call++;
    }
    free(x);
}

static void spy_close(const struct trainer *t)
{
    t->lane.dev->free(spy.there);
}

#endif
