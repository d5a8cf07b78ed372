/* parallel.c -- the mapping is not a hyperparameter: ranks as threads against one rank, in f64.
 *
 * For each mapping: every reduced gradient of step 1 within 1e-10 of the tensor's maximum, and 20 losses
 * with SGD and with AdamW within 1e-9. */
#include "tap.h"
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char config_text[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"num_local_experts\":4,\"num_experts_per_tok\":2,\"intermediate_size\":12,"
    "\"vocab_size\":40,\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"
    "\"initializer_range\":0.2,\"tie_word_embeddings\":false,\"router_aux_loss_coef\":0.02,"
    "\"hidden_act\":\"silu\"}";

enum { SEQ = 16, BATCH = 8, STEPS = 20 };

struct mapping {
    const char *name;
    int ranks, tp, pp, etp, ep;
    int64_t micro;
};
struct outcome { /* of one mapping */
    const struct mapping *map;
    const char *optimizer, *set;
    double loss[STEPS], aux[STEPS], norm[STEPS];
    double *grad;      /* all tensors in canonical order, of step 1 */
    int64_t *at;       /* (params) where each begins in grad */
    int64_t *size;     /* (params) */
    char **name;
    int64_t params;
};

static void outcome_init(struct outcome *o, const struct model *m)
{
    int64_t n = 0;
    o->params = m->params;
    o->at = xmalloc(m->params * sizeof *o->at);
    o->size = xmalloc(m->params * sizeof *o->size);
    o->name = xmalloc(m->params * sizeof *o->name);
    for (int64_t i = 0; i < m->params; i++) {
        o->at[i] = n;
        o->size[i] = m->param[i].rows * MAX(m->param[i].cols, 1);
        o->name[i] = xstrdup(m->param[i].name);
        n += o->size[i];
    }
    o->grad = xcalloc(n, sizeof *o->grad);
}

/* Every rank lays the slices it stores into the whole. */
static void collect_gradients(struct outcome *o, struct model *m)
{
    for (int b = 0; b < BUFFERS; b++)
        comm_all_gather(m->comm[b == BUFFER_DENSE ? GROUP_DP_CP : GROUP_EDP], m->lane, m->grad[b],
                        (double *)m->grad[b] + m->layout.shard_at[b], m->layout.shard[b], DT_F64);
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        const double *g = (double *)m->grad[l->buffer] + l->at;
        int64_t p = l->p - m->param, cols = MAX(l->p->cols, 1);
        for (int64_t r = 0; l->writes && r < l->r.rows; r++)
            memcpy(o->grad + o->at[p] + (l->r.row + r) * cols + l->r.col, g + r * l->r.cols,
                   l->r.cols * sizeof *g);
    }
}

static void rank_main(struct world *w, void *arg)
{
    struct outcome *o = arg;
    const struct mapping *x = o->map;
    struct trainer t;
    struct mesh mesh;
    struct config c;
    struct trainer_options opt = {.device = "cpu", .type = "f64", .optimizer = o->optimizer, .loss = "nll",
                                  .batch = BATCH, .micro = x->micro, .seq = SEQ, .decay = 0.1, .aux = -1,
                                  .z = 0.001, .threads = 1,
                                  .plan = {.lr = 0.01, .floor = 0.1, .warmup = 3, .steps = STEPS,
                                           .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 0.5}};
    const char *why = mesh_init(&mesh, x->ranks, world_rank(w), x->tp, 1, x->pp, x->etp, x->ep);
    if (why)
        die("%s: %s", x->name, why);
    config_parse(&c, config_text, sizeof config_text - 1, "test");
    trainer_init(&t, w, &mesh, &c, &opt);
    model_random(&t.model, 1);
    struct set *set = set_open(o->set);
    int64_t one = 1;
    struct mix mix = {&set, &one, 1, 3};
    struct step_result r;

    if (world_rank(w) == 0)
        outcome_init(o, &t.model);
    comm_barrier(t.model.comm[GROUP_WORLD]);
    trainer_fetch(&t, &mix, 0);
    trainer_gradients(&t, &r);
    collect_gradients(o, &t.model);
    for (int i = 0; i < STEPS; i++) {
        trainer_step(&t, &mix, i * BATCH, &r);
        if (world_rank(w) == 0)
            o->loss[i] = r.loss, o->aux[i] = r.aux, o->norm[i] = r.norm;
    }
    set_close(set);
    trainer_release(&t);
}

static void run(struct outcome *o)
{
    if (o->map->ranks == 1) {
        struct world *w = world_self();
        rank_main(w, o);
        world_free(w);
    } else {
        world_threads(o->map->ranks, rank_main, o);
    }
}

