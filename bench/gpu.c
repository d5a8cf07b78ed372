/* gpu.c -- how fast a training step, and the ops that carry it, are on a GPU at a model's true
 * width.
 *
 *   gpu qwen3-30b-a3b-4l | mixtral8x7b-2l | olmoe-8l | qwen2-57b-a14b-2l | llama3-8b-4l [bf16]
 *   mpirun -n 2 gpu olmoe [f32 [TP CP PP ETP EP [DISPATCH [ROWS]]]]
 *   gpu olmoe f32 TP CP PP ETP EP auto 2 2  rank 0 of 2 alone: what calls between ranks cost is the
 *                                           difference, since here they are local copies
 *
 * Random tokens, rows of 4096 in one document each, 16,384 tokens a step; of several GPUs, or with
 * a mapping, ROWS (2) rows a GPU, two at a time or, in stages of a pipeline, one.  Unless a mapping
 * is given the experts are dealt to the GPUs.  f32 gradients, moments and
 * master weights (18 bytes a parameter); with "bf16" these are bf16 and weights are their own
 * masters (8 bytes), as the peer has it on one GPU.  Operations are counted as bench/torch_peer.py
 * of the peer does: 6 x active matrix parameters a token (head in, embedding out) and causal
 * attention.  One JSON object a line. */
#include "bench.h"

#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* config.json as published, with fewer layers. */
static const struct shape {
    const char *name, *config;
} shapes[] = {
    {"qwen3-30b-a3b-4l",
     "{\"model_type\":\"qwen3_moe\",\"hidden_size\":2048,\"num_hidden_layers\":4,"
     "\"num_attention_heads\":32,\"num_key_value_heads\":4,\"head_dim\":128,\"num_experts\":128,"
     "\"num_experts_per_tok\":8,\"moe_intermediate_size\":768,\"norm_topk_prob\":true,"
     "\"vocab_size\":151936,\"max_position_embeddings\":40960,\"rope_theta\":1000000.0,"
     "\"rms_norm_eps\":1e-6,\"router_aux_loss_coef\":0.001}"},
    {"mixtral8x7b-2l",
     "{\"model_type\":\"mixtral\",\"hidden_size\":4096,\"num_hidden_layers\":2,"
     "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"num_local_experts\":8,"
     "\"num_experts_per_tok\":2,\"intermediate_size\":14336,\"vocab_size\":32000,"
     "\"max_position_embeddings\":32768,\"rope_theta\":1000000.0,\"rms_norm_eps\":1e-5,"
     "\"router_aux_loss_coef\":0.02}"},
    {"olmoe-8l", "{\"model_type\":\"olmoe\",\"hidden_size\":2048,\"num_hidden_layers\":8,"
                 "\"num_attention_heads\":16,\"num_key_value_heads\":16,\"num_experts\":64,"
                 "\"num_experts_per_tok\":8,\"intermediate_size\":1024,\"norm_topk_prob\":false,"
                 "\"vocab_size\":50304,\"max_position_embeddings\":4096,\"rope_theta\":10000.0,"
                 "\"rms_norm_eps\":1e-5,\"router_aux_loss_coef\":0.01}"},
    {"qwen2-57b-a14b-2l",
     "{\"model_type\":\"qwen2_moe\",\"hidden_size\":3584,\"num_hidden_layers\":2,"
     "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"num_experts\":64,"
     "\"num_experts_per_tok\":8,\"moe_intermediate_size\":2560,\"norm_topk_prob\":false,"
     "\"shared_expert_intermediate_size\":20480,\"vocab_size\":151936,"
     "\"max_position_embeddings\":131072,\"rope_theta\":1000000.0,\"rms_norm_eps\":1e-6,"
     "\"router_aux_loss_coef\":0.001}"},
    {"llama3-8b-4l",
     "{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":4,"
     "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"intermediate_size\":14336,"
     "\"vocab_size\":128256,\"max_position_embeddings\":8192,\"rope_theta\":500000.0,"
     "\"rms_norm_eps\":1e-5}"},
    {"deepseek-v2-lite-4l",
     "{\"model_type\":\"deepseek_v2\",\"hidden_size\":2048,\"num_hidden_layers\":4,"
     "\"num_attention_heads\":16,\"num_key_value_heads\":16,\"q_lora_rank\":null,"
     "\"kv_lora_rank\":512,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,"
     "\"v_head_dim\":128,\"n_routed_experts\":64,\"n_shared_experts\":2,"
     "\"num_experts_per_tok\":6,\"moe_intermediate_size\":1408,\"intermediate_size\":10944,"
     "\"first_k_dense_replace\":1,\"n_group\":1,\"topk_group\":1,\"topk_method\":\"greedy\","
     "\"norm_topk_prob\":false,\"routed_scaling_factor\":1.0,\"aux_loss_alpha\":0.001,"
     "\"vocab_size\":102400,\"max_position_embeddings\":4096,\"rope_theta\":10000.0,"
     "\"rms_norm_eps\":1e-6}"},
    {"olmoe", "{\"model_type\":\"olmoe\",\"hidden_size\":2048,\"num_hidden_layers\":16,"
              "\"num_attention_heads\":16,\"num_key_value_heads\":16,\"num_experts\":64,"
              "\"num_experts_per_tok\":8,\"intermediate_size\":1024,\"norm_topk_prob\":false,"
              "\"vocab_size\":50304,\"max_position_embeddings\":4096,\"rope_theta\":10000.0,"
              "\"rms_norm_eps\":1e-5,\"router_aux_loss_coef\":0.01}"},
};

