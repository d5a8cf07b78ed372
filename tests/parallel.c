/* parallel.c -- the mapping is not a hyperparameter: many ranks against one, in f64.
 *
 * For each mapping: the same bits of initial weights; every reduced gradient of step 1 within 1e-10
 * of the tensor's maximum; 20 losses, auxiliary losses and gradient norms within 1e-9, and the same
 * choices dropped in every row and layer of every step where experts have limited capacity: of a
 * language model with SGD and with AdamW, of a reward model (Bradley-Terry) and of DPO.  Ranks are
 * threads; under mpirun they are its processes, and the mappings of that many ranks are tried.
 * --long tries all that fit.  Runs stopped at one mapping go on at another, of random pairs.  What
 * the list of mappings covers is counted from it: every dimension alone, every pair, and what
 * folding must be tried with.
 *
 * With the argument "cuda" each process works on its own GPU, in f32 (gradients within 1e-5 of one
 * GPU's, losses within 1e-4) and in bf16 (losses within 0.5 %). */
#include "save.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A model of each way to norm queries and keys, one with a shared expert and a dense layer, and one
 * of latent attention. */
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
    double loss[STEPS], won[STEPS], aux[STEPS], norm[STEPS], dropped[STEPS];
    uint64_t kept;  /* hash of all choices that were not dropped, of all steps */
    uint64_t start; /* and of the initial weights */
    double *grad;   /* all tensors in canonical order, of step 1 */
    int64_t *at;    /* (params + 1) where each begins in grad */
    char **name;
    int64_t params;
    const char *family;
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

static void outcome_init(struct outcome *o, const struct model *m)
{
    o->params = m->params;
    o->family = m->cfg.arch->model_type;
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
    free(o->grad), free(o->at), free(o->name);
}

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
    for (int b = 0; b < BUFFERS_LEARNT; b++)
        comm_all_gather(m->comm[b == BUFFER_DENSE ? GROUP_DP_CP : GROUP_EDP], m->lane, m->grad[b],
                        (char *)m->grad[b] + m->layout.shard_at[b] * dtype_size(m->grad_type),
                        m->layout.shard[b], m->grad_type);
    return collect(o, m, m->grad, m->grad_type);
}

static uint64_t hash_weights(const struct outcome *o, struct model *m)
{
    double *whole = collect(o, m, m->weight, m->op->real);
    uint64_t hash = hash_xxh3(whole, o->at[o->params] * sizeof *whole);
    free(whole);
    return hash;
}

/* Stands in for the op that drops choices, and adds up hashes of what it keeps of each row: a sum
 * that does not depend on which rank has a row when.  A rank here is a thread. */
static _Thread_local const struct op *spied;
static _Thread_local uint64_t kept_sum;

static void drop_spied(struct lane *l, int32_t *kept, void *dropped, const int32_t *index,
                       const void *gate, int64_t t, int64_t e, int64_t k, int64_t a, double factor)
{
    spied->drop(l, kept, dropped, index, gate, t, e, k, a, factor);
    for (int64_t i = 0; i < t; i += SEQ)
        kept_sum += hash_xxh3(kept + i * k, SEQ * k * sizeof *kept) >> 32; /* so that sums fit */
}

/* What all ranks kept; those of TP x CP saw the same rows. */
static uint64_t kept_hash(struct model *m)
{
    int64_t sum = m->mesh.i_tp || m->mesh.i_cp ? 0 : (int64_t)kept_sum;
    comm_all_reduce(m->comm[GROUP_WORLD], NULL, &sum, 1, DT_I64, COMM_SUM);
    return sum;
}

static void rank_main(struct world *w, void *arg)
{
    struct outcome *out = arg, o = *out;
    const struct mapping *x = &o.map;
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
    struct op op = *t.model.op;
    spied = t.model.op;
    if (!o.method.gpu)
        op.drop = drop_spied;
    t.model.op = &op;
    kept_sum = 0;
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
        o.dropped[i] = r.dropped;
    }
    o.kept = kept_hash(&t.model);
    if (o.to)
        save(&t, w, o.to);
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

struct difference {
    double grad, loss, aux, norm; /* relative, the worst */
    const char *where;            /* tensor of the worst gradient */
};

static double worst_of(const double *a, const double *b, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++)
        worst = isfinite(a[i] - b[i]) ? fmax(worst, fabs(a[i] - b[i]) / fabs(b[i])) : INFINITY;
    return worst;
}

