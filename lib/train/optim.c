/* optim.c -- the optimizer, cut over the ranks that hold the same weights (ZeRO-1).
 *
 * Gradients of dense tensors are summed over DP x CP and those of experts over EDP; the sum is left
 * scattered, each rank updates its shard, and the new weights are gathered.  All of it goes by
 * buckets (mesh.h): what is done of one travels on a lane beside while the next is computed.  Every
 * rank has a part of every bucket, so each call keeps all links busy both ways; checkpoints store
 * the parts as rectangles of the tensors they run through.  Every gradient is a sum over tokens of
 * the global batch (the denominator is in dL/dlogp), so nothing is averaged. */
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
static void pieces_init(struct optim_shard *s, const struct layout *y, int b)
{
    s->piece = xmalloc((3 * (y->n + y->buckets) + 1) * sizeof *s->piece);
    for (int64_t k = 0; k < y->buckets; k++)
        for (int64_t i = 0; y->bucket[k].buffer == (enum mesh_buffer)b && i < y->n; i++) {
            const struct bucket *in = &y->bucket[k];
            const struct local *l = &y->local[i];
            int64_t beg, end;
            if (!layout_part(in, l, &beg, &end))
                continue;
            struct rect r[3];
            int n = rect_from_range(&l->r, beg, end, r);
            for (int j = 0; j < n; j++) {
                int64_t at = l->at + beg - in->own + in->in_shard;
                s->piece[s->pieces++] = (struct optim_piece){l->p, r[j], at, l->owns};
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

/* The pieces of a bucket as the update wants them; what lies between tensors goes with the one
 * before it. */
static void stretches_init(struct stretches *s, struct model *m, const struct bucket *in,
                           const struct optim_shard *shard, const struct optim_options *o)
{
    int64_t n = 1, blocks = (in->part + STRETCH_BLOCK - 1) / STRETCH_BLOCK;
    struct stretch *at = xcalloc(shard->pieces + 2, sizeof *at);
    int32_t *of_block = xcalloc(blocks + 1, sizeof *of_block);
    at[0].cols = at[0].ld = 1; /* before the first tensor */
    for (int64_t i = 0; i < shard->pieces; i++) {
        const struct optim_piece *p = &shard->piece[i];
        int64_t cols = MAX(p->p->cols, 1), from = p->at - in->in_shard;
        if (from < 0 || from >= in->part)
            continue;
        at[n++] = (struct stretch){.at = from,
                                   .decay = p->p->decay ? o->decay : 0,
                                   .key = rng_key((uint64_t)o->seed, p->p->name),
                                   .first = p->r.row * cols + p->r.col,
                                   .cols = p->r.cols,
                                   .ld = cols};
    }
    at[n].at = in->part;
    for (int64_t i = 0, j = 0; i < blocks; i++) {
        while (at[j + 1].at <= i * STRETCH_BLOCK)
            j++;
        of_block[i] = (int32_t)j;
    }
    s->n = n;
    s->stretch = on_device(m->lane, at, (n + 1) * (int64_t)sizeof *at);
    s->of_block = on_device(m->lane, of_block, blocks * (int64_t)sizeof *of_block);
    free(at), free(of_block);
}

static void buckets_init(struct optim *o, const struct optim_options *options)
{
    struct model *m = o->m;
    const struct layout *y = &m->layout;
    o->bucket = xcalloc(y->buckets, sizeof *o->bucket);
    for (int64_t i = 0; i < y->buckets; i++) {
        const struct bucket *in = &y->bucket[i];
        o->bucket[i].in = in;
        o->bucket[i].layer = in->layer >= 0            ? model_local_layer(m, in->layer)
                             : in->layer == STAGE_LAST ? m->layers
                                                       : model_slots(m);
        stretches_init(&o->bucket[i].stretches, m, in, &o->shard[in->buffer], options);
    }
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
        int64_t n = m->layout.shard[b];
        s->master = o->own ? NULL : take(m, n, m->op->stat);
        for (int i = 0; i < o->def->moments; i++)
            s->moment[i] = take(m, n, o->moment_type);
        pieces_init(s, &m->layout, b);
    }
    buckets_init(o, options);
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
    for (int64_t i = 0; i < o->m->layout.buckets; i++) {
        dev->event_free(&o->bucket[i].there);
        dev->free(o->bucket[i].stretches.stretch);
        dev->free(o->bucket[i].stretches.of_block);
    }
    free(o->bucket);
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        struct optim_shard *s = &o->shard[b];
        if (!o->own)
            dev->free(s->master);
        for (int i = 0; i < o->def->moments; i++)
            dev->free(s->moment[i]);
        free(s->piece);
    }
    if (o->m->load)
        dev->free(o->m->load);
    dev->free(o->state);
    dev->free(o->sum);
    dev->free(o->bad);
}

/* This rank's part of a bucket. */
static struct mat own_grad(const struct model *m, const struct bucket *b)
{
    return mat((char *)m->grad[b->buffer] + b->own * dtype_size(m->grad_type), m->grad_type, 1,
               b->part);
}

static struct mat own_weight(const struct model *m, const struct bucket *b)
{
    return mat((char *)m->weight[b->buffer] + b->own * dtype_size(m->op->real), m->op->real, 1,
               b->part);
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
static void add_squares(struct optim *o, enum mesh_buffer buffer)
{
    struct model *m = o->m;
    for (int64_t i = 0; i < m->layout.buckets; i++) {
        const struct bucket *b = &m->layout.bucket[i];
        if (b->buffer == buffer && !(b->replicated && m->mesh.i_tp))
            m->op->sum_squares(m->lane, o->sum, own_grad(m, b));
    }
}

/* Each part of a bucket to the rank that owns it. */
static void reduce(struct optim *o, const struct bucket *b)
{
    struct model *m = o->m;
    char *g = (char *)m->grad[b->buffer] + b->at * dtype_size(m->grad_type);
    if (b->replicated)
        comm_all_reduce(m->comm[GROUP_TP], o->side, g, b->n, m->grad_type, COMM_SUM);
    comm_reduce_scatter(shard_comm(m, b->buffer), o->side, own_grad(m, b).data, g, b->part,
                        m->grad_type);
}

/* Everybody's parts of the weights, beside what is computed. */
static void gather(struct optim *o, const struct bucket *b)
{
    struct model *m = o->m;
    int64_t size = dtype_size(m->op->real);
    if (comm_size(shard_comm(m, b->buffer)) == 1)
        return;
    fork_side(o);
    comm_all_gather(shard_comm(m, b->buffer), o->side, (char *)m->weight[b->buffer] + b->at * size,
                    own_weight(m, b).data, b->part, m->op->real);
}

/* Whether weights are gathered while the next step computes the layers before; those of the first
 * layers are while others are updated. */
static int is_late(const struct optim *o, const struct optim_bucket *b)
{
    return b->in->buffer == BUFFER_EXPERTS && b->layer >= o->m->layers / 2 &&
           comm_size(shard_comm(o->m, BUFFER_EXPERTS)) > 1;
}

static void gather_late(struct optim *o)
{
    for (int64_t i = 0; i < o->m->layout.buckets; i++) {
        struct optim_bucket *b = &o->bucket[i];
        if (!is_late(o, b))
            continue;
        gather(o, b->in);
        if (o->side != o->m->lane)
            o->side->dev->record(o->side, &b->there);
    }
}

void optim_await(struct optim *o, int64_t layer)
{
    struct lane *l = o->m->lane;
    for (int64_t i = 0; o->side != l && i < o->m->layout.buckets; i++)
        if (o->bucket[i].layer == layer && is_late(o, &o->bucket[i]))
            l->dev->follow(l, &o->bucket[i].there);
}

void optim_whole(struct optim *o)
{
    gather_late(o);
    join_side(o);
}

void optim_begin(struct optim *o)
{
    struct model *m = o->m;
    int64_t size = dtype_size(m->op->stat);
    gather_late(o);
    m->lane->dev->zero(m->lane, o->sum, size);
    if (m->load)
        m->lane->dev->zero(m->lane, m->load, model_slots(m) * m->cfg.experts * size);
}

void optim_reduce_layer(struct optim *o, int64_t layer, enum mesh_buffer buffer)
{
    fork_side(o);
    for (int64_t i = 0; i < o->m->layout.buckets; i++)
        if (o->bucket[i].layer == layer && o->bucket[i].in->buffer == buffer)
            reduce(o, o->bucket[i].in);
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
    join_side(o);
    fork_side(o);
    if (is_end(m))
        comm_reduce(m->ends, o->side, m->at[m->layers].g[P_EMBED], m->v * m->cfg.d, m->grad_type,
                    0);
    optim_reduce_layer(o, model_slots(m), BUFFER_DENSE);
    if (!m->squares) /* else they were counted as they were written */
        add_squares(o, BUFFER_EXPERTS);
    join_side(o);
    add_squares(o, BUFFER_DENSE);
}

/* This rank's part of a bucket. */
static void update(struct optim *o, const struct optim_bucket *b)
{
    struct model *m = o->m;
    const struct op *op = m->op;
    const struct optim_shard *s = &o->shard[b->in->buffer];
    int64_t n = b->in->part, at = b->in->in_shard;
    struct mat w = own_weight(m, b->in), g = own_grad(m, b->in), master = w, moment[2];
    if (!o->own)
        master = mat((char *)s->master + at * dtype_size(op->stat), op->stat, 1, n);
    for (int i = 0; i < o->def->moments; i++)
        moment[i] =
            mat((char *)s->moment[i] + at * dtype_size(o->moment_type), o->moment_type, 1, n);
    if (o->def->moments == 2)
        op->adamw(m->lane, w, master, moment[0], moment[1], g, &b->stretches, o->state, &o->plan);
    else
        op->sgd(m->lane, w, master, g, &b->stretches, o->state);
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
    for (int b = 0; b < BUFFERS_LEARNT; b++)
        m->op->first_bad(m->lane, &o->bad[b], mat(m->grad[b], m->grad_type, 1, m->layout.size[b]),
                         o->state);
    for (int64_t i = 0; i < m->layout.buckets; i++) {
        update(o, &o->bucket[i]);
        if (!is_late(o, &o->bucket[i]))
            gather(o, o->bucket[i].in);
    }
    fork_side(o);
    if (is_end(m))
        comm_broadcast(m->ends, o->side, m->at[m->layers].w[P_EMBED],
                       m->v * m->cfg.d * dtype_size(m->op->real), 0);
    join_side(o);
}