static int64_t needed; /* bytes of memory, as was computed beforehand */

enum { SEQ = 4096, WARM = 3, TIMED = 8 };

static int first = 1;                      /* this rank prints */
static int64_t rows_each = 4, at_once = 4; /* rows a GPU, of a step and of a micro-batch */

static void make_trainer(struct trainer *t, struct world *w, const struct shape *s,
                         const char *state, const int *map /* TP CP PP ETP EP */,
                         const char *dispatch)
{
    int n = world_size(w);
    struct trainer_options o = {.device = "cuda",
                                .type = "bf16",
                                .grads = state,
                                .optim.name = "adamw",
                                .optim.moments = state,
                                .optim.master = strcmp(state, "bf16") ? "f32" : "none",
                                .loss = "nll",
                                .dispatch = dispatch,
                                .batch = rows_each * n,
                                .micro = map[2] > 1 ? 1 : at_once * map[0] * map[1],
                                .seq = SEQ,
                                .optim.decay = 0.1,
                                .aux = -1,
                                .z = -1,
                                .threads = 1,
                                .optim.plan = {.lr = 1e-5,
                                               .floor = 1,
                                               .warmup = 0,
                                               .steps = 1000,
                                               .beta1 = 0.9,
                                               .beta2 = 0.95,
                                               .eps = 1e-8,
                                               .clip = 1}};
    struct mesh mesh;
    struct config c;
    const char *why = mesh_init(&mesh, n, world_rank(w), map[0], map[1], map[2], map[3], map[4]);
    if (why)
        die_misused("this mapping does not fit %d ranks: %s", n, why);
    config_parse(&c, s->config, strlen(s->config), s->name);
    needed = trainer_bytes(&mesh, &c, &o);
    config_parse(&c, s->config, strlen(s->config), s->name);
    trainer_init(t, w, &mesh, &c, &o);
}

static void fill_rows(struct trainer *t, uint64_t step)
{
    int32_t *token = xmalloc(SEQ * sizeof *token), *document = xcalloc(SEQ, sizeof *document);
    uint8_t *target = xmalloc(SEQ);
    float *weight = xmalloc(SEQ * sizeof *weight);
    for (int64_t m = 0; m < t->micros; m++) {
        batch_host_clear(&t->host[m]);
        for (int64_t i = 0; i < t->o.micro; i++) {
            uint64_t row = (uint64_t)((m * t->mesh.dp + t->mesh.i_dp) * t->o.micro + i);
            for (int64_t j = 0; j < SEQ; j++) {
                token[j] =
                    (int32_t)(rng_uniform(step, row, (uint64_t)j) * (double)t->model.cfg.vocab);
                target[j] = 1;
                weight[j] = 1;
            }
            batch_host_row(&t->host[m], i, token, target, document, weight);
        }
    }
    free(token), free(document), free(target), free(weight);
}

