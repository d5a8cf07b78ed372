/* gpu.c -- training on a GPU against training on the CPU: the same model, the same rows, the same
 * gradients and losses; and bf16 against f32.  Scoring and decoding likewise.
 *
 * Rows are drawn, with documents of mixed lengths and pads.  Models: one of odd sizes, which
 * goes through the plain kernels, one whose sizes are whole tiles, which goes through those for
 * tensor cores where the type is bf16, one of each family that norms queries and keys, and those
 * with dense networks. */
#include "tap.h"

#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char odd_model[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":36,\"num_hidden_layers\":2,\"num_attention_"
    "heads\":6,"
    "\"num_key_value_heads\":2,\"num_local_experts\":5,\"num_experts_per_tok\":2,\"intermediate_"
    "size\":28,"
    "\"vocab_size\":99,\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"
    "\"initializer_range\":0.1,\"tie_word_embeddings\":false,\"router_aux_loss_coef\":0.02,"
    "\"hidden_act\":\"silu\"}";
static const char whole_model[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":128,\"num_hidden_layers\":2,\"num_attention_"
    "heads\":4,"
    "\"num_key_value_heads\":2,\"head_dim\":64,\"num_local_experts\":8,\"num_experts_per_tok\":2,"
    "\"intermediate_size\":128,\"vocab_size\":512,\"max_position_embeddings\":256,\"rope_theta\":"
    "10000.0,"
    "\"rms_norm_eps\":1e-5,\"initializer_range\":0.05,\"tie_word_embeddings\":false,"
    "\"router_aux_loss_coef\":0.02,\"hidden_act\":\"silu\"}";

/* Norms of each head, and of all heads together. */
static const char qwen3_model[] =
    "{\"model_type\":\"qwen3_moe\",\"hidden_size\":128,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":64,\"num_experts\":8,"
    "\"num_experts_per_tok\":2,\"moe_intermediate_size\":128,\"norm_topk_prob\":true,"
    "\"vocab_size\":512,\"max_position_embeddings\":256,\"rope_theta\":1000000.0,"
    "\"rms_norm_eps\":1e-6,\"initializer_range\":0.05,\"router_aux_loss_coef\":0.02}";
static const char olmoe_model[] =
    "{\"model_type\":\"olmoe\",\"hidden_size\":256,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":4,\"num_experts\":8,"
    "\"num_experts_per_tok\":2,\"intermediate_size\":128,\"vocab_size\":512,"
    "\"max_position_embeddings\":256,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"
    "\"initializer_range\":0.05,\"router_aux_loss_coef\":0.02}";
/* A dense layer, a shared expert with a gate, biases. */
static const char qwen2_model[] =
    "{\"model_type\":\"qwen2_moe\",\"hidden_size\":128,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":64,\"num_experts\":8,"
    "\"num_experts_per_tok\":2,\"moe_intermediate_size\":128,\"norm_topk_prob\":false,"
    "\"shared_expert_intermediate_size\":192,\"intermediate_size\":320,\"mlp_only_layers\":[0],"
    "\"vocab_size\":512,\"max_position_embeddings\":256,\"rope_theta\":1000000.0,"
    "\"rms_norm_eps\":1e-6,\"initializer_range\":0.05,\"router_aux_loss_coef\":0.02}";
/* Latent attention with heads of 192 and values of 128. */
#define DEEPSEEK                                                                                   \
    "{\"hidden_size\":128,\"num_hidden_layers\":2,"                                                \
    "\"num_attention_heads\":4,\"num_key_value_heads\":4,\"q_lora_rank\":96,\"kv_lora_rank\":64,"  \
    "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"                         \
    "\"n_routed_experts\":8,\"n_shared_experts\":2,\"num_experts_per_tok\":2,"                     \
    "\"moe_intermediate_size\":128,\"intermediate_size\":320,\"first_k_dense_replace\":1,"         \
    "\"n_group\":4,\"topk_group\":2,"                                                              \
    "\"vocab_size\":512,\"max_position_embeddings\":256,\"rope_theta\":10000.0,"                   \
    "\"rms_norm_eps\":1e-6,\"initializer_range\":0.05,\"aux_loss_alpha\":0.02,\"model_type\":"
static const char deepseek_model[] =
    DEEPSEEK "\"deepseek_v2\",\"topk_method\":\"group_limited_greedy\"}";
/* Its router chooses with a bias, of f32 beside weights of bf16, that each step moves; and a layer
 * predicts a token further. */
static const char v3_model[] = DEEPSEEK "\"deepseek_v3\",\"num_nextn_predict_layers\":1}";
static const char llama_model[] =
    "{\"model_type\":\"llama\",\"hidden_size\":36,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":6,\"num_key_value_heads\":2,\"intermediate_size\":50,"
    "\"vocab_size\":99,\"max_position_embeddings\":256,\"rope_theta\":10000.0,"
    "\"rms_norm_eps\":1e-5,\"initializer_range\":0.1,\"tie_word_embeddings\":true}";
/* For what chooses kernels by size. */
static const char wide_model[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":1024,\"num_hidden_layers\":1,\"num_attention_"
    "heads\":8,"
    "\"num_key_value_heads\":1,\"head_dim\":128,\"num_local_experts\":16,\"num_experts_per_tok\":4,"
    "\"intermediate_size\":256,\"vocab_size\":8192,\"max_position_embeddings\":2048,"
    "\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,\"initializer_range\":0.03,"
    "\"tie_word_embeddings\":false,\"router_aux_loss_coef\":0.02,\"hidden_act\":\"silu\"}";

struct made { /* a trainer and the world it lives in */
    struct trainer t;
    struct world *world;
};

/* state: of what type gradients and moments are; with bf16 weights are their own masters. */
static struct trainer_options options_of(int64_t seq, const char *device, const char *type,
                                         const char *state)
{
    return (struct trainer_options){.device = device,
                                    .type = type,
                                    .grads = state,
                                    .optim.name = "adamw",
                                    .optim.moments = state,
                                    .optim.master = strcmp(state, "bf16") ? "f32" : "none",
                                    .loss = "nll",
                                    .further = 0.3,
                                    .batch = 4,
                                    .micro = 2,
                                    .seq = seq,
                                    .optim.decay = 0.1,
                                    .aux = -1,
                                    .z = 1e-3,
                                    .threads = opt_threads(),
                                    .optim.plan = {.lr = 1e-3,
                                                   .floor = 0.1,
                                                   .warmup = 5,
                                                   .steps = 200,
                                                   .beta1 = 0.9,
                                                   .beta2 = 0.95,
                                                   .eps = 1e-8,
                                                   .clip = 1}};
}

static struct config config_of(const char *model)
{
    struct config c;
    config_parse(&c, model, strlen(model), "the test's model");
    return c;
}

static void make_config(struct made *m, struct config c, int64_t seq, const char *device,
                        const char *type, const char *state)
{
    struct trainer_options o = options_of(seq, device, type, state);
    struct mesh mesh;
    o.optim.balance = c.sigmoid ? 1e-3 : 0;
    m->world = world_self();
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    trainer_init(&m->t, m->world, &mesh, &c, &o);
    model_random(&m->t.model, 1);
    optim_fill_master(&m->t.optim);
}

static void make(struct made *m, const char *model, int64_t seq, const char *device,
                 const char *type, const char *state)
{
    make_config(m, config_of(model), seq, device, type, state);
}

static void unmake(struct made *m)
{
    trainer_release(&m->t);
    world_free(m->world);
}

/* Rows of which a part can be learnt: each document counts upwards by a step of its own, but for
 * every third token or so, which is any. */
static void fill_rows(struct trainer *t, int64_t step)
{
    int64_t seq = t->o.seq;
    int32_t *token = xmalloc(seq * sizeof *token), *document = xmalloc(seq * sizeof *document);
    uint8_t *target = xmalloc(seq);
    float *weight = xmalloc(seq * sizeof *weight);
    for (int64_t m = 0; m < t->micros; m++) {
        batch_host_clear(&t->host[m]);
        for (int64_t i = 0; i < t->o.micro; i++) {
            uint64_t key = rng_key((uint64_t)((step * t->micros + m) * t->o.micro + i), "row");
            int64_t d = 0, begun = 0, len = 0, value = 0, by = 1;
            for (int64_t j = 0; j < seq; j++) {
                if (j == begun + len) {
                    begun = j;
                    d += j > 0;
                    len = 3 + (int64_t)(rng_uniform(key, 0, (uint64_t)j) * (double)seq / 2);
                    value =
                        (int64_t)(rng_uniform(key, 1, (uint64_t)j) * (double)t->model.cfg.vocab);
                    by = 1 + d % 3;
                }
                int pad = j >= seq - 5;
                token[j] = pad ? 0 : (int32_t)((value + (j - begun) * by) % t->model.cfg.vocab);
                if (!pad && rng_uniform(key, 2, (uint64_t)j) < 0.35)
                    token[j] =
                        (int32_t)(rng_uniform(key, 3, (uint64_t)j) * (double)t->model.cfg.vocab);
                document[j] = pad ? -1 : (int32_t)d;
                target[j] = !pad && j > begun;
                weight[j] = 1;
            }
            batch_host_row(&t->host[m], i, token, target, document, weight);
        }
    }
    free(token), free(document), free(target), free(weight);
}

/* All gradients of a buffer on the host, as doubles. */
static double *gradients(struct trainer *t, int b, int64_t *n)
{
    enum dtype s = t->model.grad_type;
    *n = t->model.layout.size[b];
    void *raw = xmalloc(*n * dtype_size(s));
    double *g = xmalloc(*n * sizeof *g);
    t->lane.dev->get(&t->lane, raw, t->model.grad[b], *n * dtype_size(s));
    t->lane.dev->wait(&t->lane);
    dtype_convert(g, DT_F64, raw, s, *n);
    free(raw);
    return g;
}

/* Tensor by tensor, the largest difference over the largest gradient; the worst of all. */
static double gradient_distance(struct trainer *a, struct trainer *b)
{
    double worst = 0;
    for (int x = 0; x < BUFFERS_LEARNT; x++) {
        int64_t n;
        double *g = gradients(a, x, &n), *h = gradients(b, x, &n);
        const struct layout *y = &a->model.layout;
        for (int64_t i = 0; i < y->n; i++) {
            const struct local *l = &y->local[i];
            double off = 0, size = 0;
            if (l->buffer != (enum mesh_buffer)x)
                continue;
            for (int64_t j = l->at; j < l->at + l->r.rows * l->r.cols; j++) {
                off = fmax(off, fabs(g[j] - h[j]));
                size = fmax(size, fabs(h[j]));
            }
            worst = fmax(worst, size > 0 ? off / size : off);
        }
        free(g), free(h);
    }
    return worst;
}

static double step_loss(struct trainer *t, int64_t step)
{
    struct step_result r;
    fill_rows(t, step);
    trainer_gradients(t, &r);
    optim_step(&t->optim);
    return r.loss;
}

/* The same as a run does it: captured from the second step of a shape on, one step ahead.  Unless
 * the kernels are deterministic the losses are near. */
static void captured(const char *name, const char *model, int64_t seq, const char *state,
                     int deterministic)
{
    enum { STEPS = 12 };
    struct made one, two;
    double loss[STEPS], most = deterministic ? 0 : 1e-3;
    int same = 1;
    make(&one, model, seq, "cuda", "bf16", state);
    make(&two, model, seq, "cuda", "bf16", state);
    one.t.lane.deterministic = two.t.lane.deterministic = deterministic;
    for (int64_t i = 0; i < STEPS; i++)
        loss[i] = step_loss(&one.t, i);
    for (int64_t i = 0; i <= STEPS; i++) {
        struct step_result r;
        if (i < STEPS) {
            fill_rows(&two.t, i);
            trainer_queue(&two.t);
        }
        if (i) {
            trainer_take(&two.t, &r);
            same &= r.ok && fabs(r.loss - loss[i - 1]) <= most * loss[i - 1];
        }
    }
    ok(same && (!deterministic || gradient_distance(&one.t, &two.t) == 0),
       "%s: twelve captured steps with %s moments give the %s of eager ones", name, state,
       deterministic ? "bits" : "losses");
    int64_t kept = 0;
    for (int64_t i = 0; i < two.t.captures; i++)
        kept += two.t.capture[i].work.nodes > 0;
    ok(kept > 0, "%s: %lld of %lld shapes were captured", name, (long long)kept,
       (long long)two.t.captures);
    unmake(&one);
    unmake(&two);
}

/* What a dry step takes is what one here takes, but for a little scratch of small ops. */
static void memory_known(const char *name, const char *model, int64_t seq, const char *state)
{
    struct trainer_options o = options_of(seq, "cuda", "bf16", state);
    struct world *w = world_self();
    struct trainer t;
    struct mesh mesh;
    struct config c;
    struct dev_memory m;
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    config_parse(&c, model, strlen(model), "the test's model");
    int64_t bytes = trainer_bytes(&mesh, &c, &o), more;
    config_parse(&c, model, strlen(model), "the test's model");
    trainer_init(&t, w, &mesh, &c, &o);
    model_random(&t.model, 1);
    for (int64_t i = 0; i < 3; i++)
        step_loss(&t, i);
    t.lane.dev->memory(&m);
    more = m.peak - bytes;
    ok(more >= 0 && (double)more < 0.02 * (double)o.step_bytes + (4 << 20),
       "%s: a step takes the memory that was foretold (%lld bytes, and %lld more)", name,
       (long long)bytes, (long long)more);
    trainer_release(&t);
    world_free(w);
}

static void against_cpu(const char *name, const char *model, int64_t seq)
{
    struct made cpu, gpu;
    struct step_result a, b;
    double worst = 0;
    make(&cpu, model, seq, "cpu", "f32", "f32");
    make(&gpu, model, seq, "cuda", "f32", "f32");
    fill_rows(&cpu.t, 0);
    fill_rows(&gpu.t, 0);
    trainer_gradients(&cpu.t, &a);
    trainer_gradients(&gpu.t, &b);
    double off = gradient_distance(&gpu.t, &cpu.t);
    ok(off <= 1e-4, "%s: gradients of step 1 in f32 are the CPU's (%.1e)", name, off);
    for (int64_t i = 0; i < 10; i++) {
        double x = step_loss(&cpu.t, i), y = step_loss(&gpu.t, i);
        worst = fmax(worst, fabs(x - y) / fabs(x));
    }
    ok(worst <= 1e-4, "%s: ten losses in f32 are the CPU's (%.1e)", name, worst);
    unmake(&cpu);
    unmake(&gpu);
}

static void against_f32(const char *name, const char *model, int64_t seq, const char *state,
                        double most)
{
    enum { STEPS = 200 };
    struct made f32, bf16;
    double worst = 0, mean = 0, first = 0, last = 0;
    int64_t at = 0;
    make(&f32, model, seq, "cuda", "f32", "f32");
    make(&bf16, model, seq, "cuda", "bf16", state);
    for (int64_t i = 0; i < STEPS; i++) {
        double x = step_loss(&f32.t, i), y = step_loss(&bf16.t, i), off = fabs(x - y) / x;
        first = i ? first : x;
        last = x;
        mean += off / STEPS;
        if (!(off <= worst))
            worst = off, at = i;
    }
    ok(last < 0.95 * first, "%s: there is something to learn (loss %.3f to %.3f)", name, first,
       last);
    ok(worst <= most,
       "%s: %d losses in bf16 with %s moments are those in f32 (mean %.1e, worst %.1e at %lld)",
       name, STEPS, state, mean, worst, (long long)at);
    unmake(&f32);
    unmake(&bf16);
}

static void reruns(const char *name, const char *model, int64_t seq, const char *state)
{
    struct made one, two;
    int same = 1;
    make(&one, model, seq, "cuda", "bf16", state);
    make(&two, model, seq, "cuda", "bf16", state);
    one.t.lane.deterministic = two.t.lane.deterministic = 1;
    for (int64_t i = 0; i < 20; i++) {
        double x = step_loss(&one.t, i), y = step_loss(&two.t, i);
        same &= x == y;
    }
    ok(same && gradient_distance(&one.t, &two.t) == 0,
       "%s: twenty steps again with %s moments give the same bits", name, state);
    unmake(&one);
    unmake(&two);
}

/* ---- scoring and decoding ---- */

enum { DOCS = 70 };

/* Documents of 1 to `most` tokens; answers begin anywhere in them. */
static void draw_docs(struct score_doc *doc, int64_t most, int64_t vocab)
{
    for (int64_t i = 0; i < DOCS; i++) {
        int64_t n = 1 + (int64_t)(rng_uniform(3, (uint64_t)i, 0) * (double)most);
        int64_t answer = (int64_t)(rng_uniform(3, (uint64_t)i, 1) * (double)n);
        int32_t *token = xmalloc(n * sizeof *token);
        uint8_t *target = xmalloc(n);
        for (int64_t j = 0; j < n; j++) {
            token[j] = (int32_t)(rng_uniform(4, (uint64_t)i, (uint64_t)j) * (double)vocab);
            target[j] = j >= answer;
        }
        doc[i] = (struct score_doc){token, target, n};
    }
}

static void free_docs(struct score_doc *doc)
{
    for (int64_t i = 0; i < DOCS; i++)
        free((void *)doc[i].token), free((void *)doc[i].target);
}

static void scores(const char *name, const char *model, int64_t seq, const char *type)
{
    struct made gpu, cpu;
    struct score_doc doc[DOCS], back[DOCS];
    double all[DOCS], one[DOCS], reversed[DOCS], want[DOCS], off = 0, size = 0;
    make(&gpu, model, seq, "cuda", type, "f32");
    make(&cpu, model, seq, "cpu", "f32", "f32");
    draw_docs(doc, seq, gpu.t.model.cfg.vocab);
    for (int64_t i = 0; i < DOCS; i++)
        back[DOCS - 1 - i] = doc[i];
    model_scores(&gpu.t.model, doc, DOCS, all);
    model_scores(&gpu.t.model, back, DOCS, reversed);
    model_scores(&cpu.t.model, doc, DOCS, want);
    int same = 1;
    for (int64_t i = 0; i < DOCS; i++) {
        model_scores(&gpu.t.model, doc + i, 1, one + i);
        same &= one[i] == all[i] && reversed[DOCS - 1 - i] == all[i];
        off = fmax(off, fabs(all[i] - want[i]));
        size = fmax(size, fabs(want[i]));
    }
    ok(same, "%s, %s: a score has the same bits alone and among %d, first and last", name, type,
       DOCS);
    ok(off <= (strcmp(type, "f32") ? 0.01 : 1e-4) * size, "%s, %s: scores are the CPU's (%.1e)",
       name, type, off / size);
    free_docs(doc);
    unmake(&gpu), unmake(&cpu);
}

/* Tokens `n` long put through a decoder beside `others`, its prompt in one piece and then token by
 * token: logits (n - prompt + 1, V) on the host. */
static void decode(struct model *m, const int32_t *token, int64_t prompt, int64_t n, int64_t others,
                   float *logits)
{
    struct decoder d;
    int64_t v = m->v;
    decoder_init(&d, m, others + 1, n, 0, 1);
    for (int64_t i = 0; i < others; i++)
        decoder_start(&d, token + i % prompt, prompt - i % prompt);
    int64_t slot = decoder_start(&d, token, prompt);
    for (int64_t i = prompt; i <= n; i++) {
        for (int64_t j = 0; j < slot; j++)
            if (i > prompt)
                decoder_push(&d, j, d.slot[j].token);
        decoder_step(&d);
        m->lane->dev->get(m->lane, logits + (i - prompt) * v, d.slot[slot].logits,
                          v * sizeof *logits);
        if (i < n)
            decoder_push(&d, slot, token[i]);
    }
    decoder_release(&d);
}

/* Of the 16 tokens as many may be far off as `strays` says: where two experts are nearly as likely,
 * the roundings of one way of computing in bf16 choose one and those of the other way the other. */
static void decoding(const char *name, struct config c, const char *type, int strays)
{
    enum { N = 40, PROMPT = 25 };
    struct made gpu;
    make_config(&gpu, c, 48, "cuda", type, "f32");
    struct model *m = &gpu.t.model;
    int64_t v = m->v, n = (N - PROMPT + 1) * v;
    int32_t token[N], document[48], padded[48] = {0}, row[N];
    uint8_t target[48];
    float weight[48], *alone = xmalloc(n * sizeof *alone), *beside = xmalloc(n * sizeof *alone);
    double *whole = xmalloc(N * v * sizeof *whole), off[2] = {0}, size = 0;
    int far = 0; /* tokens */
    for (int64_t i = 0; i < 48; i++) {
        document[i] = i < N ? 0 : -1;
        target[i] = weight[i] = 1;
        if (i < N)
            padded[i] = token[i] = (int32_t)(rng_uniform(9, 0, (uint64_t)i) * (double)v),
            row[i] = (int32_t)i;
    }
    for (int64_t i = 0; i < gpu.t.micros; i++) {
        batch_host_clear(&gpu.t.host[i]);
        for (int64_t j = 0; j < gpu.t.o.micro; j++)
            batch_host_row(&gpu.t.host[i], j, padded, target, document, weight);
    }
    struct step_result r;
    trainer_gradients(&gpu.t, &r); /* which leaves the rows on the device */
    model_logits(m, &gpu.t.batch[0], row, N, whole);
    decode(m, token, PROMPT, N, 0, alone);
    decode(m, token, PROMPT, N, 20, beside);
    for (int64_t i = 0; i < n; i++)
        size = fmax(size, fabs(whole[(PROMPT - 1) * v + i]));
    double most = strcmp(type, "f32") ? 0.03 : 1e-4;
    for (int64_t i = 0; i < n; i += v) {
        double worst[2] = {0};
        for (int64_t j = i; j < i + v; j++) {
            double want = whole[(PROMPT - 1) * v + j];
            worst[0] = fmax(worst[0], fabs((double)alone[j] - want) / size);
            worst[1] = fmax(worst[1], fabs((double)beside[j] - want) / size);
        }
        far += worst[0] > most || worst[1] > most;
        off[0] = fmax(off[0], worst[0]);
        off[1] = fmax(off[1], worst[1]);
    }
    ok(far <= strays,
       "%s, %s, %lld experts a token: decoding alone and beside 20 gives the logits of one pass, "
       "of "
       "all tokens but %d (%.1e, %.1e)",
       name, type, (long long)c.k, far, off[0], off[1]);
    free(alone), free(beside), free(whole);
    unmake(&gpu);
}

/* As the model chooses; and in bf16 with all experts chosen too, where every token must be near. */
static void decodings(const char *name, const char *model, const char *type)
{
    struct config own = config_of(model),
                  all = config_of(model); /* a trainer takes its config over */
    int coarse = strcmp(type, "f32") && own.experts;
    decoding(name, own, type, coarse);
    all.k = all.experts, all.group_limit = all.expert_groups;
    if (coarse)
        decoding(name, all, type, 0);
    else
        config_release(&all);
}

int main(void)
{
    const char *why = dev_missing("cuda");
    if (why) {
        skip("training, scoring and decoding on a GPU are those on the CPU", why);
        return finish();
    }
    against_cpu("odd sizes", odd_model, 48);
    against_cpu("whole tiles", whole_model, 256);
    against_cpu("Qwen3-MoE", qwen3_model, 256);
    against_cpu("OLMoE", olmoe_model, 256);
    against_cpu("Qwen2-MoE", qwen2_model, 256);
    against_cpu("Llama", llama_model, 48);
    against_cpu("DeepSeek-V2", deepseek_model, 256);
    against_cpu("DeepSeek-V3", v3_model, 256);
    reruns("odd sizes", odd_model, 48, "f32");
    reruns("odd sizes", odd_model, 48, "bf16");
    reruns("whole tiles", whole_model, 256, "f32");
    reruns("whole tiles", whole_model, 256, "bf16");
    reruns("Qwen3-MoE", qwen3_model, 256, "f32");
    reruns("OLMoE", olmoe_model, 256, "f32");
    reruns("Qwen2-MoE", qwen2_model, 256, "bf16");
    reruns("DeepSeek-V2", deepseek_model, 256, "bf16");
    reruns("DeepSeek-V3", v3_model, 256, "bf16");
    captured("odd sizes", odd_model, 48, "f32", 1);
    captured("whole tiles", whole_model, 256, "f32", 1);
    captured("whole tiles", whole_model, 256, "bf16", 1);
    captured("whole tiles", whole_model, 256, "bf16", 0);
    captured("Qwen2-MoE", qwen2_model, 256, "bf16", 1);
    captured("DeepSeek-V2", deepseek_model, 256, "bf16", 1);
    captured("DeepSeek-V3", v3_model, 256, "bf16", 1);
    memory_known("whole tiles", whole_model, 2048, "bf16");
    memory_known("Qwen3-MoE", qwen3_model, 2048, "f32");
    memory_known("DeepSeek-V2", deepseek_model, 2048, "bf16");
    memory_known("DeepSeek-V3", v3_model, 2048, "bf16");
    against_f32("odd sizes", odd_model, 48, "f32", 0.005);
    against_f32("odd sizes", odd_model, 48, "bf16", 0.01);
    against_f32("whole tiles", whole_model, 256, "f32", 0.005);
    against_f32("whole tiles", whole_model, 256, "bf16", 0.01);
    against_f32("Qwen3-MoE", qwen3_model, 256, "f32", 0.005);
    against_f32("OLMoE", olmoe_model, 256, "f32", 0.005);
    against_f32("Qwen2-MoE", qwen2_model, 256, "f32", 0.005);
    against_f32("DeepSeek-V2", deepseek_model, 256, "f32", 0.005);
    against_f32("DeepSeek-V3", v3_model, 256, "f32", 0.005);
    against_f32("DeepSeek-V3", v3_model, 256, "bf16", 0.01);
    for (int i = 0; i < 2; i++) {
        const char *type = i ? "bf16" : "f32";
        scores("odd sizes", odd_model, 48, type);
        scores("whole tiles", whole_model, 256, type);
        scores("wide", wide_model, 2048, type);
        scores("Qwen2-MoE", qwen2_model, 256, type);
        decodings("odd sizes", odd_model, type);
        decodings("whole tiles", whole_model, type);
        decodings("wide", wide_model, type);
        decodings("Qwen3-MoE", qwen3_model, type);
        decodings("OLMoE", olmoe_model, type);
        decodings("Qwen2-MoE", qwen2_model, type);
        decodings("Llama", llama_model, type);
        decodings("DeepSeek-V2", deepseek_model, type);
        decodings("DeepSeek-V3", v3_model, type);
    }
    return finish();
}
