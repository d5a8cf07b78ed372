/* mapped.h -- training at a mapping, for the tests that hold mappings to one another: the same
 * model, data and steps by so many ranks, and all that comes of it.
 *
 * Ranks are threads; under mpirun they are its processes, and may have a GPU each. */
#ifndef MAPPED_H
#define MAPPED_H

#include "save.h"
#include "spy.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A model of each way to norm queries and keys, one with a shared expert and a dense layer, some of
 * latent attention, and two whose last stage needs the embedding: with layers that predict further
 * tokens, and with a tied head. */
#define SIZES                                                                                      \
    "\"hidden_size\":16,\"num_hidden_layers\":4,\"num_attention_heads\":4,"                        \
    "\"num_key_value_heads\":2,\"num_experts_per_tok\":2,\"vocab_size\":40,"                       \
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"                 \
    "\"initializer_range\":0.2,\"router_aux_loss_coef\":0.02"
static const char mixtral[] =
    "{\"model_type\":\"mixtral\"," SIZES ",\"num_local_experts\":8,\"intermediate_size\":12}";
static const char qwen3[] = "{\"model_type\":\"qwen3_moe\"," SIZES
                            ",\"num_experts\":8,\"moe_intermediate_size\":12,\"head_dim\":6,"
                            "\"norm_topk_prob\":true}";
static const char qwen2[] =
    "{\"model_type\":\"qwen2_moe\"," SIZES
    ",\"num_experts\":8,\"moe_intermediate_size\":12,\"shared_expert_intermediate_size\":10,"
    "\"intermediate_size\":14,\"mlp_only_layers\":[1]}";
#define LATENT                                                                                     \
    "{\"hidden_size\":16,\"num_hidden_layers\":4,\"num_attention_heads\":4,"                       \
    "\"num_key_value_heads\":4,\"num_experts_per_tok\":2,\"vocab_size\":40,"                       \
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"                 \
    "\"initializer_range\":0.2,\"aux_loss_alpha\":0.02,\"intermediate_size\":16,"                  \
    "\"moe_intermediate_size\":12,\"n_routed_experts\":8,\"n_shared_experts\":1,"                  \
    "\"first_k_dense_replace\":1,\"kv_lora_rank\":10,\"qk_nope_head_dim\":5,"                      \
    "\"qk_rope_head_dim\":4,\"v_head_dim\":6,\"n_group\":4,\"topk_group\":2,\"model_type\":"
static const char deepseek[] =
    LATENT "\"deepseek_v2\",\"q_lora_rank\":7,\"topk_method\":\"group_limited_greedy\"}";
static const char deepseek3[] = LATENT "\"deepseek_v3\",\"q_lora_rank\":null}";
static const char further[] =
    LATENT "\"deepseek_v3\",\"q_lora_rank\":7,\"num_nextn_predict_layers\":2}";
static const char tied[] = "{\"model_type\":\"mixtral\"," SIZES ",\"num_local_experts\":8,"
                           "\"intermediate_size\":12,\"tie_word_embeddings\":true}";
static const char olmoe[] =
    "{\"model_type\":\"olmoe\"," SIZES ",\"num_experts\":8,\"intermediate_size\":12}";

/* Of whole tiles, for the kernels of tensor cores; of those above for the plain ones. */
#define TILES                                                                                      \
    "\"hidden_size\":256,\"num_hidden_layers\":4,\"num_attention_heads\":4,"                       \
    "\"num_key_value_heads\":4,\"num_experts\":8,\"num_experts_per_tok\":2,\"vocab_size\":512,"    \
    "\"max_position_embeddings\":256,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"                \
    "\"initializer_range\":0.05,\"router_aux_loss_coef\":0.02"
static const char olmoe_tiles[] = "{\"model_type\":\"olmoe\"," TILES ",\"intermediate_size\":128}";
static const char qwen3_tiles[] =
    "{\"model_type\":\"qwen3_moe\"," TILES ",\"moe_intermediate_size\":128,\"head_dim\":64,"
    "\"norm_topk_prob\":true}";

