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

static void *take(struct model *m, int64_t n, enum dtype type)
{
    return lane_alloc(m->lane, n * dtype_size(type), "the optimizer");
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

/* A copy of n bytes on the device. */
static void *on_device(struct lane *l, const void *host, int64_t n)
{
    void *p = lane_alloc(l, n, "the optimizer");
    l->dev->put(l, p, host, n);
    l->dev->wait(l);
    return p;
}

/* The pieces as the update wants them; what lies between tensors goes with the one before it. */
static void stretches_init(struct optim_shard *s, struct model *m, int b,
                           const struct optim_options *o)
{
    int64_t n = s->pieces + 1, end = m->layout.shard[b];
    int64_t blocks = (end + STRETCH_BLOCK - 1) / STRETCH_BLOCK;
    struct stretch *at = xcalloc(n + 1, sizeof *at);
    int32_t *of_block = xcalloc(blocks + 1, sizeof *of_block);
    at[0].cols = at[0].ld = 1; /* before the first tensor */
    for (int64_t i = 0; i < s->pieces; i++) {
        const struct optim_piece *p = &s->piece[i];
        int64_t cols = MAX(p->p->cols, 1);
        at[i + 1] = (struct stretch){.at = p->at,
                                     .decay = p->p->decay ? o->decay : 0,
                                     .key = rng_key((uint64_t)o->seed, p->p->name),
                                     .first = p->r.row * cols + p->r.col,
                                     .cols = p->r.cols,
                                     .ld = cols};
    }
    at[n].at = end;
    for (int64_t i = 0, j = 0; i < blocks; i++) {
        while (at[j + 1].at <= i * STRETCH_BLOCK)
            j++;
        of_block[i] = (int32_t)j;
    }
    s->stretches.n = n;
    s->stretches.stretch = on_device(m->lane, at, (n + 1) * (int64_t)sizeof *at);
    s->stretches.of_block = on_device(m->lane, of_block, blocks * (int64_t)sizeof *of_block);
    free(at), free(of_block);
}

static int by_place(const void *a, const void *b)
{
    const struct optim_stretch *x = a, *y = b;
    return x->b != y->b ? x->b - y->b : (x->at > y->at) - (x->at < y->at);
}

/* All local slices, neighbours of a layer as one; what TP replicates apart from what it cuts. */
static void stretches_find(struct optim *o)
{
    const struct model *m = o->m;
    const struct layout *y = &m->layout;
    struct optim_stretch *s = o->reduced = xmalloc((y->n + 1) * sizeof *s);
    int64_t all = 0, n = 0;
    for (int64_t i = 0; i < y->n; i++) {
        const struct local *l = &y->local[i];
        int layer = l->p->layer;
        if (l->buffer >= BUFFERS_LEARNT)
            continue;
        s[all++] = (struct optim_stretch){layer >= 0            ? model_local_layer(m, layer)
                                          : layer == STAGE_LAST ? m->layers
                                                                : model_slots(m),
                                          (int)l->buffer, l->at, l->r.rows * l->r.cols};
    }
    qsort(s, all, sizeof *s, by_place);
    for (int64_t i = 0; i < all; i++) {
        struct optim_stretch *last = n ? &s[n - 1] : NULL;
        if (last && last->b == s[i].b && last->layer == s[i].layer &&
            (s[i].b != BUFFER_DENSE || (last->at < y->replicated) == (s[i].at < y->replicated)))
            last->n = s[i].at + s[i].n - last->at; /* with the gap between */
        else
            s[n++] = s[i];
    }
    o->reductions = n;
}

/* Whether a router here chooses with a bias. */
static int has_bias(const struct model *m)
{
    for (int64_t i = 0; i < m->params; i++)
        if (m->param[i].role == P_ROUTER_BIAS)
            return 1;
    return 0;
}

static void balance_init(struct optim *o, double rate)
{
    struct model *m = o->m;
    if (rate < 0)
        die_misused("--balance %g is negative", rate);
    if (rate > 0 && !has_bias(m))
        die_misused("--balance: routers of %s models choose without a bias",
                    m->cfg.arch->model_type);
    if (rate > 0)
        m->load = take(m, model_slots(m) * m->cfg.experts, m->op->stat);
    o->balance = rate;
}

void optim_init(struct optim *o, struct model *m, const struct optim_options *options,
                int64_t micros)
{
    memset(o, 0, sizeof *o);
    o->m = m;
    o->side = m->lane;
    o->plan = options->plan;
    for (int64_t i = 0; i < ARRAY_LEN(defs); i++)
        if (!strcmp(defs[i].name, options->name))
            o->def = &defs[i];
    if (!o->def)
        die_misused("--optimizer %s: there is no such optimizer", options->name);
    o->moment_type = choice_is(options->moments, "bf16") ? DT_BF16 : m->op->stat;
    o->own = m->op->real == m->op->stat || choice_is(options->master, "none");
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        struct optim_shard *s = &o->shard[b];
        int64_t at = m->layout.shard_at[b], n = m->layout.shard[b];
        s->master =
            o->own ? (char *)m->weight[b] + at * dtype_size(m->op->real) : take(m, n, m->op->stat);
        for (int i = 0; i < o->def->moments; i++)
            s->moment[i] = take(m, n, o->moment_type);
        pieces_init(s, m, b);
        stretches_init(s, m, b, options);
    }
    stretches_find(o);
    o->state = take(m, STEP_STATE, m->op->stat);
    o->sum = take(m, 1, m->op->stat);
    if (micros == 1 && comm_size(shard_comm(m, BUFFER_EXPERTS)) == 1)
        m->squares = o->sum; /* gradients of experts are final when they are written */
    balance_init(o, options->balance);
    o->bad = lane_alloc(m->lane, BUFFERS_LEARNT * (int64_t)sizeof *o->bad, "the optimizer");
}