static struct difference compare(const struct outcome *o, const struct outcome *one)
{
    struct difference d = {.where = "all the same"};
    for (int64_t p = 0; p < one->params; p++) {
        double off = 0, scale = 0;
        for (int64_t i = one->at[p]; i < one->at[p + 1]; i++) {
            double a = o->grad[i], b = one->grad[i];
            off = isfinite(a - b) ? fmax(off, fabs(a - b)) : INFINITY;
            scale = fmax(scale, fabs(b));
        }
        if (!(off / scale <= d.grad))
            d.grad = off / scale, d.where = one->name[p];
    }
    int n = steps_of(&o->method);
    d.loss = worst_of(o->loss, one->loss, n);
    if (!o->method.gpu) /* where rounding may decide who wins */
        d.loss = fmax(d.loss, worst_of(o->won, one->won, n));
    d.aux = worst_of(o->aux, one->aux, n);
    d.norm = worst_of(o->norm, one->norm, n);
    return d;
}

static int grads_agree(const struct difference *d)
{
    return d->grad <= 1e-10;
}

static int choices_agree(const struct outcome *o, const struct outcome *one)
{
    return o->start == one->start && o->kept == one->kept &&
           (!one->method.capacity || worst_of(o->dropped, one->dropped, STEPS) <= 1e-12);
}

static int losses_agree(const struct difference *d)
{
    return d->loss <= 1e-9 && d->aux <= 1e-9 && d->norm <= 1e-9;
}

/* On GPUs: what the order of sums and, in bf16, the rounding of every value may do. */
static int near(const struct difference *d, const struct method *m)
{
    return strcmp(m->gpu, "bf16") ? d->grad <= 1e-5 && d->loss <= 1e-4 && d->aux <= 1e-4
                                  : d->loss <= 5e-3;
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

/* ---- which mappings ---- */

static const struct mapping chosen[] = {
    /* ranks tp cp pp etp ep micro layout dispatch */
    {2, 1, 1, 1, 1, 1, 2}, /* every dimension alone */
    {2, 1, 1, 1, 1, 2, 2},
    {2, 2, 1, 1, 1, 1, 2},
    {2, 1, 1, 1, 2, 1, 2},
    {2, 1, 1, 2, 1, 1, 2},
    {2, 1, 2, 1, 1, 1, 2},
    {4, 1, 4, 1, 1, 1, 2},
    {4, 1, 1, 1, 1, 1, 1},
    {2, 2, 1, 1, 1, 2, 2}, /* EP over TP; over CP; over DP; over TP x CP */
    {2, 1, 2, 1, 1, 2, 2},
    {4, 1, 1, 1, 1, 2, 1},
    {4, 1, 1, 1, 1, 4, 2},
    {4, 2, 2, 1, 1, 4, 4},
    {4, 2, 2, 1, 1, 1, 2}, /* pairs */
    {4, 1, 2, 2, 1, 1, 2},
    {4, 1, 2, 1, 1, 1, 1},
    {4, 2, 1, 1, 2, 2, 1},
    {4, 2, 1, 2, 1, 2, 1},
    {4, 1, 2, 1, 2, 2, 2}, /* ETP over CP, EP over DP */
    {8, 2, 2, 1, 1, 4, 2}, /* EP over TP x CP beside DP; all at once */
    {8, 2, 2, 2, 2, 2, 2},
    {8, 2, 1, 1, 2, 4, 1}, /* EP over TP x DP; over TP x CP x DP */
    {8, 2, 2, 1, 1, 8, 2},
    {2, 2, 1, 1, 2, 1, 2}, /* the pairs that are left */
    {2, 1, 2, 1, 2, 1, 2},
    {4, 1, 1, 2, 1, 1, 2},
    {4, 1, 1, 2, 2, 1, 2},
    {4, 1, 1, 2, 1, 2, 2},
    {4, 2, 1, 2, 1, 1, 2},
    {4, 2, 1, 2, 2, 1, 2},
    {4, 2, 1, 1, 1, 1, 2},
    {4, 1, 1, 1, 2, 2, 2},
    {2, 1, 1, 1, 1, 2, 2, NULL, "rows"}, /* each way of dispatch where the other is chosen */
    {4, 1, 2, 1, 2, 2, 2, NULL, "rows"},
    {4, 1, 1, 1, 1, 4, 2, NULL, "all"},
    {8, 2, 2, 1, 1, 4, 2, NULL, "all"},
    {4, 1, 1, 4, 1, 1, 2}, /* pipelines: deep, uneven, interleaved */
    {2, 1, 1, 2, 1, 1, 2, "3,1"},
    {2, 1, 1, 2, 1, 1, 1, "1,1,1,1"},
    {4, 2, 1, 2, 1, 2, 2, "1,1,1,1"},
    {4, 1, 2, 2, 2, 1, 2, "1,1,1,1"},
    {8, 1, 2, 2, 1, 4, 1, "1,1,1,1"},
};

/* Of GPUs only. */
static const struct mapping through_windows[] = {
    {2, 1, 1, 1, 1, 2, 2, NULL, "window"},
    {2, 2, 1, 1, 1, 2, 2, NULL, "window"},
    {2, 1, 1, 1, 2, 1, 2, NULL, "window"},
    {4, 1, 2, 1, 2, 2, 2, NULL, "window"},
};

static int is_listed(const struct mapping *list, int64_t n, struct mapping x)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i].ranks == x.ranks && list[i].tp == x.tp && list[i].cp == x.cp &&
            list[i].pp == x.pp && list[i].etp == x.etp && list[i].ep == x.ep)
            return 1;
    return 0;
}

