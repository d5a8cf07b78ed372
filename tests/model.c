/* model.c -- the whole model against finite differences, f32 against f64, decoding against one
 * pass, and what must not matter (micro-batches, neighbours in a pack, pads). */
#include "trainers.h"

/* A small model of each family. */
#define SIZES                                                                                      \
    "\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                        \
    "\"num_key_value_heads\":2,\"num_experts_per_tok\":2,\"vocab_size\":37,"                       \
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"                 \
    "\"initializer_range\":0.3,\"router_aux_loss_coef\":0.02"
static const char small[] =
    "{\"model_type\":\"mixtral\"," SIZES ",\"num_local_experts\":4,\"intermediate_size\":12}";
static const char small_qwen3[] = "{\"model_type\":\"qwen3_moe\"," SIZES
                                  ",\"num_experts\":4,\"moe_intermediate_size\":12,\"head_dim\":6,"
                                  "\"norm_topk_prob\":true}";
static const char small_olmoe[] =
    "{\"model_type\":\"olmoe\"," SIZES ",\"num_experts\":4,\"intermediate_size\":12}";

/* Dense layers beside such with a shared expert; and nothing but dense ones. */
static const char small_qwen2[] =
    "{\"model_type\":\"qwen2_moe\"," SIZES
    ",\"num_experts\":4,\"moe_intermediate_size\":12,\"shared_expert_intermediate_size\":10,"
    "\"intermediate_size\":14,\"mlp_only_layers\":[0]}";
static const char small_llama[] =
    "{\"model_type\":\"llama\"," SIZES ",\"intermediate_size\":14,\"tie_word_embeddings\":true}";

static const char small_deepseek[] =
    LATENT "6,\"model_type\":\"deepseek_v2\",\"n_group\":2,"
           "\"topk_group\":1,\"topk_method\":\"group_limited_greedy\"}";
static const char small_lite[] = LATENT "null,\"model_type\":\"deepseek_v2\"}";
/* ---- finite differences ---- */