void optim_release(struct optim *o)
{
    const struct dev_ops *dev = o->m->lane->dev;
    dev->event_free(&o->forked);
    dev->event_free(&o->joined);
    free(o->reduced);
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        struct optim_shard *s = &o->shard[b];
        if (!o->own)
            dev->free(s->master);
        for (int i = 0; i < o->def->moments; i++)
            dev->free(s->moment[i]);
        dev->free(s->stretches.stretch);
        dev->free(s->stretches.of_block);
        free(s->piece);
    }
    if (o->m->load)
        dev->free(o->m->load);
    dev->free(o->state);
    dev->free(o->sum);
    dev->free(o->bad);
}

static void *grad_shard(const struct model *m, int b)
{
    return (char *)m->grad[b] + m->layout.shard_at[b] * dtype_size(m->grad_type);
}

/* The side lane goes on from here; the model's lane goes on when the side lane has come so far. */
static void fork_side(struct optim *o)
{
    struct lane *l = o->m->lane;
    if (o->side == l)
        return;
    l->dev->record(l, &o->forked);
    l->dev->follow(o->side, &o->forked);
}

static void join_side(struct optim *o)
{
    struct lane *l = o->m->lane;
    if (o->side == l)
        return;
    l->dev->record(o->side, &o->joined);
    l->dev->follow(l, &o->joined);
}

/* Adds the squared gradients of this rank's shard, each element of the model counted by one rank
 * only. */
static void add_squares(struct optim *o, int b)
{
    struct model *m = o->m;
    int64_t lo = m->layout.shard_at[b], n = m->layout.shard[b], skip = 0;
    if (b == BUFFER_DENSE && m->mesh.i_tp > 0)
        skip = MIN(MAX(m->layout.replicated - lo, 0), n);
    char *g = (char *)grad_shard(m, b) + skip * dtype_size(m->grad_type);
    m->op->sum_squares(m->lane, o->sum, mat(g, m->grad_type, 1, n - skip));
}

/* Each part of a stretch to the rank whose shard it lies in. */
static void reduce(struct optim *o, const struct optim_stretch *s)
{
    struct model *m = o->m;
    int64_t size = dtype_size(m->grad_type), shard = m->layout.shard[s->b], n;
    struct comm *c = shard_comm(m, s->b);
    char *g = m->grad[s->b];
    if (s->b == BUFFER_DENSE && s->at < m->layout.replicated)
        comm_all_reduce(m->comm[GROUP_TP], o->side, g + s->at * size, s->n, m->grad_type, COMM_SUM);
    for (int64_t at = s->at; comm_size(c) > 1 && at < s->at + s->n; at += n) {
        n = MIN(s->at + s->n, (at / shard + 1) * shard) - at;
        comm_reduce(c, o->side, g + at * size, n, m->grad_type, (int)(at / shard));
    }
}

void optim_begin(struct optim *o)
{
    struct model *m = o->m;
    int64_t size = dtype_size(m->op->stat);
    m->lane->dev->zero(m->lane, o->sum, size);
    if (m->load)
        m->lane->dev->zero(m->lane, m->load, model_slots(m) * m->cfg.experts * size);
}