/* Adds every mapping of powers of two that fits the model, to 16 ranks; of the largest every sixth.
 */
static int64_t all_mappings(struct mapping *list, int64_t n)
{
    int64_t seen = 0;
    for (int ranks = 2; ranks <= 16; ranks *= 2)
        for (int tp = 1; tp <= 2; tp *= 2)
            for (int cp = 1; cp <= 8; cp *= 2)
                for (int pp = 1; pp <= 2; pp *= 2)
                    for (int etp = 1; etp <= 4; etp *= 2)
                        for (int ep = 1; ep <= 8; ep *= 2) {
                            int dp = ranks / (tp * cp * pp);
                            struct mapping x = {
                                ranks, tp, cp, pp, etp, ep, dp ? MIN(2, BATCH / dp) : 0};
                            if (!dp || dp > BATCH || etp * ep * pp > ranks ||
                                is_listed(list, n, x) || (ranks == 16 && seen++ % 6))
                                continue;
                            list[n++] = x;
                        }
    return n;
}

/* ---- what a list of mappings covers ---- */

enum { TP, CP, DP, PP, ETP, EP, DIMENSIONS };
static const char *const dimension[] = {"TP", "CP", "DP", "PP", "ETP", "EP"};

/* Which dimensions are cut. */
static unsigned dimensions_of(const struct mapping *x)
{
    const int size[] = {x->tp, x->cp, x->ranks / (x->tp * x->cp * x->pp), x->pp, x->etp, x->ep};
    unsigned set = 0;
    for (int i = 0; i < DIMENSIONS; i++)
        set |= (unsigned)(size[i] > 1) << i;
    return set;
}

/* Whether a mapping has these dimensions and no others.  Ranks that share experts share out
 * attention somehow: if by nothing else, by DP. */
static int only(unsigned have, unsigned want)
{
    unsigned experts = 1 << ETP | 1 << EP;
    return have == want || ((want & experts) && have == (want | 1 << DP));
}

static int has_folded(const struct mapping *x)
{
    return x->tp > 1 && x->cp > 1 && x->ep == x->tp * x->cp;
}
static int has_folded_dp(const struct mapping *x)
{
    int stage = x->ranks / x->pp;
    return x->tp > 1 && x->cp > 1 && stage > x->tp * x->cp && x->ep == stage;
}
static int has_other_etp(const struct mapping *x)
{
    return x->etp != x->tp && x->etp > 1 && x->tp > 1;
}
static int has_etp_alone(const struct mapping *x)
{
    return x->etp > 1 && x->tp == 1;
}
static int is_woven(const struct mapping *x)
{
    int chunks = 1;
    for (const char *s = x->layout; s && *s; s++)
        chunks += *s == ',';
    return chunks > x->pp;
}