enum { SEQ = 16, SEQ_TILES = 256, BATCH = 8, STEPS = 20, STEPS_GPU = 10 };

struct mapping {
    int ranks, tp, cp, pp, etp, ep;
    int64_t micro;
    const char *layout;   /* of the pipeline, NULL for even */
    const char *dispatch; /* of tokens, NULL for auto */
};
struct method {
    const char *loss, *optimizer, *set, *model;
    int f32; /* no clipping, and only losses are kept */
    const char *moments;
    double capacity;
    int64_t group;
    const char *gpu; /* the type there; NULL: on the CPU */
    int seq;         /* 0: SEQ */
    double balance;
};
struct outcome { /* of one mapping, as its rank 0 keeps it */
    struct mapping map;
    struct method method;
    void (*spoil)(struct trainer *t,
                  int after); /* a bug planted before and after step 1's gradients */
    int begin, end;           /* the steps to do; end 0: all of them */
    const char *from, *to;    /* checkpoints to begin from and to end in, or NULL */
    double loss[STEPS], further[STEPS], won[STEPS], aux[STEPS], norm[STEPS], dropped[STEPS];
    uint64_t kept;  /* hash of all choices that were not dropped, of all steps */
    uint64_t start; /* and of the initial weights */
    double *grad;   /* all tensors in canonical order, of step 1 */
    int64_t *at;    /* (params + 1) where each begins in grad */
    char **name;
    int64_t params;
    const char *family;
    /* (steps, groups, layers, E) of the router: choices and probabilities by expert */
    double *count, *psum;
    int64_t groups, layers, expert_layers, experts, k;
};

static int seq_of(const struct method *m)
{
    return m->seq ? m->seq : SEQ;
}

static int steps_of(const struct method *m)
{
    return m->gpu ? STEPS_GPU : STEPS;
}

static const char *mapping_name(const struct mapping *x)
{
    static char name[128];
    int dp = x->ranks / (x->tp * x->cp * x->pp), edp = x->ranks / (x->etp * x->ep * x->pp);
    snprintf(name, sizeof name,
             "%d ranks, PP%d%s%s; attention TP%d CP%d DP%d; experts ETP%d EP%d EDP%d%s%s", x->ranks,
             x->pp, x->layout ? " of " : "", x->layout ? x->layout : "", x->tp, x->cp, dp, x->etp,
             x->ep, edp, x->dispatch ? ", dispatch " : "", x->dispatch ? x->dispatch : "");
    return name;
}

/* Values of a step in count and psum. */
static int64_t routed_of(const struct outcome *o)
{
    return o->groups * o->layers * o->experts;
}

static void outcome_init(struct outcome *o, const struct model *m)
{
    o->params = m->params;
    o->family = m->cfg.arch->model_type;
    o->groups = BATCH / MAX(o->method.group, 1);
    o->layers = m->cfg.layers + m->cfg.further;
    o->expert_layers = config_expert_layers(&m->cfg) + m->cfg.further;
    o->experts = m->cfg.experts;
    o->k = m->cfg.k;
    o->count = xcalloc(STEPS * routed_of(o), sizeof *o->count);
    o->psum = xcalloc(STEPS * routed_of(o), sizeof *o->psum);
    o->at = xcalloc(m->params + 1, sizeof *o->at);
    o->name = xmalloc(m->params * sizeof *o->name);
    for (int64_t i = 0; i < m->params; i++) {
        o->at[i + 1] = o->at[i] + m->param[i].rows * MAX(m->param[i].cols, 1);
        o->name[i] = xstrdup(m->param[i].name);
    }
}

static void outcome_release(struct outcome *o)
{
    for (int64_t i = 0; i < o->params; i++)
        free(o->name[i]);
    free(o->grad), free(o->at), free(o->name), free(o->count), free(o->psum);
}

/* Every rank lays the slices it stores into the whole; elsewhere it has zeros, so the sum is the
 * whole. */