void optim_reduce_layer(struct optim *o, int64_t layer)
{
    fork_side(o);
    for (int64_t i = 0; i < o->reductions; i++)
        if (o->reduced[i].layer == layer)
            reduce(o, &o->reduced[i]);
}

/* Whether the embedding is here and on another stage too: the first one's, which takes the
 * gradients of both and gives its weights away. */
static int is_end(const struct model *m)
{
    return m->ends && comm_size(m->ends) > 1;
}

void optim_reduce(struct optim *o)
{
    struct model *m = o->m;
    int shared = comm_size(shard_comm(m, BUFFER_EXPERTS)) > 1;
    if (is_end(m)) {
        fork_side(o);
        comm_reduce(m->ends, o->side, m->at[m->layers].g[P_EMBED], m->v * m->cfg.d, m->grad_type,
                    0);
    }
    optim_reduce_layer(o, model_slots(m));
    if (shared)
        join_side(o);
    if (!m->squares) /* else they were counted as they were written */
        add_squares(o, BUFFER_EXPERTS);
    if (!shared)
        join_side(o);
    add_squares(o, BUFFER_DENSE);
}

/* This rank's shard. */
static void update(struct optim *o, int b)
{
    struct model *m = o->m;
    const struct op *op = m->op;
    struct optim_shard *s = &o->shard[b];
    int64_t n = m->layout.shard[b], at = m->layout.shard_at[b] * dtype_size(op->real);
    struct mat w = mat((char *)m->weight[b] + at, op->real, 1, n);
    struct mat g = mat(grad_shard(m, b), m->grad_type, 1, n);
    op->first_bad(m->lane, &o->bad[b], g, o->state);
    struct mat master = o->own ? w : mat(s->master, op->stat, 1, n);
    if (o->def->moments == 2)
        op->adamw(m->lane, w, master, mat(s->moment[0], o->moment_type, 1, n),
                  mat(s->moment[1], o->moment_type, 1, n), g, &s->stretches, o->state, &o->plan);
    else
        op->sgd(m->lane, w, master, g, &s->stretches, o->state);
}

static void gather(struct optim *o, int b, struct lane *l)
{
    struct model *m = o->m;
    int64_t at = m->layout.shard_at[b] * dtype_size(m->op->real);
    comm_all_gather(shard_comm(m, b), l, m->weight[b], (char *)m->weight[b] + at,
                    m->layout.shard[b], m->op->real);
}

/* Loads are whole over TP x CP; every rank moves its copy of a bias alike. */
static void balance(struct optim *o)
{
    struct model *m = o->m;
    int64_t e = m->cfg.experts, ssz = dtype_size(m->op->stat);
    if (!m->load)
        return;
    comm_all_reduce(m->comm[GROUP_DP], m->lane, m->load, model_slots(m) * e, m->op->stat, COMM_SUM);
    for (int64_t i = 0; i < model_slots(m); i++)
        if (m->at[i].w[P_ROUTER_BIAS])
            m->op->balance(m->lane, m->at[i].w[P_ROUTER_BIAS], (char *)m->load + i * e * ssz,
                           o->state, e, o->balance);
}

void optim_step(struct optim *o)
{
    struct model *m = o->m;
    comm_all_reduce(m->comm[GROUP_WORLD], m->lane, o->sum, 1, m->op->stat, COMM_SUM);
    m->op->step_control(m->lane, o->state, o->sum, m->loss, LOSS_SUMS, &o->plan);
    balance(o);
    update(o, BUFFER_DENSE);
    fork_side(o);
    gather(o, BUFFER_DENSE, o->side);
    if (is_end(m))
        comm_broadcast(m->ends, o->side, m->at[m->layers].w[P_EMBED],
                       m->v * m->cfg.d * dtype_size(m->op->real), 0);
    update(o, BUFFER_EXPERTS);
    gather(o, BUFFER_EXPERTS, m->lane);
    join_side(o);
}

void optim_fill_master(struct optim *o)
{
    enum { PIECE = 16 << 20 }; /* elements on the host at once */
    const struct model *m = o->m;
    struct lane *l = m->lane;
    int64_t rsz = dtype_size(m->op->real), ssz = dtype_size(m->op->stat);
    if (o->own)
        return;
    void *w = xmalloc(PIECE * rsz), *master = xmalloc(PIECE * ssz);
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        char *from = (char *)m->weight[b] + m->layout.shard_at[b] * rsz, *to = o->shard[b].master;
        for (int64_t at = 0; at < m->layout.shard[b]; at += PIECE) {
            int64_t n = MIN(PIECE, m->layout.shard[b] - at);
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

/* ---- checkpoints ---- */

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