/* x: the mappings that agreed with one rank under every method that could be tried on them. */
static void test_coverage(const struct mapping *x, int64_t n, int largest)
{
    static const struct {
        const char *what;
        int (*has)(const struct mapping *x);
        int ranks; /* that it takes */
    } wanted[] = {{"EP over TP x CP", has_folded, 4},
                  {"EP over TP x CP x DP", has_folded_dp, 8},
                  {"ETP without TP", has_etp_alone, 2},
                  {"ETP and TP of different sizes", has_other_etp, 16},
                  {"interleaved stages", is_woven, 2}};
    struct buf missing = {0};
    int64_t mappings = 0, alone = 0, pairs = 0;
    for (int64_t i = 0; i < n; i++)
        mappings += !is_listed(x, i, x[i]);
    for (int a = 0; a < DIMENSIONS; a++)
        for (int b = a; b < DIMENSIONS; b++) {
            int found = 0;
            for (int64_t i = 0; !found && i < n; i++)
                found = only(dimensions_of(&x[i]), 1u << a | 1u << b);
            *(a == b ? &alone : &pairs) += found;
            if (!found)
                buf_printf(&missing, " %s%s%s", dimension[a], a == b ? "" : " x ",
                           a == b ? "" : dimension[b]);
        }
    ok(!missing.len,
       "%lld mappings agreed; among them %lld of %d dimensions alone and %lld of %d pairs%s%s",
       (long long)mappings, (long long)alone, DIMENSIONS, (long long)pairs,
       DIMENSIONS * (DIMENSIONS - 1) / 2, missing.len ? "; not:" : "",
       missing.len ? missing.data : "");
    for (int64_t k = 0; k < ARRAY_LEN(wanted); k++) {
        int64_t found = 0;
        for (int64_t i = 0; i < n; i++)
            found += wanted[k].has(&x[i]);
        if (wanted[k].ranks <= largest)
            ok(found > 0, "%s: in %lld of them", wanted[k].what, (long long)found);
    }
    buf_release(&missing);
}

/* ---- planted bugs: the test must see them ---- */

static void double_rows(struct trainer *t, int after)
{
    int64_t tokens = t->o.micro * t->o.seq;
    for (int64_t m = 0; !after && t->mesh.rank == t->mesh.world - 1 && m < t->micros; m++)
        for (int64_t i = 0; i < tokens; i++)
            t->host[m].weight[i] *= 2;
}

static void double_experts(struct trainer *t, int after)
{
    double *g = t->model.grad[BUFFER_EXPERTS];
    for (int64_t i = 0; after && i < t->model.layout.size[BUFFER_EXPERTS]; i++)
        g[i] *= 2;
}

static void unscale_gates(struct trainer *t, int after)
{
    if (t->mesh.rank == t->mesh.world - 1)
        t->model.cfg.norm_gate = after; /* of the first step only */
}

static void swap_chunks(struct trainer *t, int after)
{
    t->mesh.i_cp = t->mesh.cp - 1 - t->mesh.i_cp;
}

static void test_the_test(const struct outcome *one, struct world *job)
{
    static const struct {
        const char *what;
        void (*spoil)(struct trainer *t, int after);
        struct mapping map;
    } bugs[] = {
        {"the gradient of one rank's rows doubled", double_rows, {2, 1, 1, 1, 1, 1, 2}},
        {"the gradient of the experts doubled", double_experts, {2, 1, 1, 1, 1, 2, 2}},
        {"one rank's gates left unscaled", unscale_gates, {2, 1, 1, 1, 1, 2, 2}},
        {"chunks given to the wrong ranks", swap_chunks, {2, 1, 2, 1, 1, 1, 2}},
    };
    for (int64_t i = 0; world_size(job) == 1 && i < ARRAY_LEN(bugs); i++) {
        struct outcome o = {.map = bugs[i].map, .method = one->method, .spoil = bugs[i].spoil};
        run(&o, job);
        struct difference d = compare(&o, one);
        ok(!grads_agree(&d), "a planted bug is seen: %s (off by %.1e)", bugs[i].what, d.grad);
        ok(losses_agree(&d), "and is gone with it");
        outcome_release(&o);
    }
}

/* A pipeline computes what one rank computes, in the same order; only sums over all tensors differ.
 */
