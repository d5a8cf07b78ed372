/* model.c -- the whole model: against transformers, against finite differences, f32 against f64,
 * and what must not matter (micro-batches, neighbours in a pack, pads). */
#include "tap.h"
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Latent attention, with a latent of queries and without; a dense layer before one with experts. */
#define LATENT                                                                                     \
    "{\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                       \
    "\"num_key_value_heads\":4,\"num_experts_per_tok\":2,\"vocab_size\":37,"                       \
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"                 \
    "\"initializer_range\":0.3,\"aux_loss_alpha\":0.02,\"intermediate_size\":14,"                  \
    "\"moe_intermediate_size\":12,\"n_routed_experts\":4,\"n_shared_experts\":2,"                  \
    "\"first_k_dense_replace\":1,\"kv_lora_rank\":10,\"qk_nope_head_dim\":5,"                      \
    "\"qk_rope_head_dim\":4,\"v_head_dim\":6,\"q_lora_rank\":"
static const char small_deepseek[] =
    LATENT "6,\"model_type\":\"deepseek_v2\",\"n_group\":2,"
           "\"topk_group\":1,\"topk_method\":\"group_limited_greedy\"}";
static const char small_lite[] = LATENT "null,\"model_type\":\"deepseek_v2\"}";
static const char small_v3[] = LATENT "6,\"model_type\":\"deepseek_v3\",\"n_group\":2,"
                                      "\"topk_group\":1}";

static double balance_rate; /* of the next trainer */

static struct trainer *trainer_of(struct world *w, const char *loss, const char *config, size_t len,
                                  const char *type, int64_t batch, int64_t micro, int64_t seq,
                                  double z)
{
    struct trainer *t = xcalloc(1, sizeof *t);
    struct trainer_options o = {.device = "cpu",
                                .type = type,
                                .optim.name = "sgd",
                                .optim.balance = balance_rate,
                                .loss = loss,
                                .beta = 0.3,
                                .batch = batch,
                                .micro = micro,
                                .seq = seq,
                                .aux = -1,
                                .z = z,
                                .threads = 2,
                                .optim.plan = {.lr = 0.1, .floor = 1, .steps = 100}};
    struct mesh mesh;
    struct config c;
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    config_parse(&c, config, len, "test");
    c.reward = !strcmp(loss, "bt");
    trainer_init(t, w, &mesh, &c, &o);
    return t;
}

static struct trainer *trainer_new(struct world *w, const char *config, size_t len,
                                   const char *type, int64_t batch, int64_t micro, int64_t seq,
                                   double z)
{
    return trainer_of(w, "nll", config, len, type, batch, micro, seq, z);
}

static void trainer_done(struct trainer *t)
{
    trainer_release(t);
    free(t);
}

/* Documents of the given lengths (0 ends), then pads; tokens and weights from the key. */
static void fill_row(struct trainer *t, int64_t micro, int64_t row, const int *length, uint64_t key)
{
    int64_t seq = t->o.seq, at = 0, vocab = t->model.cfg.vocab;
    int32_t *token = xcalloc(seq, sizeof *token), *document = xcalloc(seq, sizeof *document);
    uint8_t *target = xcalloc(seq, 1);
    float *weight = xcalloc(seq, sizeof *weight);
    for (int64_t i = 0; i < seq; i++)
        document[i] = -1;
    for (int d = 0; length[d]; d++)
        for (int i = 0; i < length[d]; i++, at++) {
            document[at] = d;
            token[at] = rng_uniform(key, d, i) * vocab;
            target[at] = i > 1;
            weight[at] = d == 1 ? 0.25f : 1.0f;
        }
    batch_host_row(&t->host[micro], row, token, target, document, weight);
    free(token), free(document), free(target), free(weight);
}

static const int rows[2][4] = {{7, 9, 5, 0}, {13, 1, 6, 0}};

static void fill(struct trainer *t)
{
    for (int64_t m = 0; m < t->micros; m++) {
        batch_host_clear(&t->host[m]);
        for (int64_t i = 0; i < t->o.micro; i++)
            fill_row(t, m, i, rows[m * t->o.micro + i], 11 + m * t->o.micro + i);
    }
}

/* What the gradients are of. */
static double objective(struct trainer *t)
{
    struct step_result r;
    const struct config *c = &t->model.cfg;
    trainer_gradients(t, &r);
    return r.loss + config_expert_layers(c) * (c->aux * r.aux + c->z * r.z);
}

static double *gradient_of(struct trainer *t, const struct local *l)
{
    int64_t n = l->r.rows * l->r.cols, ssz = dtype_size(t->model.op->stat);
    double *g = xcalloc(n, sizeof *g);
    if (l->buffer == BUFFER_FINE) /* has none */
        return g;
    dtype_convert(g, DT_F64, (char *)t->model.grad[l->buffer] + l->at * ssz, t->model.op->stat, n);
    return g;
}

static double max_abs(const double *a, int64_t n)
{
    double m = 0;
    for (int64_t i = 0; i < n; i++)
        m = isfinite(a[i]) ? fmax(m, fabs(a[i])) : INFINITY;
    return m;
}

