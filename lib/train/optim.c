/* optim.c -- the optimizer, cut over the ranks that hold the same weights (ZeRO-1).
 *
 * Gradients of dense tensors are summed over DP x CP and those of experts over EDP; the sum is left
 * scattered, each rank updates its shard, and the new weights are gathered.  A shard is a stretch
 * of the flat buffer, so checkpoints store it as rectangles of the tensors it runs through.  Every
 * gradient is a sum over tokens of the global batch (the denominator is in dL/dlogp), so nothing is
 * averaged. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

static const struct optim_def defs[] = {
    {"adamw", {"exp_avg", "exp_avg_sq"}, 2},
    {"sgd", {NULL, NULL}, 0},
};

static struct comm *shard_comm(const struct model *m, int buffer)
{
    return m->comm[buffer == BUFFER_DENSE ? GROUP_DP_CP : GROUP_EDP];
}

static void *take(struct model *m, int64_t n)
{
    return lane_alloc(m->lane, n * dtype_size(m->op->stat), "the optimizer");
}

/* Stretches of the shard with one decay each: gaps between tensors count as undecayed. */
static void runs_init(struct optim_shard *s, const struct layout *y, int buffer, double decay)
{
    int64_t lo = y->shard_at[buffer], hi = lo + y->shard[buffer];
    s->run = xmalloc((2 * y->n + 2) * sizeof *s->run);
    s->decay = xmalloc((2 * y->n + 2) * sizeof *s->decay);
    s->run[0] = 0;
    for (int64_t i = 0; i < y->n; i++) {
        const struct local *l = &y->local[i];
        int64_t end = MIN(l->at + l->r.rows * l->r.cols, hi) - lo;
        if (l->buffer != (enum mesh_buffer)buffer || end <= s->run[s->runs])
            continue;
        double d = l->p->decay ? decay : 0;
        if (s->runs && s->decay[s->runs - 1] == d)
            s->runs--;
        s->decay[s->runs] = d;
        s->run[++s->runs] = end;
    }
    if (s->run[s->runs] < hi - lo) {
        s->decay[s->runs] = 0;
        s->run[++s->runs] = hi - lo;
    }
}

/* The shard as rectangles of the tensors it runs through: what checkpoints store. */
static void pieces_init(struct optim_shard *s, const struct model *m, int b)
{
    const struct layout *y = &m->layout;
    int64_t lo = y->shard_at[b], hi = lo + y->shard[b];
    s->piece = xmalloc((3 * y->n + 1) * sizeof *s->piece);
    for (int64_t i = 0; i < y->n; i++) {
        const struct local *l = &y->local[i];
        int64_t beg = MAX(lo, l->at), end = MIN(hi, l->at + l->r.rows * l->r.cols);
        if (l->buffer != (enum mesh_buffer)b || beg >= end)
            continue;
        struct rect r[3];
        int n = rect_from_range(&l->r, beg - l->at, end - l->at, r);
        for (int j = 0; j < n; j++) {
            s->piece[s->pieces++] = (struct optim_piece){l->p, r[j], beg - lo, l->owns};
            beg += r[j].rows * r[j].cols;
        }
    }
}

void optim_init(struct optim *o, struct model *m, const char *name, struct step_plan plan,
                double decay)
{
    memset(o, 0, sizeof *o);
    o->m = m;
    o->plan = plan;
    for (int64_t i = 0; i < ARRAY_LEN(defs); i++)
        if (!strcmp(defs[i].name, name))
            o->def = &defs[i];
    if (!o->def)
        die_misused("--optimizer %s: there is no such optimizer", name);
    for (int b = 0; b < BUFFERS; b++) {
        struct optim_shard *s = &o->shard[b];
        int64_t at = m->layout.shard_at[b];
        s->master = m->op->real == m->op->stat ? (char *)m->weight[b] + at * dtype_size(m->op->real)
                                               : take(m, m->layout.shard[b]);
        for (int i = 0; i < o->def->moments; i++)
            s->moment[i] = take(m, m->layout.shard[b]);
        runs_init(s, &m->layout, b, decay);
        pieces_init(s, m, b);
    }
    o->state = take(m, STEP_STATE);
    o->sums = take(m, 2);
}

void optim_release(struct optim *o)
{
    const struct dev_ops *dev = o->m->lane->dev;
    for (int b = 0; b < BUFFERS; b++) {
        struct optim_shard *s = &o->shard[b];
        if (o->m->op->real != o->m->op->stat)
            dev->free(s->master);
        for (int i = 0; i < o->def->moments; i++)
            dev->free(s->moment[i]);
        free(s->run);
        free(s->decay);
        free(s->piece);
    }
    dev->free(o->state);
    dev->free(o->sums);
}

static void *grad_shard(const struct model *m, int b)
{
    return (char *)m->grad[b] + m->layout.shard_at[b] * dtype_size(m->grad_type);
}

void optim_reduce(struct optim *o)
{
    struct model *m = o->m;
    comm_all_reduce(m->comm[GROUP_TP], m->lane, m->grad[BUFFER_DENSE], m->layout.replicated,
                    m->grad_type, COMM_SUM);
    for (int b = 0; b < BUFFERS; b++)
        comm_reduce_scatter(shard_comm(m, b), m->lane, grad_shard(m, b), m->grad[b],
                            m->layout.shard[b], m->grad_type);
}

/* The squared gradients of this rank's shards, each element of the model counted by one rank only.
 */
static void sum_squares(struct optim *o)
{
    struct model *m = o->m;
    for (int b = 0; b < BUFFERS; b++) {
        int64_t lo = m->layout.shard_at[b], n = m->layout.shard[b], skip = 0;
        if (b == BUFFER_DENSE && m->mesh.i_tp > 0)
            skip = MIN(MAX(m->layout.replicated - lo, 0), n);
        char *g = (char *)grad_shard(m, b) + skip * dtype_size(m->grad_type);
        m->op->sum_squares(m->lane, o->sums, mat(g, m->grad_type, 1, n - skip));
    }
}