static void bench_step(struct trainer *t, const struct shape *s, const char *state)
{
    double eager[TIMED], gradients[TIMED], whole[TIMED], loss = 0;
    const struct dev_ops *dev = t->lane.dev;
    struct step_result r;
    const struct config *c = &t->model.cfg;
    int64_t q = c->heads * c->c, kv = c->groups * c->c;
    int64_t width = c->experts ? c->k * c->f + c->f_shared : c->f_dense;
    double active = (double)c->layers * (double)(c->d * (q + 2 * kv) + q * c->d +
                                                 c->d * c->experts + 3 * c->d * width) +
                    (double)(c->d * c->vocab);
    double tokens = (double)t->o.batch * SEQ, ranks = t->mesh.world;
    double flops =
        (6 * active + 6.0 * (double)(c->layers * SEQ * q)) * tokens / ranks; /* a GPU's */
    for (int64_t i = -WARM; i < TIMED; i++) {
        fill_rows(t, (uint64_t)(i + WARM));
        dev->wait(&t->lane);
        double begun = clock_s();
        trainer_gradients(t, &r);
        dev->wait(&t->lane);
        double between = clock_s();
        optim_step(&t->optim);
        dev->wait(&t->lane);
        if (i >= 0) {
            gradients[i] = between - begun;
            eager[i] = clock_s() - begun;
        }
    }
    /* as a run does it: captured, and always one step ahead */
    for (int64_t i = -WARM; i <= TIMED; i++) {
        if (i < TIMED) {
            fill_rows(t, (uint64_t)(i + WARM));
            trainer_queue(t);
        }
        if (i > -WARM) {
            trainer_take(t, &r);
            loss = r.loss;
            if (i > 0)
                whole[i - 1] = r.seconds;
        }
    }
    double launch = 0;
    long long nodes = t->captures ? (long long)t->capture[0].work.nodes : 0;
    if (nodes) {
        double begun = clock_s();
        dev->replay(&t->lane, &t->capture[0].work);
        launch = clock_s() - begun;
    }
    struct dev_memory memory;
    dev->memory(&memory);
    dev->wait(&t->lane);
    double step = median(whole, TIMED), fb = median(gradients, TIMED);
    if (first)
        printf("{\"model\":\"%s\",\"ours\":1,\"state\":\"%s\",\"tokens\":%.0f,\"step_ms\":%.1f,"
               "\"gpus\":%.0f,\"tokens_per_s_per_gpu\":%.0f,"
               "\"fwdbwd_ms\":%.1f,\"TFLOPs\":%.1f,\"TFLOPs_fwdbwd\":%.1f,\"loss\":%.4f,"
               "\"eager_ms\":%.1f,\"nodes\":%lld,\"launch_ms\":%.2f,\"peak_GiB\":%.2f,\"needed_"
               "GiB\":%."
               "2f}\n",
               s->name, state, tokens, step * 1e3, ranks, tokens / step / ranks, fb * 1e3,
               flops / step * 1e-12, flops / fb * 1e-12, loss, median(eager, TIMED) * 1e3, nodes,
               launch * 1e3, (double)memory.peak / (1 << 30), (double)needed / (1 << 30));
    fflush(stdout);
}

/* Which segment of a step takes how long, each waited for. */
static void bench_segments(struct trainer *t)
{
    double spent[SEGMENTS][PASSES] = {0};
    struct model *m = &t->model;
    for (int round = 0; round < 2; round++)
        for (int64_t i = 0; i < t->schedule.n; i++) {
            const struct task *k = &t->schedule.task[i];
            struct task_context c = {
                .m = m, .l = &t->lane, .b = &t->batch[0], .s = t->saved, .layer = k->layer};
            t->lane.dev->wait(&t->lane);
            double begun = clock_s();
            segment_run[k->segment][k->pass](&c);
            t->lane.dev->wait(&t->lane);
            if (round)
                spent[k->segment][k->pass] += clock_s() - begun;
            arena_reset(&t->lane.scratch);
            if (k->last_of_micro)
                for (int64_t l = 0; l <= m->layers; l++)
                    saved_clear(&t->saved[l]);
        }
    for (int s = 0; s < SEGMENTS; s++)
        for (int p = 0; p < PASSES; p++)
            if (first && spent[s][p] > 0)
                printf("{\"segment\":\"%s\",\"pass\":\"%s\",\"ms\":%.3f}\n", segment_name[s],
                       (const char *[]){"forward", "dgrad", "wgrad"}[p], spent[s][p] * 1e3);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const struct shape *s = shapes;
    tool_name = "bench/gpu";
    for (int64_t i = 0; argc > 1 && i < ARRAY_LEN(shapes); i++)
        if (!strcmp(argv[1], shapes[i].name))
            s = &shapes[i];
    if (dev_missing("cuda")) {
        printf("bench/gpu: skipped: %s\n", dev_missing("cuda"));
        return 0;
    }
    struct world *w = world_open(120);
    if (argc > 10) { /* rank 0 of so many */
        world_free(w);
        w = world_dry(0, atoi(argv[10]));
    }
    if (argc > 3 || world_size(w) > 1)
        rows_each = at_once = 2;
    if (argc > 9)
        rows_each = atoi(argv[9]);
    first = world_rank(w) == 0;
    struct trainer t;
    const char *state = argc > 2 ? argv[2] : "f32";
    int map[5] = {1, 1, 1, 1, world_size(w)};
    for (int i = 0; i < 5 && argc > 3 + i; i++)
        map[i] = atoi(argv[3 + i]);
    make_trainer(&t, w, s, state, map, argc > 8 ? argv[8] : "auto");
    fill_weights(&t.model);
    optim_fill_master(&t.optim);
    bench_step(&t, s, state);
    if (t.micros == 1)
        bench_segments(&t);
    trainer_release(&t);
    world_free(w);
    return 0;
}