static double *collect(const struct outcome *o, struct model *m, void *const *buffer,
                       enum dtype type)
{
    double *whole = xcalloc(o->at[o->params], sizeof *whole), *host[BUFFERS];
    for (int b = 0; b < BUFFERS; b++)
        host[b] = buffer[b] ? to_host(m, buffer[b], m->layout.size[b],
                                      b == BUFFER_FINE ? m->op->stat : type)
                            : xcalloc(m->layout.size[b] + 1, sizeof **host);
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        const double *x = host[l->buffer] + l->at;
        int64_t p = l->p - m->param, cols = MAX(l->p->cols, 1);
        for (int64_t r = 0; l->writes && r < l->r.rows; r++)
            memcpy(whole + o->at[p] + (l->r.row + r) * cols + l->r.col, x + r * l->r.cols,
                   l->r.cols * sizeof *x);
    }
    for (int b = 0; b < BUFFERS; b++)
        free(host[b]);
    comm_all_reduce(m->comm[GROUP_WORLD], NULL, whole, o->at[o->params], DT_F64, COMM_SUM);
    return whole;
}

static double *collect_gradients(const struct outcome *o, struct model *m)
{
    for (int64_t i = 0; i < m->layout.buckets; i++) {
        const struct bucket *b = &m->layout.bucket[i];
        char *g = m->grad[b->buffer];
        comm_all_gather(m->comm[b->buffer == BUFFER_DENSE ? GROUP_DP_CP : GROUP_EDP], m->lane,
                        g + b->at * dtype_size(m->grad_type), g + b->own * dtype_size(m->grad_type),
                        b->part, m->grad_type);
    }
    return collect(o, m, m->grad, m->grad_type);
}

static uint64_t hash_weights(const struct outcome *o, struct model *m)
{
    double *whole = collect(o, m, m->weight, m->op->real);
    uint64_t hash = hash_xxh3(whole, o->at[o->params] * sizeof *whole);
    free(whole);
    return hash;
}

/* ---- a run ---- */

