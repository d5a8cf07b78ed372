/* model.c -- one rank's model: sizes, groups, memory, weights. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void sizes_init(struct model *m)
{
    const struct config *c = &m->cfg;
    const struct mesh *x = &m->mesh;
    m->h = c->heads / x->tp;
    m->g = c->groups / x->tp;
    m->c = c->c;
    m->cv = c->cv;
    m->el = c->experts / x->ep;
    m->f = c->f / x->etp;
    m->v = c->vocab / x->tp;
    m->v0 = m->v * x->i_tp;
    m->layers = 0;
    m->further = x->i_pp == x->pp - 1 ? c->further : 0;
    m->chunks = MAX(x->chunks, x->pp) / x->pp;
    m->chunk = xcalloc(m->chunks + 1, sizeof *m->chunk);
    for (int64_t l = 0; l < c->layers; l++)
        if (mesh_stage(x, l, c->layers) == x->i_pp)
            m->chunk[mesh_chunk(x, l, c->layers) / x->pp + 1] = ++m->layers;
}

int64_t model_local_layer(const struct model *m, int64_t layer)
{
    int64_t n = 0;
    if (layer >= m->cfg.layers)
        return m->layers + 1 + 2 * (layer - m->cfg.layers);
    for (int64_t l = 0; l < layer; l++)
        n += mesh_stage(&m->mesh, l, m->cfg.layers) == m->mesh.i_pp;
    return n;
}

/* Points at[layer].w[role] at the first slice of each fused tensor; the others follow it. */
static void pointers_init(struct model *m)
{
    int64_t gsz = dtype_size(m->grad_type);
    free(m->at);
    m->at = xcalloc(model_slots(m), sizeof *m->at);
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        struct weights *at =
            &m->at[l->p->layer < 0 ? m->layers : model_local_layer(m, l->p->layer)];
        if (at->w[l->p->role])
            continue;
        at->w[l->p->role] = model_weight(m, l);
        if (m->grad[l->buffer])
            at->g[l->p->role] = (char *)m->grad[l->buffer] + l->at * gsz;
    }
    struct weights *out = &m->at[m->layers];
    if (m->cfg.tied && !m->cfg.reward) {
        out->w[P_HEAD] = out->w[P_EMBED];
        out->g[P_HEAD] = out->g[P_EMBED];
    }
    for (struct weights *w = out + 2; w < m->at + model_slots(m); w += 2) { /* heads of their own */
        w->w[P_HEAD] = out->w[P_HEAD], w->g[P_HEAD] = out->g[P_HEAD];
        w->w[P_NORM] = w[-1].w[P_JOIN_NORM], w->g[P_NORM] = w[-1].g[P_JOIN_NORM];
    }
}

static void put_stats(struct model *m, void *dst, const double *x, int64_t n)
{
    void *host = xmalloc(n * sizeof(double));
    dtype_convert(host, m->op->stat, x, DT_F64, n);
    m->lane->dev->put(m->lane, dst, host, n * dtype_size(m->op->stat));
    free(host);
}

static void rope_init(struct model *m)
{
    int64_t n = m->cfg.c_turn / 2;
    double *f = xmalloc(n * sizeof *f);
    rope_frequencies(&m->cfg, f);
    m->turned = rope_turned(&m->cfg);
    m->scale = pow(rope_magnitude(&m->cfg), 2) / sqrt(m->c);
    m->freq = lane_alloc(m->lane, n * sizeof(double), "the model");
    put_stats(m, m->freq, f, n);
    free(f);
}

static int has_lent(const struct model *m)
{
    for (int64_t i = 0; i < m->params; i++)
        if (m->param[i].lent)
            return 1;
    return 0;
}

void model_init(struct model *m, struct config *cfg, const struct mesh *mesh, struct world *w,
                struct lane *lane, const struct op *op)
{
    memset(m, 0, sizeof *m);
    m->cfg = *cfg;
    memset(cfg, 0, sizeof *cfg);
    m->mesh = *mesh;
    m->lane = lane;
    m->op = op;
    m->param = arch_params(&m->cfg, &m->params);
    const char *why = mesh_check(mesh, m->param, m->params, m->cfg.layers, m->cfg.experts);
    if (!why)
        why = arch_check(&m->cfg, mesh);
    if (why)
        die_misused("this mapping does not fit the model: %s", why);
    sizes_init(m);