static double derivative(struct trainer *t, double *w)
{
    double was = *w, h = 1e-3, f[4];
    static const int at[4] = {-2, -1, 1, 2};
    for (int i = 0; i < 4; i++) {
        *w = was + at[i] * h;
        f[i] = objective(t);
    }
    *w = was;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* The second row as a pair and a document alone, with a margin and reference log-probabilities. */
static void fill_pairs(struct trainer *t)
{
    static const struct batch_doc docs[2][3] = {{{7, 0.1, -3}, {7, 0, -4}, {-1, 0, 0}},
                                                {{-1, 0, 0}, {8, 0.2, -2}, {8, 0, -1}}};
    batch_host_clear(&t->host[0]);
    for (int i = 0; i < 2; i++) {
        fill_row(t, 0, i, rows[i], 11 + i);
        batch_host_pairs(&t->host[0], i, docs[i], 3, t->loss->tokens == TOKENS_LAST);
    }
}

static void test_finite_differences(struct world *w, const char *loss, const char *config)
{
    struct trainer *t = trainer_of(w, loss, config, strlen(config), "f64", 2, 2, 24, 0.01);
    double worst = 0;
    const char *where = "";
    model_random(&t->model, 6); /* no token is near a tie between experts */
    if (t->loss->pairs)
        fill_pairs(t);
    else
        fill(t);
    for (int64_t i = 0; i < t->model.layout.n; i++) {
        const struct local *l = &t->model.layout.local[i];
        int64_t n = l->r.rows * l->r.cols, tries = MIN(n, 6);
        double analytic[6], numeric[6], *weight = model_weight(&t->model, l);
        objective(t);
        double *g = gradient_of(t, l);
        for (int64_t j = 0; j < tries; j++) {
            int64_t at = rng_permute(17 + i, n, j);
            analytic[j] = g[at];
            numeric[j] = derivative(t, &weight[at]);
        }
        /* against the largest of the whole tensor: an element may have no gradient at all */
        double scale = max_abs(g, n), d = 0;
        for (int64_t j = 0; j < tries; j++)
            d = fmax(d, fabs(analytic[j] - numeric[j]));
        if (l->p->role == P_ROUTER_BIAS) /* choices jump; its gradient is 0 */
            d = scale > 0 ? INFINITY : 0, scale = 1;
        if (!(d / scale <= worst))
            worst = d / scale, where = l->p->name;
        free(g);
    }
    ok(worst <= 1e-6,
       "%s, %s: f64 gradients of every tensor equal finite differences (worst %.1e, %s)",
       t->model.cfg.arch->model_type, loss, worst, where);
    trainer_done(t);
}

/* ---- two trainers that must agree ---- */

static void test_agree(struct trainer *a, struct trainer *b, double tolerance, const char *claim)
{
    double la = objective(a), lb = objective(b), worst = fabs(la - lb) / fabs(lb);
    const char *where = "loss";
    for (int64_t i = 0; i < a->model.layout.n; i++) {
        const struct local *l = &a->model.layout.local[i];
        double *x = gradient_of(a, l), *y = gradient_of(b, &b->model.layout.local[i]);
        double d = difference(x, y, l->r.rows * l->r.cols);
        if (!(d <= worst))
            worst = d, where = l->p->name;
        free(x), free(y);
    }
    ok(worst <= tolerance, "%s (worst %.1e, %s)", claim, worst, where);
}

static void test_types_and_micro_batches(struct world *w, const char *config)
{
    size_t len = strlen(config);
    struct trainer *a = trainer_new(w, config, len, "f32", 2, 2, 24, 0.01);
    struct trainer *b = trainer_new(w, config, len, "f64", 2, 2, 24, 0.01);
    struct trainer *c = trainer_new(w, config, len, "f64", 2, 1, 24, 0.01);
    model_random(&a->model, 5), model_random(&b->model, 5), model_random(&c->model, 5);
    fill(a), fill(b), fill(c);
    test_agree(a, b, 1e-4, "f32 loss and gradients equal f64");
    test_agree(c, b, 1e-12, "one row a micro-batch gives the gradients of two");
    int64_t held = 0;
    for (int i = 0; i < 8 && held != b->lane.heap.bytes;
         i++) { /* what the first ones took settles */
        held = b->lane.heap.bytes;
        objective(b);
    }
    for (int i = 0; i < 3; i++)
        objective(b);
    ok(b->lane.heap.chunks == 1 && b->lane.heap.bytes == held && !b->lane.heap.used,
       "further steps take no memory");
    trainer_done(a), trainer_done(b), trainer_done(c);
}

/* What a run on a GPU would need: weights, gradients, moments and masters by their types, and what
 * grows with the tokens. */
static void test_memory(struct world *w, const char *config)
{
    struct trainer_options o = {.type = "bf16",
                                .loss = "nll",
                                .batch = 8,
                                .micro = 4,
                                .seq = 4096,
                                .threads = 1,
                                .optim.name = "adamw"};
    struct trainer *t = trainer_new(w, config, strlen(config), "f32", 2, 2, 24, 0.01);
    int64_t bytes[3], params = 0;
    struct mesh mesh;
    struct config c;
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    for (int b = 0; b < BUFFERS_LEARNT; b++)
        params += t->model.layout.size[b];
    for (int i = 0; i < 3; i++) {
        o.grads = o.optim.moments = i ? "bf16" : "f32";
        o.optim.master = i ? "none" : "f32";
        o.micro = i == 2 ? 8 : 4;
        config_parse(&c, config, strlen(config), "test");
        bytes[i] = trainer_bytes(&mesh, &c, &o);
    }
    ok(bytes[0] - bytes[1] == 10 * params, "18 bytes a parameter, or 8 (%lld of %lld)",
       (long long)(bytes[0] - bytes[1]), (long long)(10 * params));
    int64_t other = 8 * params + LANE_WORKSPACE, kept = bytes[1] - other, twice = bytes[2] - other;
    ok(kept > 0 && twice > 1.5 * kept && twice < 2.1 * kept,
       "twice the tokens keep nearly twice the memory (%lld, %lld)", (long long)kept,
       (long long)twice);
    trainer_done(t);
}

/* logp of the tokens of one document, wherever it stands in a pack. */
static void test_documents_do_not_see_each_other(struct world *w)
{
    struct trainer *t = trainer_new(w, small, sizeof small - 1, "f64", 1, 1, 24, 0);
    double logp[2][24];
    for (int alone = 0; alone < 2; alone++) {
        int32_t token[24] = {0}, document[24];
        uint8_t target[24];
        float weight[24];
        for (int i = 0; i < 24; i++) {
            int second =
                i >= 7 && i < 16; /* the document under test: tokens 7 .. 15, or 0 .. 8 alone */
            document[i] = alone ? (i < 9 ? 0 : -1) : i < 7 ? 0 : second ? 1 : i < 20 ? 2 : -1;
            token[i] = rng_uniform(3, 0, alone ? i + 7 : i) * 37;
            target[i] = 1, weight[i] = 1;
        }
        model_random(&t->model, 5);
        batch_host_clear(&t->host[0]);
        batch_host_row(&t->host[0], 0, token, target, document, weight);
        objective(t);
        memcpy(logp[alone], t->batch[0].logp, sizeof logp[alone]);
    }
    ok(difference(logp[0] + 7, logp[1], 8) < 1e-12,
       "a document's log-probabilities do not depend on its "
       "neighbours in the pack, nor on pads (%.1e)",
       difference(logp[0] + 7, logp[1], 8));
    trainer_done(t);
}

/* Decoding with a cache, prompt by prompt in odd pieces, against one pass over the whole sequence.
 */
static void test_decoder(struct world *w, const char *config)
{
    struct trainer *t = trainer_new(w, config, strlen(config), "f64", 1, 1, 24, 0);
    struct decoder d;
    int32_t token[16], document[24];
    uint8_t target[24] = {0};
    float weight[24] = {0};
    double whole[16 * 37], worst = 0;
    int32_t row[16], padded[24] = {0};
    model_random(&t->model, 5);
    for (int i = 0; i < 24; i++) {
        document[i] = i < 16 ? 0 : -1;
        target[i] = weight[i] = 1;
        if (i < 16)
            padded[i] = token[i] = rng_uniform(9, 0, i) * 37, row[i] = i;
    }
    batch_host_clear(&t->host[0]);
    batch_host_row(&t->host[0], 0, padded, target, document, weight);
    objective(t);
    model_logits(&t->model, &t->batch[0], row, 16, whole);

    decoder_init(&d, &t->model, 3, 24, 0, 1);
    int64_t other = decoder_start(&d, token + 3, 2), slot = decoder_start(&d, token, 5);
    for (int i = 4; i < 16; i++) {
        decoder_step(&d);
        worst = fmax(worst, difference(d.slot[slot].logits, whole + i * 37, 37));
        if (i < 15)
            decoder_push(&d, slot, token[i + 1]);
        if (i == 8)
            decoder_stop(&d, other);
        else if (i < 8)
            decoder_push(&d, other, 1);
    }
    ok(worst < 1e-12,
       "%s: decoding token by token beside another sequence gives the logits of one pass (%.1e)",
       t->model.cfg.arch->model_type, worst);
    decoder_release(&d);
    trainer_done(t);
}

static void test_draws(void)
{
    enum { N = 20000, V = 4 };
    static const double row[V] = {0, 1, 2, 1};
    const struct op *op = op_table("cpu", DT_F64);
    struct lane l;
    double *logits = xmalloc(N * V * sizeof *logits), *u = xmalloc(N * sizeof *u);
    int32_t *token = xmalloc(N * sizeof *token);
    int seen[2][V] = {0};
    for (int i = 0; i < N; i++) {
        memcpy(logits + i * V, row, sizeof row);
        u[i] = rng_uniform(1, 2, i);
    }
    lane_init(&l, dev_open("cpu"), 1);
    for (int cut = 0; cut < 2; cut++) {
        op->draw(&l, token, logits, u, N, V, 1, cut ? 0.6 : 1);
        for (int i = 0; i < N; i++)
            seen[cut][token[i]]++;
    }
    double z = 1 + 2 * exp(1) + exp(2);
    ok(fabs(seen[0][2] / (double)N - exp(2) / z) < 0.015 &&
           fabs(seen[0][0] / (double)N - 1 / z) < 0.01,
       "draws follow the softmax");
    ok(seen[1][0] == 0 && seen[1][3] == 0 && seen[1][1] > 0 && seen[1][2] > 0,
       "top-p keeps the likeliest tokens that reach it, ties to the lower id");
    lane_release(&l);
    free(logits), free(u), free(token);
}

int main(void)
{
    struct world *w = world_self();
    test_finite_differences(w, "nll", small);
    test_finite_differences(w, "bt", small);
    test_finite_differences(w, "dpo", small);
    test_finite_differences(w, "nll", small_qwen3);
    test_finite_differences(w, "bt", small_olmoe);
    test_finite_differences(w, "nll", small_qwen2);
    test_finite_differences(w, "dpo", small_llama);
    test_finite_differences(w, "nll", small_deepseek);
    test_finite_differences(w, "dpo", small_lite);
    test_finite_differences(w, "nll", small_v3);
    test_types_and_micro_batches(w, small);
    test_types_and_micro_batches(w, small_olmoe);
    test_types_and_micro_batches(w, small_qwen2);
    test_types_and_micro_batches(w, small_deepseek);
    test_memory(w, small);
    test_memory(w, small_v3);
    test_documents_do_not_see_each_other(w);
    test_decoder(w, small);
    test_decoder(w, small_qwen3);
    test_decoder(w, small_olmoe);
    test_decoder(w, small_qwen2);
    test_decoder(w, small_llama);
    test_decoder(w, small_deepseek);
    test_decoder(w, small_lite);
    test_decoder(w, small_v3);
    test_draws();
    world_free(w);
    return finish();
}