/* max|a-b| / max|b| */
static double difference(const double *a, const double *b, int64_t n)
{
    double d = 0;
    for (int64_t i = 0; i < n; i++)
        d = isfinite(a[i] - b[i]) ? fmax(d, fabs(a[i] - b[i])) : INFINITY;
    return d > 0 ? d / max_abs(b, n) : d; /* a bias that only chooses has no gradient */
}

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

/* ---- transformers ---- */

static double *golden_tensor(struct shard_file *f, const char *name, int64_t *n)
{
    const struct tensor *t = blob_find(shard_header(f), name);
    if (!t)
        die("a golden file has no %s", name);
    *n = t->bytes / dtype_size(t->type);
    void *raw = xmalloc(t->bytes + 1);
    double *x = xmalloc(*n * sizeof *x);
    shard_read(f, t, raw);
    if (t->type == DT_I32)
        for (int64_t i = 0; i < *n; i++)
            x[i] = ((int32_t *)raw)[i];
    else
        dtype_convert(x, DT_F64, raw, t->type, *n);
    free(raw);
    return x;
}

/* A prompt of 8 tokens, decoded token by token. */
static void test_greedy(struct model *m, struct shard_file *f, const char *family)
{
    enum { PROMPT = 8 };
    struct decoder d;
    int64_t n, same = 0;
    double *said = golden_tensor(f, "greedy", &n);
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = said[i];
    decoder_init(&d, m, 1, n, 0, 1);
    int64_t slot = decoder_start(&d, prompt, PROMPT);
    for (int64_t i = PROMPT; i < n; i++) {
        decoder_step(&d);
        same += d.slot[slot].token == said[i];
        decoder_push(&d, slot, d.slot[slot].token);
    }
    ok(same == 200 && n == PROMPT + 200,
       "%s: %lld of %lld tokens are those of transformers' generate", family, (long long)same,
       (long long)n - PROMPT);
    decoder_release(&d);
    free(said);
}

/* The forward pass of the first micro-batch, layer by layer; chosen() is told what each router
 * chose, (T,K). */
static void walk_layers(struct trainer *t,
                        void (*chosen)(void *arg, int64_t layer, const int32_t *index), void *arg)
{
    struct model *m = &t->model;
    struct saved *s = xcalloc(m->layers + 1, sizeof *s);
    struct task_context c = {.m = m, .l = m->lane, .b = &t->batch[0], .s = s};
    for (int64_t l = 0; l <= m->layers; l++)
        s[l].heap = &m->lane->heap;
    segment_run[SEG_EMBED][PASS_FORWARD](&c);
    for (c.layer = 0; c.layer < m->layers; c.layer++) {
        struct layer_segments layer = layer_segments(m, c.layer);
        for (int64_t i = 0; i < layer.n; i++) {
            segment_run[layer.list[i]][PASS_FORWARD](&c);
            arena_reset(&m->lane->scratch);
        }
        if (saved_holds(&s[c.layer], SLOT_INDEX))
            chosen(arg, c.layer, saved_fetch(&s[c.layer], SLOT_INDEX));
        saved_clear(&s[c.layer]);
    }
    saved_clear(&s[m->layers]);
    free(s);
}

struct agreement { /* of choices with transformers' */
    struct shard_file *f;
    int64_t routers, choices, same;
};
static void compare_choices(void *arg, int64_t layer, const int32_t *index)
{
    struct agreement *a = arg;
    int64_t n;
    char *name = xasprintf("choices/%lld", (long long)a->routers++);
    double *theirs = golden_tensor(a->f, name, &n);
    for (int64_t i = 0; i < n; i++)
        a->same += index[i] == theirs[i];
    a->choices += n;
    free(name), free(theirs);
}

/* Both have the likeliest expert first. */
static void test_choices(struct trainer *t, struct shard_file *f, const char *family)
{
    struct config *c = &t->model.cfg;
    struct agreement a = {f};
    walk_layers(t, compare_choices, &a);
    ok(a.same == a.choices && a.choices == config_expert_layers(c) * t->batch[0].t * c->k,
       "%s: %lld of %lld choices of %lld routers are transformers'", family, (long long)a.same,
       (long long)a.choices, (long long)a.routers);
}