    int *ranks = xmalloc(mesh->world * sizeof *ranks);
    for (int g = 0; g < GROUP_COUNT; g++) {
        int n = mesh_group(mesh, mesh->rank, g, ranks);
        m->comm[g] = comm_new(w, mesh_group_name(g), ranks, n);
    }
    int stages = mesh_group(mesh, mesh->rank, GROUP_PP, ranks);
    m->back = comm_new(w, "pp-back", ranks, stages);
    if (stages > 1 && has_lent(m)) {
        int end = mesh->i_pp == 0 || mesh->i_pp == stages - 1;
        ranks[!end ? 0 : 1] = end ? ranks[stages - 1] : mesh->rank;
        m->ends = comm_new(w, "pp-ends", ranks, end ? 2 : 1);
    }
    free(ranks);

    layout_init(&m->layout, mesh, m->param, m->params, m->cfg.layers, m->cfg.experts);
    for (int b = 0; b < BUFFERS; b++)
        m->weight[b] =
            lane_alloc(m->lane, m->layout.size[b] * dtype_size(model_type(m, b)), "the model");
    pointers_init(m);
    rope_init(m);
    m->loss = lane_alloc(m->lane, LOSS_SUMS * sizeof(double), "the model");
    model_dispatch(m, "auto");
}

void model_gradients(struct model *m, enum dtype type)
{
    m->grad_type = type;
    for (int b = 0; b < BUFFERS; b++)
        if (b != BUFFER_FINE)
            m->grad[b] = lane_alloc(m->lane, m->layout.size[b] * dtype_size(type), "the gradients");
    pointers_init(m);
}

void model_release(struct model *m)
{
    for (int b = 0; b < BUFFERS; b++) {
        m->lane->dev->free(m->weight[b]);
        if (m->grad[b])
            m->lane->dev->free(m->grad[b]);
    }
    m->lane->dev->free(m->freq);
    m->lane->dev->free(m->loss);
    if (m->everywhere)
        m->lane->dev->free(m->everywhere);
    for (int64_t i = 0; i < m->windows; i++)
        window_close(m->window[i]);
    free(m->window);
    for (int g = 0; g < GROUP_COUNT; g++)
        comm_free(m->comm[g]);
    comm_free(m->back);
    if (m->ends)
        comm_free(m->ends);
    layout_release(&m->layout);
    params_free(m->param, m->params);
    config_release(&m->cfg);
    free(m->at);
    free(m->chunk);
}

enum dtype model_type(const struct model *m, int buffer)
{
    return buffer == BUFFER_FINE ? m->op->stat : m->op->real;
}

void *model_weight(const struct model *m, const struct local *l)
{
    return (char *)m->weight[l->buffer] + l->at * dtype_size(model_type(m, l->buffer));
}

/* ---- filling the weights ---- */

struct fill {
    const struct model *m;
    const struct local *l;
    uint64_t seed;
    double *out;
};

static void fill_row(void *arg, int64_t row)
{
    struct fill *f = arg;
    const struct rect *r = &f->l->r;
    int64_t cols = MAX(f->l->p->cols, 1);
    for (int64_t j = 0; j < r->cols; j++)
        f->out[row * r->cols + j] =
            param_initial(&f->m->cfg, f->l->p, f->seed, (r->row + row) * cols + r->col + j);
}

void model_random(struct model *m, uint64_t seed)
{
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        int64_t n = l->r.rows * l->r.cols;
        struct fill f = {m, l, seed, xmalloc(n * sizeof(double))};
        par_for(m->lane->par, l->r.rows, fill_row, &f);
        enum dtype type = model_type(m, l->buffer);
        void *host = xmalloc(n * dtype_size(type));
        dtype_convert(host, type, f.out, DT_F64, n);
        m->lane->dev->put(m->lane, model_weight(m, l), host, n * dtype_size(type));
        free(host);
        free(f.out);
    }
}

void model_load(struct model *m, struct ckpt *k, int fresh)
{
    if (fresh < 0) { /* of which this one may leave out layers that predict further tokens */
        struct config c;
        int64_t n;
        ckpt_config(k, &c);
        struct param *p = arch_params(&c, &n);
        ckpt_only(k, p, n);
        params_free(p, n);
        config_release(&c);
    }
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        enum dtype type = model_type(m, l->buffer);
        int64_t bytes = l->r.rows * l->r.cols * dtype_size(type);
        if (l->p->role == fresh && !ckpt_has(k, "model", l->p->name))
            continue;
        void *host = xmalloc(bytes);
        ckpt_get(k, "model", l->p, l->r, host, type);
        m->lane->dev->put(m->lane, model_weight(m, l), host, bytes);
        free(host);
    }
}