static void rank_main(struct world *w, void *arg)
{
    struct outcome *out = arg, o = *out;
    const struct mapping *x = &out->map;
    struct trainer t;
    struct mesh mesh;
    struct config c;
    struct trainer_options opt = {.device = o.method.gpu ? "cuda" : "cpu",
                                  .type = o.method.gpu   ? o.method.gpu
                                          : o.method.f32 ? "f32"
                                                         : "f64",
                                  .optim.name = o.method.optimizer,
                                  .optim.moments = o.method.moments,
                                  .loss = o.method.loss,
                                  .beta = 0.3,
                                  .capacity = o.method.capacity,
                                  .group = o.method.group,
                                  .dispatch = x->dispatch,
                                  .batch = BATCH,
                                  .micro = x->micro,
                                  .seq = seq_of(&o.method),
                                  .optim.decay = 0.1,
                                  .optim.balance = o.method.balance,
                                  .further = 0.3,
                                  .aux = -1,
                                  .z = 0.001,
                                  .threads = 1,
                                  .optim.plan = {.lr = o.method.gpu ? 1e-3 : 0.01,
                                                 .floor = 0.1,
                                                 .warmup = 3,
                                                 .steps = STEPS,
                                                 .beta1 = 0.9,
                                                 .beta2 = 0.95,
                                                 .eps = 1e-8,
                                                 .clip = o.method.f32 ? 0 : 0.5}};
    const char *why = mesh_init(&mesh, x->ranks, world_rank(w), x->tp, x->cp, x->pp, x->etp, x->ep);
    if (!why && x->layout)
        why = mesh_place(&mesh, x->layout);
    if (why)
        die("%s: %s", mapping_name(x), why);
    config_parse(&c, o.method.model, strlen(o.method.model), "test");
    c.reward = loss_find(o.method.loss)->reward;
    trainer_init(&t, w, &mesh, &c, &opt);
    struct op op;
    spy_open(&t, &op, !o.method.gpu);
    model_random(&t.model, 1);
    optim_fill_master(&t.optim);
    if (o.from) {
        struct ckpt *k = ckpt_open(o.from);
        model_load(&t.model, k, -1);
        optim_load(&t.optim, k);
        optim_set_count(&t.optim, o.begin);
        ckpt_close(k);
    }
    struct set *set = set_open(o.method.set);
    int64_t one = 1;
    struct mix mix = {&set, &one, 1, 3};
    struct step_result r;

    outcome_init(&o, &t.model);
    o.start = o.method.f32 ? 0 : hash_weights(&o, &t.model);
    trainer_fetch(&t, &mix, 0);
    if (o.spoil)
        o.spoil(&t, 0);
    trainer_gradients(&t, &r);
    if (o.spoil)
        o.spoil(&t, 1);
    if (!o.method.f32)
        o.grad = collect_gradients(&o, &t.model);
    for (int i = o.begin; i < (o.end ? o.end : steps_of(&o.method)); i++) {
        trainer_fetch(&t, &mix, i * BATCH);
        trainer_step(&t, &r);
        o.loss[i] = r.loss, o.won[i] = r.won, o.aux[i] = r.aux, o.norm[i] = r.norm;
        o.further[i] = isnan(r.further) ? 0 : r.further; /* NaN: the model has none */
        o.dropped[i] = r.dropped;
        spy_read(&t, o.count + i * routed_of(&o), o.psum + i * routed_of(&o));
    }
    struct comm *all = t.model.comm[GROUP_WORLD];
    comm_all_reduce(all, NULL, o.count, STEPS * routed_of(&o), DT_F64, COMM_SUM);
    comm_all_reduce(all, NULL, o.psum, STEPS * routed_of(&o), DT_F64, COMM_SUM);
    o.kept = kept_hash(&t.model);
    o.map.dispatch = x->ranks > 1 && x->ep * x->etp > 1 ? model_dispatch_name(&t.model) : NULL;
    if (o.to)
        save(&t, w, o.to);
    spy_close(&t);
    if (world_rank(w) == 0)
        *out = o;
    else
        outcome_release(&o);
    set_close(set);
    trainer_release(&t);
}

/* In the processes of a job, or in as many threads as the mapping has ranks. */
static void run(struct outcome *o, struct world *job)
{
    struct world *w = world_self();
    if (world_size(job) > 1 && o->map.ranks > 1)
        rank_main(job, o);
    else if (o->map.ranks > 1)
        world_threads(o->map.ranks, rank_main, o);
    else
        rank_main(w, o);
    world_free(w);
}

static double worst_of(const double *a, const double *b, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++)
        worst = isfinite(a[i] - b[i]) ? fmax(worst, fabs(a[i] - b[i]) / fabs(b[i])) : INFINITY;
    return worst;
}

/* Documents of random tokens, packed several to a sequence; or pairs of them. */
static void write_set(const char *path, int pairs, int seq)
{
    struct set_info info = {.seq = seq,
                            .tokenizer_hash = "0123456789abcdef",
                            .columns = pairs ? "weight,pair,margin,ref_logp" : "weight",
                            .template = "plain",
                            .bos = -1,
                            .eos = -1};
    struct packer *p = packer_open(path, &info, 1 << 20);
    for (int i = 0; i < 120; i++) {
        int32_t token[SEQ_TILES];
        uint8_t target[SEQ_TILES];
        struct doc d = {
            .token = token, .target = target, .weight = i % 5 ? 1 : 0.5, .reward = NAN, .pair = -1};
        d.n = 3 + (int)(rng_uniform(1, 0, i) * ((pairs ? seq / 2 : seq) - 2));
        for (int j = 0; j < d.n; j++) {
            token[j] = rng_uniform(2, i, j) * 40;
            target[j] = j > pairs;
        }
        if (pairs) {
            d.pair = i / 2;
            d.margin = i % 2 ? 0 : 0.2;
            d.ref_logp = -rng_uniform(3, 0, i) * d.n;
        }
        packer_add(p, &d);
    }
    packer_close(p, "{}");
}

#endif