static void test_bits(const struct mapping *one_rank, const char *set)
{
    static const struct mapping pipes[] = {
        {2, 1, 1, 2, 1, 1, 2}, {2, 1, 1, 2, 1, 1, 2, "1,1,1,1"}, {4, 1, 1, 4, 1, 1, 1}};
    struct world *w = world_self();
    for (int64_t i = 0; i < ARRAY_LEN(pipes); i++) {
        struct outcome one = {.map = *one_rank, .method = {"nll", "adamw", set, mixtral, 1}},
                       o = one;
        one.map.micro = pipes[i].micro;
        o.map = pipes[i];
        run(&one, w);
        run(&o, w);
        ok(!memcmp(one.loss, o.loss, sizeof o.loss), "%s: %d losses in f32 have one rank's bits",
           mapping_name(&o.map), STEPS);
        outcome_release(&one), outcome_release(&o);
    }
    world_free(w);
}

/* Stops at one mapping and goes on at another: the losses are those of a rank that never stopped.
 */
static void test_stops(const struct outcome *one, const struct mapping *list, int64_t n,
                       const char *dir, int pairs)
{
    char *at = path_join(dir, "stopped");
    double worst = 0;
    struct world *job = world_self();
    for (int i = 0; i < pairs; i++) {
        struct mapping a = list[(int64_t)(rng_uniform(21, i, 0) * n)];
        struct mapping b = list[(int64_t)(rng_uniform(21, i, 1) * n)];
        int stop = 1 + (int)(rng_uniform(21, i, 2) * (STEPS - 1));
        struct outcome o = {.map = a, .method = one->method, .end = stop, .to = at};
        struct outcome p = {.map = b, .method = one->method, .begin = stop, .from = at};
        make_dirs(at);
        run(&o, job);
        run(&p, job);
        memcpy(p.loss, o.loss, stop * sizeof *o.loss);
        memcpy(p.aux, o.aux, stop * sizeof *o.aux);
        memcpy(p.norm, o.norm, stop * sizeof *o.norm);
        double off =
            fmax(fmax(worst_of(p.loss, one->loss, STEPS), worst_of(p.aux, one->aux, STEPS)),
                 worst_of(p.norm, one->norm, STEPS));
        worst = fmax(worst, off);
        if (!(off <= 1e-9)) {
            char *first = xstrdup(mapping_name(&a));
            ok(0, "%s, and after step %d %s: off by %.1e", first, stop, mapping_name(&b), off);
            free(first);
        }
        outcome_release(&o), outcome_release(&p);
        remove_tree(at);
    }
    ok(worst <= 1e-9, "%d pairs of mappings A, B: stopped at A, the losses go on at B (to %.1e)",
       pairs, worst);
    struct outcome o = {.map = list[0], .method = one->method, .end = 5, .to = at};
    struct outcome p = {.map = list[0], .method = one->method, .begin = 6, .from = at};
    make_dirs(at);
    run(&o, job);
    run(&p, job);
    ok(worst_of(p.loss + 6, one->loss + 6, STEPS - 6) > 1e-9, "a step that is left out is seen");
    outcome_release(&o), outcome_release(&p);
    world_free(job);
    free(at);
}