static void test_transformers(struct world *w, const char *family)
{
    char *config = xasprintf("tests/golden/hf/%s.json", family);
    char *tensors = xasprintf("tests/golden/hf/%s.safetensors", family);
    struct buf text = read_file(config);
    struct shard_file *f = shard_open(tensors);
    const struct tensor *input = blob_find(shard_header(f), "tokens");
    int64_t b = input->shape[0], s = input->shape[1], n;
    struct trainer *t = trainer_new(w, text.data, text.len, "f32", b, b, s, 0);
    t->model.cfg.aux = 0;
    int64_t v = t->model.cfg.vocab;
    for (int64_t i = 0; i < t->model.layout.n; i++) {
        const struct local *l = &t->model.layout.local[i];
        double *x = golden_tensor(f, l->p->name, &n);
        dtype_convert(model_weight(&t->model, l), DT_F32, x, DT_F64, n);
        free(x);
    }
    double *ids = golden_tensor(f, "tokens", &n);
    batch_host_clear(&t->host[0]);
    for (int64_t i = 0; i < b; i++) {
        int32_t *token = xmalloc(s * 4), *document = xcalloc(s, 4);
        uint8_t *target = xmalloc(s);
        float *weight = xmalloc(s * 4);
        for (int64_t j = 0; j < s; j++)
            token[j] = ids[i * s + j], target[j] = 1, weight[j] = 1;
        batch_host_row(&t->host[0], i, token, target, document, weight);
        free(token), free(document), free(target), free(weight);
    }
    double *loss = golden_tensor(f, "loss", &n), ours = objective(t), worst = 0;
    const char *where = "";
    ok(fabs(ours - *loss) / fabs(*loss) <= 1e-4, "%s: loss equals transformers' (%.7f, %.7f)",
       family, ours, *loss);
    for (int64_t i = 0; i < t->model.layout.n; i++) {
        const struct local *l = &t->model.layout.local[i];
        char *name = xasprintf("grad/%s", l->p->name);
        double *g = gradient_of(t, l), *theirs = golden_tensor(f, name, &n);
        double d = difference(g, theirs, n);
        if (!(d <= worst))
            worst = d, where = l->p->name;
        free(name), free(g), free(theirs);
    }
    ok(worst <= 1e-4, "%s: every parameter's gradient equals transformers' (worst %.1e, %s)",
       family, worst, where);

    double *logits = xmalloc(b * s * v * sizeof *logits), *theirs = golden_tensor(f, "logits", &n);
    int32_t *row = xmalloc(b * s * sizeof *row);
    for (int64_t i = 0; i < b * s; i++)
        row[i] = i;
    model_logits(&t->model, &t->batch[0], row, b * s, logits);
    ok(n == b * s * v && difference(logits, theirs, n) <= 1e-4,
       "%s: logits equal transformers' (%.1e)", family, difference(logits, theirs, n));
    if (t->model.cfg.experts)
        test_choices(t, f, family);
    test_greedy(&t->model, f, family);
    free(ids), free(loss), free(logits), free(theirs), free(row);
    shard_close(f);
    buf_release(&text);
    free(config), free(tensors);
    trainer_done(t);
}

struct loads { /* of the experts of each layer: (layers,E) */
    const struct trainer *t;
    double *load;
};
static void count_choices(void *arg, int64_t layer, const int32_t *index)
{
    struct loads *a = arg;
    const struct config *c = &a->t->model.cfg;
    for (int64_t i = 0; i < a->t->batch[0].t * c->k; i++)
        if (index[i] >= 0)
            a->load[layer * c->experts + index[i]]++;
}

/* Of weights that stand still: each step moves each bias by the sign of what its expert lacks, and
 * in time loads are even. */
static void test_balance(struct world *w)
{
    enum { STEPS = 60 };
    balance_rate = 0.01;
    struct trainer *t = trainer_of(w, "nll", small_v3, strlen(small_v3), "f64", 2, 2, 24, 0);
    balance_rate = 0;
    struct model *m = &t->model;
    struct step_result r;
    int64_t e = m->cfg.experts, moved = 0;
    double bias[8], first = 0, last = 0;
    model_random(m, 6);
    t->optim.plan.lr = 0;
    double *at = m->at[1].w[P_ROUTER_BIAS];
    for (int i = 0; i < STEPS; i++) {
        double load[2 * 8] = {0}, most = 0, mean = 0;
        fill(t);
        trainer_gradients(t, &r); /* the batch is where the next line looks */
        walk_layers(t, count_choices, &(struct loads){t, load});
        for (int64_t j = 0; j < e; j++)
            mean += load[e + j] / (double)e, most = fmax(most, load[e + j]), bias[j] = at[j];
        trainer_step(t, &r);
        for (int64_t j = 0; j < e; j++) {
            double off = mean - load[e + j], want = bias[j] + (off > 0   ? 0.01
                                                               : off < 0 ? -0.01
                                                                         : 0);
            moved += fabs(at[j] - want) < 1e-15;
        }
        last = most / mean;
        first = i ? first : last;
    }
    ok(moved == STEPS * e && first > 1.3 && last < 1.15,
       "biases move by the sign of what experts lack (%lld of %lld), and loads become even: the "
       "most "
       "is %.2f of the mean, then %.2f",
       (long long)moved, (long long)(STEPS * e), first, last);
    trainer_done(t);
}

int main(void)
{
    struct world *w = world_self();
    test_transformers(w, "mixtral");
    test_transformers(w, "qwen3_moe");
    test_transformers(w, "olmoe");
    test_transformers(w, "qwen2_moe");
    test_transformers(w, "llama");
    test_transformers(w, "qwen2");
    test_transformers(w, "qwen3");
    test_transformers(w, "deepseek_v2");
    test_transformers(w, "deepseek_v2_lite");
    test_transformers(w, "deepseek_v3");
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
    test_balance(w);
    world_free(w);
    return finish();
}
