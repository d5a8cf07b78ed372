/* upcycle.c -- a dense model as one with experts (Komatsuzaki et al. 2023), which at first gives
 * the same answers.
 *
 * Plain, every expert is a copy of the dense network, and gates that sum to 1 weigh equal outputs.
 * Granular (He et al. 2024), a network is cut by its inner width into `parts`, each an expert: the
 * experts of one copy stand together and have one row of the router between them, so that a token
 * chooses whole copies.  Their gates are alike, each 1 / parts of the copy's, which the down matrix
 * makes up for.  Routers are drawn; all else is copied. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

struct made { /* a tensor of the new model on its way */
    struct ckpt *k;
    const struct config *c;
    const struct param *p;
    const struct param *from; /* NULL: drawn */
    struct rect r;            /* of from */
    enum dtype type;
    int64_t parts, seed;
};

static void router_put(const struct made *x, struct blob_file *f)
{
    double *row = xmalloc((size_t)x->p->cols * sizeof *row);
    for (int64_t e = 0; e < x->p->rows; e++) {
        for (int64_t j = 0; j < x->p->cols; j++)
            row[j] =
                param_initial(x->c, x->p, (uint64_t)x->seed, (e - e % x->parts) * x->p->cols + j);
        elements_put(f, x->type, row, DT_F64, x->p->cols);
    }
    free(row);
}

static void down_put(const struct made *x, struct blob_file *f)
{
    int64_t n = x->r.rows * x->r.cols;
    float *w = xmalloc((size_t)n * sizeof *w);
    ckpt_get(x->k, "model", x->from, x->r, w, DT_F32);
    for (int64_t i = 0; i < n; i++)
        w[i] *= (float)x->parts;
    elements_put(f, x->type, w, DT_F32, n);
    free(w);
}

static void made_put(void *arg, struct blob_file *f)
{
    const struct made *x = arg;
    if (!x->from)
        router_put(x, f);
    else if (x->p->role == P_DOWN && x->parts > 1)
        down_put(x, f);
    else
        ckpt_copy(x->k, "model", x->from, x->r, f, x->type);
}

/* The dense tensor that p, the nth of its role and expert, is made of. */
static const struct param *source_of(const struct param *dense, int64_t n, const struct param *p,
                                     int64_t nth)
{
    int role = p->role == P_UP ? P_DENSE_UP : p->role == P_DOWN ? P_DENSE_DOWN : p->role;
    for (int64_t i = 0; i < n; i++)
        if (dense[i].layer == p->layer && dense[i].role == role && nth-- == 0)
            return &dense[i];
    die("internal error: nothing for %s to be made of", p->name);
}

static struct rect part_of(const struct made *x)
{
    struct rect r = {0, 0, x->p->rows, MAX(1, x->p->cols)};
    int64_t part = x->p->expert >= 0 ? x->p->expert % x->parts : 0;
    *(x->p->role == P_DOWN ? &r.col : &r.row) = part * (x->p->role == P_DOWN ? r.cols : r.rows);
    return r;
}

/* The configuration of the new model, from the dense one's. */
static void config_upcycle(struct config *c, const char *who, int64_t experts, int64_t k,
                           int64_t parts)
{
    if (!c->arch->with_experts)
        die_misused("%s: no family is \"%s\" with experts", who, c->arch->model_type);
    if (k > experts)
        die_misused("--upcycle: there are not %lld of %lld experts to choose", (long long)k,
                    (long long)experts);
    if (experts > EXPERTS_MAX / c->layers)
        die_misused("--upcycle: %lld experts in each of %lld layers are more than %d",
                    (long long)experts, (long long)c->layers, EXPERTS_MAX);
    if (experts % parts || k % parts)
        die_misused("--upcycle: %lld experts of which %lld are chosen do not come in %lld parts",
                    (long long)experts, (long long)k, (long long)parts);
    if (c->f_dense % parts)
        die_misused("--upcycle: a width of %lld cannot be cut into %lld parts",
                    (long long)c->f_dense, (long long)parts);
    c->arch = arch_find(c->arch->with_experts);
    c->experts = experts, c->k = k, c->f = c->f_dense / parts;
    c->norm_gate = 1, c->aux = 0.001;
}

void ckpt_upcycle(const char *from, const char *to, int64_t experts, int64_t chosen, int64_t parts,
                  int64_t seed, int64_t file_bytes)
{
    struct ckpt *k = ckpt_open(from);
    struct config dense_c, c;
    int64_t dense_n, n, nth = 0;
    ckpt_config(k, &dense_c), ckpt_config(k, &c);
    config_upcycle(&c, from, experts, chosen, parts);
    struct param *dense = arch_params(&dense_c, &dense_n), *p = arch_params(&c, &n);
    enum dtype type = ckpt_type(k, &dense_c);

    struct made *x = xmalloc((size_t)n * sizeof *x);
    struct making *m = xmalloc((size_t)n * sizeof *m);
    for (int64_t i = 0; i < n; i++) {
        int fused = i && p[i].layer == p[i - 1].layer && p[i].role == p[i - 1].role;
        nth = fused && p[i].expert == p[i - 1].expert ? nth + 1 : 0;
        x[i] = (struct made){.k = k, .c = &c, .p = &p[i], .parts = parts, .seed = seed};
        x[i].from = p[i].role == P_ROUTER ? NULL : source_of(dense, dense_n, &p[i], nth);
        x[i].r = part_of(&x[i]);
        x[i].type = x[i].from ? stored_type(k, x[i].from->name) : type;
        m[i] = (struct making){&p[i], x[i].type, made_put, &x[i]};
    }
    ckpt_make(to, m, n, &c, ckpt_path(k), file_bytes);

    free(x), free(m);
    params_free(p, n), params_free(dense, dense_n);
    config_release(&c), config_release(&dense_c);
    ckpt_close(k);
}