int main(int argc, char **argv)
{
    static const struct mapping one_rank = {1, 1, 1, 1, 1, 1, 2};
    static struct mapping list[2000];
    char dir[64] = "/tmp/parallel-XXXXXX";
    static int differs[2000], runs[2000];
    int64_t n = ARRAY_LEN(chosen), agreed = 0, tried = 0, mappings = 0;
    int largest = 8;
    double worst = 0;
    memcpy(list, chosen, sizeof chosen);
    if (argc > 1 && !strcmp(argv[1], "--long"))
        n = all_mappings(list, n), largest = 16;
    int gpu = argc > 1 && !strcmp(argv[1], "cuda");
    for (int64_t i = 0; gpu && i < ARRAY_LEN(through_windows); i++)
        list[n++] = through_windows[i];

    opt_quiet = 1;
    struct world *job = world_open(600);
    int size = world_size(job), first = world_rank(job) == 0, all[64];
    for (int i = 0; i < size; i++)
        all[i] = i;
    struct comm *c = comm_new(job, "job", all, size);
    if (first && !mkdtemp(dir))
        die("mkdtemp:");
    comm_broadcast(c, NULL, dir, sizeof dir, 0);
    char *set = path_join(dir, "set/"), *pairs = path_join(dir, "pairs/");
    char *tiles = path_join(dir, "tiles/");
    if (first) {
        write_set(set, 0, SEQ);
        write_set(pairs, 1, SEQ);
        write_set(tiles, 0, SEQ_TILES);
    }
    const struct method on_gpus[] = {
        {"nll", "adamw", set, mixtral, .gpu = "f32"},
        {"nll", "adamw", tiles, olmoe_tiles, .gpu = "f32", .seq = SEQ_TILES},
        {"nll", "adamw", tiles, olmoe_tiles, .gpu = "bf16", .seq = SEQ_TILES},
        {"nll", "adamw", tiles, qwen3_tiles, .gpu = "bf16", .moments = "bf16", .seq = SEQ_TILES},
        {"bt", "adamw", pairs, olmoe, .gpu = "f32"},
    };
    const struct method on_cpus[] = {
        {"nll", "sgd", set, mixtral},
        {"nll", "adamw", set, mixtral},
        {"nll", "adamw", set, mixtral, 0, "bf16"}, /* rounded by chance, which no mapping changes */
        {"bt", "adamw", pairs, mixtral},
        {"dpo", "sgd", pairs, mixtral},
        {"nll", "adamw", set, qwen3},
        {"bt", "adamw", pairs, olmoe},
        {"nll", "sgd", set, mixtral, .capacity = 1},
        {"nll", "adamw", set, qwen3, .capacity = 0.8, .group = 2},
        {"nll", "adamw", set, qwen2},
        {"nll", "adamw", set, deepseek},
        {"nll", "adamw", set, deepseek3, .balance = 0.02},
    };
    const struct method *methods = gpu ? on_gpus : on_cpus;
    int64_t kinds = gpu ? ARRAY_LEN(on_gpus) : ARRAY_LEN(on_cpus);
    comm_barrier(c);
    for (int64_t k = 0; k < kinds; k++) {
        struct outcome base = {.map = one_rank, .method = methods[k]};
        if (first) {
            run(&base, job);
            ok(base.loss[steps_of(&methods[k]) - 1] < base.loss[0],
               "one rank of %s learns %s with %s (%.4f to %.4f)", base.family, methods[k].loss,
               methods[k].optimizer, base.loss[0], base.loss[steps_of(&methods[k]) - 1]);
        }
        for (int64_t i = 0; i < n; i++) {
            struct outcome o = {.map = list[i], .method = methods[k]};
            if ((size > 1 && list[i].ranks != size) || list[i].micro % MAX(methods[k].group, 1))
                continue;
            run(&o, job);
            if (!first)
                continue;
            struct difference d = compare(&o, &base);
            int same = gpu ? near(&d, &methods[k])
                           : grads_agree(&d) && losses_agree(&d) && choices_agree(&o, &base);
            ok(same,
               "%s, %s, %s %s%s%s%s: gradients %.1e (%s), losses %.1e, auxiliary %.1e, norms %.1e",
               mapping_name(&list[i]), base.family, methods[k].loss, methods[k].optimizer,
               methods[k].capacity ? " with dropping" : "", gpu ? " on GPUs in " : "",
               gpu ? methods[k].gpu : "", d.grad, d.where, d.loss, d.aux, d.norm);
            worst = fmax(fmax(fmax(worst, d.grad), fmax(d.loss, d.aux)), d.norm);
            agreed += same, tried++, mappings += k == 0;
            differs[i] |= !same, runs[i]++;
            outcome_release(&o);
        }
        if (first && methods[k].capacity)
            ok(base.dropped[0] > 0.05 && base.dropped[0] < 0.5,
               "experts with room for %g of the mean drop %.1f %% of the choices",
               methods[k].capacity, 100 * base.dropped[0]);
        if (k == 0 && !gpu)
            test_the_test(&base, job);
        if (k == 1 && size == 1 && !gpu)
            test_stops(&base, list, n, dir, n > ARRAY_LEN(chosen) ? 200 : 50);
        if (k == 0 && size == 1 && !gpu)
            test_bits(&one_rank, set);
        if (first)
            outcome_release(&base);
    }
    if (first && size == 1 && !gpu) {
        static struct mapping good[2000];
        int64_t goods = 0;
        for (int64_t i = 0; i < n; i++)
            if (runs[i] && !differs[i])
                good[goods++] = list[i];
        test_coverage(good, goods, largest);
    }
    if (first) {
        printf("# %lld of %lld runs of %lld mappings agree with one rank; the largest difference "
               "is %.1e\n",
               (long long)agreed, (long long)tried, (long long)mappings, worst);
        remove_tree(dir);
    }
    free(set), free(pairs), free(tiles);
    comm_free(c);
    world_free(job);
    return first ? finish() : 0;
}