void optim_step(struct optim *o, double bad)
{
    struct model *m = o->m;
    const struct op *op = m->op;
    int64_t ssz = dtype_size(op->stat), rsz = dtype_size(op->real);
    double sums[2] = {0, bad}, host[2];

    dtype_convert(host, op->stat, sums, DT_F64, 2);
    m->lane->dev->put(m->lane, o->sums, host, 2 * ssz);
    sum_squares(o);
    comm_all_reduce(m->comm[GROUP_WORLD], m->lane, o->sums, 2, op->stat, COMM_SUM);
    op->step_control(m->lane, o->state, o->sums, (char *)o->sums + ssz, &o->plan);
    for (int b = 0; b < BUFFERS; b++) {
        struct optim_shard *s = &o->shard[b];
        char *w = (char *)m->weight[b] + m->layout.shard_at[b] * rsz;
        if (o->def->moments == 2)
            op->adamw(m->lane, w, s->master, s->moment[0], s->moment[1], grad_shard(m, b), s->run,
                      s->decay, s->runs, o->state, &o->plan);
        else
            op->sgd(m->lane, w, s->master, grad_shard(m, b), s->run, s->decay, s->runs, o->state);
        comm_all_gather(shard_comm(m, b), m->lane, m->weight[b], w, m->layout.shard[b], op->real);
    }
}

void optim_state(const struct optim *o, double out[STEP_STATE])
{
    double host[STEP_STATE];
    struct lane *l = o->m->lane;
    l->dev->get(l, host, o->state, STEP_STATE * dtype_size(o->m->op->stat));
    l->dev->wait(l);
    dtype_convert(out, DT_F64, host, o->m->op->stat, STEP_STATE);
}

void optim_fill_master(struct optim *o)
{
    const struct model *m = o->m;
    struct lane *l = m->lane;
    int64_t rsz = dtype_size(m->op->real), ssz = dtype_size(m->op->stat);
    if (m->op->real == m->op->stat)
        return;
    for (int b = 0; b < BUFFERS; b++) {
        int64_t n = m->layout.shard[b];
        void *w = xmalloc(MAX(n * rsz, 1)), *master = xmalloc(MAX(n * ssz, 1));
        l->dev->get(l, w, (char *)m->weight[b] + m->layout.shard_at[b] * rsz, n * rsz);
        l->dev->wait(l);
        dtype_convert(master, m->op->stat, w, m->op->real, n);
        l->dev->put(l, o->shard[b].master, master, n * ssz);
        l->dev->wait(l);
        free(w), free(master);
    }
}

void optim_set_count(struct optim *o, double committed)
{
    double state[STEP_STATE] = {[STEP_COUNT] = committed}, host[STEP_STATE];
    struct lane *l = o->m->lane;
    dtype_convert(host, o->m->op->stat, state, DT_F64, STEP_STATE);
    l->dev->put(l, o->state, host, STEP_STATE * dtype_size(o->m->op->stat));
    l->dev->wait(l);
}

/* ---- checkpoints ---- */

/* The arrays of a shard that a checkpoint holds, under their names there. */
static int arrays(const struct optim *o, int b, const char *name[3], char *array[3])
{
    int n = 0;
    for (int i = 0; i < o->def->moments; i++)
        name[n] = o->def->moment[i], array[n++] = o->shard[b].moment[i];
    if (o->m->op->real != o->m->op->stat)
        name[n] = "master", array[n++] = o->shard[b].master;
    return n;
}

void ckpt_put_from(struct ckpt_writer *w, struct lane *l, const char *set, const struct param *p,
                   struct rect r, const void *data, enum dtype t)
{
    int64_t bytes = r.rows * r.cols * dtype_size(t);
    if (!l->dev->is_host) {
        void *copy = xmalloc(MAX(bytes, 1));
        l->dev->get(l, copy, data, bytes);
        l->dev->wait(l);
        ckpt_hold(w, copy);
        data = copy;
    }
    ckpt_put(w, set, p, r, data, t, t);
}

void optim_save(const struct optim *o, struct ckpt_writer *w)
{
    enum dtype t = o->m->op->stat;
    for (int b = 0; b < BUFFERS; b++) {
        const char *name[3];
        char *array[3];
        int n = arrays(o, b, name, array);
        for (int i = 0; i < n; i++)
            for (int64_t j = 0; j < o->shard[b].pieces; j++) {
                const struct optim_piece *p = &o->shard[b].piece[j];
                if (p->writes)
                    ckpt_put_from(w, o->m->lane, name[i], p->p, p->r,
                                  array[i] + p->at * dtype_size(t), t);
            }
    }
}

void optim_load(struct optim *o, struct ckpt *k)
{
    struct lane *l = o->m->lane;
    enum dtype t = o->m->op->stat;
    for (int b = 0; b < BUFFERS; b++) {
        const char *name[3];
        char *array[3];
        int n = arrays(o, b, name, array);
        for (int i = 0; i < n; i++)
            for (int64_t j = 0; j < o->shard[b].pieces; j++) {
                const struct optim_piece *p = &o->shard[b].piece[j];
                int64_t bytes = p->r.rows * p->r.cols * dtype_size(t);
                void *host = xmalloc(MAX(bytes, 1));
                ckpt_get(k, name[i], p->p, p->r, host, t);
                l->dev->put(l, array[i] + p->at * dtype_size(t), host, bytes);
                l->dev->wait(l);
                free(host);
            }
    }
}