static void outcome_release(struct outcome *o)
{
    for (int64_t i = 0; i < o->params; i++)
        free(o->name[i]);
    free(o->grad), free(o->at), free(o->size), free(o->name);
}

static double worst_of(const double *a, const double *b, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++)
        worst = isfinite(a[i] - b[i]) ? fmax(worst, fabs(a[i] - b[i]) / fabs(b[i])) : INFINITY;
    return worst;
}

static void compare(const struct outcome *o, const struct outcome *one)
{
    double worst = 0;
    const char *where = "";
    for (int64_t p = 0; p < one->params; p++) {
        double d = 0, scale = 0;
        for (int64_t i = 0; i < one->size[p]; i++) {
            double a = o->grad[o->at[p] + i], b = one->grad[one->at[p] + i];
            d = isfinite(a - b) ? fmax(d, fabs(a - b)) : INFINITY;
            scale = fmax(scale, fabs(b));
        }
        if (!(d / scale <= worst))
            worst = d / scale, where = one->name[p];
    }
    ok(worst <= 1e-10, "%s: gradients of step 1 equal one rank's (worst %.1e, %s)", o->map->name, worst,
       where);
    double loss = worst_of(o->loss, one->loss, STEPS), aux = worst_of(o->aux, one->aux, STEPS);
    double norm = worst_of(o->norm, one->norm, STEPS);
    ok(loss <= 1e-9 && aux <= 1e-9 && norm <= 1e-9,
       "%s: %d %s losses, auxiliary losses and norms (worst %.1e %.1e %.1e)", o->map->name, STEPS,
       o->optimizer, loss, aux, norm);
}

static void write_set(const char *path)
{
    struct set_info info = {.seq = SEQ, .tokenizer_hash = "0123456789abcdef", .columns = "weight",
                            .template = "plain", .bos = -1, .eos = -1};
    struct packer *p = packer_open(path, &info, 1 << 20);
    for (int i = 0; i < 120; i++) {
        int32_t token[SEQ];
        uint8_t target[SEQ];
        struct doc d = {token, target, 3 + (int)(rng_uniform(1, 0, i) * (SEQ - 3)), 1, NAN, -1};
        for (int j = 0; j < d.n; j++) {
            token[j] = rng_uniform(2, i, j) * 40;
            target[j] = j > 0;
        }
        d.weight = i % 5 ? 1 : 0.5;
        packer_add(p, &d);
    }
    packer_close(p, "{}");
}

int main(void)
{
    static const struct mapping one = {"one rank", 1, 1, 1, 1, 1, 2};
    static const struct mapping maps[] = {
        /* name                ranks tp pp etp ep micro */
        {"DP2", 2, 1, 1, 1, 1, 2},
        {"EP2 folded over DP", 2, 1, 1, 1, 2, 2},
        {"DP4", 4, 1, 1, 1, 1, 1},
        {"DP2 x EP2", 4, 1, 1, 1, 2, 1},
        {"EP4", 4, 1, 1, 1, 4, 2},
        {"TP2", 2, 2, 1, 1, 1, 2},
        {"TP2 with EP2 folded over it", 2, 2, 1, 1, 2, 2},
        {"ETP2", 2, 1, 1, 2, 1, 2},
        {"PP2", 2, 1, 2, 1, 1, 2},
        {"TP2 DP2 with ETP2 EP2", 4, 2, 1, 2, 2, 1},
        {"PP2 TP2 with EP2", 4, 2, 2, 1, 2, 1},
    };
    static const char *const optimizers[] = {"sgd", "adamw"};
    char dir[] = "/tmp/parallel-XXXXXX";
    if (!mkdtemp(dir))
        die("mkdtemp:");
    char *set = path_join(dir, "set/");
    opt_quiet = 1;
    write_set(set);
    for (int k = 0; k < 2; k++) {
        struct outcome base = {.map = &one, .optimizer = optimizers[k], .set = set};
        run(&base);
        ok(base.loss[STEPS - 1] < base.loss[0], "one rank learns with %s (%.4f to %.4f)", optimizers[k],
           base.loss[0], base.loss[STEPS - 1]);
        for (int64_t i = 0; i < ARRAY_LEN(maps); i++) {
            struct outcome o = {.map = &maps[i], .optimizer = optimizers[k], .set = set};
            run(&o);
            compare(&o, &base);
            outcome_release(&o);
        }
        outcome_release(&base);
    }
    remove_tree(dir);
    free(set);
    return finish();
}
