/* decode.c -- how fast a model answers on a GPU: tokens a second, and how near a step comes to the
 * time in which the bytes that it must read can be copied.
 *
 *   decode [slots ...]      default: 1 8 64
 *
 * The widths of Qwen3-30B-A3B, 24 layers (15 G parameters) of random weights in bf16, prompts of
 * 512 random tokens.  What must be read: attention, router, norms and head, the experts that a
 * step's tokens chose (counted layer by layer), and the keys and values seen.  The ceiling is a
 * copy on the same device, in the same run.  One JSON object a line. */
#include "bench.h"

#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

enum { LAYERS = 24, D = 2048, F = 768, H = 32, G = 4, C = 128, E = 128, K = 8, V = 151936 };
enum { PROMPT = 512, WARM = 4, TIMED = 24 };

static void make_model(struct model *m, struct lane *l, struct world *w)
{
    struct mesh mesh;
    struct config c;
    struct buf b = {0};
    buf_printf(&b,
               "{\"model_type\":\"mixtral\",\"hidden_size\":%d,\"num_hidden_layers\":%d,"
               "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
               "\"num_local_experts\":%d,\"num_experts_per_tok\":%d,\"intermediate_size\":%d,"
               "\"vocab_size\":%d,\"max_position_embeddings\":4096,\"rope_theta\":1000000.0,"
               "\"rms_norm_eps\":1e-6,\"initializer_range\":0.02,\"tie_word_embeddings\":false,"
               "\"router_aux_loss_coef\":0.001,\"hidden_act\":\"silu\"}",
               D, LAYERS, H, G, C, E, K, F, V);
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    config_parse(&c, b.data, b.len, "the benchmark's model");
    lane_init(l, dev_open("cuda"), 1);
    model_init(m, &c, &mesh, w, l, op_open("cuda", "bf16"));
    buf_release(&b);
}

/* Bytes read and written a second. */
static double copy_speed(struct lane *l)
{
    enum { BYTES = 1 << 30, TIMES = 10 };
    double s[TIMES];
    char *a = lane_alloc(l, BYTES, "the copy"), *b = lane_alloc(l, BYTES, "the copy");
    for (int i = 0; i < TIMES; i++) {
        l->dev->wait(l);
        double begun = clock_s();
        l->dev->copy(l, a, b, BYTES);
        l->dev->copy(l, b, a, BYTES);
        l->dev->wait(l);
        s[i] = (clock_s() - begun) / 2;
    }
    l->dev->free(a), l->dev->free(b);
    return 2.0 * BYTES / median(s, TIMES);
}

/* The decoder's last step once more, segment by segment, each waited for: the experts that it
 * touches, over all layers, and where its time goes. */
static int64_t segments(struct decoder *d, double *ms)
{
    struct model *m = d->m;
    struct saved *s = xcalloc(m->layers + 1, sizeof *s);
    struct task_context t = {.m = m, .l = m->lane, .b = &d->batch, .s = s};
    int64_t touched = 0, n = d->batch.t * K;
    int32_t *index = xmalloc(n * sizeof *index);
    for (int64_t i = 0; i <= m->layers; i++)
        s[i].heap = &m->lane->heap;
    segment_run[SEG_EMBED][PASS_FORWARD](&t);
    for (t.layer = 0; t.layer < m->layers; t.layer++) {
        struct layer_segments layer = layer_segments(m, t.layer);
        for (int64_t i = 0; i < layer.n; i++) {
            m->lane->dev->wait(m->lane);
            double begun = clock_s();
            segment_run[layer.list[i]][PASS_FORWARD](&t);
            m->lane->dev->wait(m->lane);
            ms[layer.list[i]] += (clock_s() - begun) * 1e3;
            arena_reset(&m->lane->scratch);
        }
        char seen[E] = {0};
        m->lane->dev->get(m->lane, index, saved_fetch(&s[t.layer], SLOT_INDEX), n * sizeof *index);
        for (int64_t i = 0; i < n; i++) {
            touched += !seen[index[i]];
            seen[index[i]] = 1;
        }
        saved_clear(&s[t.layer]);
    }
    saved_clear(&s[m->layers]);
    free(s), free(index);
    return touched;
}

static void bench(struct model *m, int64_t slots, double copy)
{
    struct decoder d;
    int32_t prompt[PROMPT];
    double s[TIMED], ms[SEGMENTS] = {0}, prefill[2];
    decoder_init(&d, m, slots, PROMPT + WARM + TIMED + 1, 1, 1);
    for (int round = 0; round < 2; round++) { /* the first takes memory and chooses algorithms */
        for (int64_t i = 0; i < slots; i++) {
            for (int64_t j = 0; j < PROMPT; j++)
                prompt[j] = (int32_t)(rng_uniform(3, (uint64_t)i, (uint64_t)j) * V);
            decoder_stop(&d, i);
            decoder_start(&d, prompt, PROMPT);
            d.slot[i].u = 0.5;
        }
        double begun = clock_s();
        for (int64_t left = slots * PROMPT; left > 0; left -= d.batch.t)
            decoder_step(&d);
        prefill[round] = clock_s() - begun;
    }
    for (int64_t i = -WARM; i < TIMED; i++) {
        for (int64_t j = 0; j < slots; j++)
            decoder_push(&d, j, d.slot[j].token);
        double begun = clock_s();
        decoder_step(&d);
        if (i >= 0)
            s[i] = clock_s() - begun;
    }
    segments(&d, ms);
    memset(ms, 0, sizeof ms);
    int64_t touched = segments(&d, ms);
    double begun = clock_s(); /* of the host alone: how long it takes to queue a step */
    model_logits_there(m, &d.batch, NULL, slots, d.logits);
    double queued = clock_s() - begun;
    m->lane->dev->wait(m->lane);
    double step = median(s, TIMED);
    double dense = LAYERS * ((H + 2 * G) * C * D + H * C * D + E * D + 2 * D) + (double)V * D + D;
    double experts = (double)touched * 3 * D * F;
    double cache = (double)LAYERS * (double)slots * (PROMPT + WARM + TIMED / 2) * 2 * G * C;
    double bytes = 2 * (dense + experts + cache);
    printf("{\"slots\":%lld,\"step_ms\":%.3f,\"tokens_per_s\":%.0f,\"experts_per_layer\":%.1f,"
           "\"GB\":%.2f,\"GBps\":%.0f,\"copy_GBps\":%.0f,\"percent\":%.1f,"
           "\"queued_ms\":%.3f,\"prefill_tokens_per_s\":%.0f,\"segments_ms\":{",
           (long long)slots, step * 1e3, (double)slots / step, (double)touched / LAYERS,
           bytes * 1e-9, bytes / step * 1e-9, copy * 1e-9, 100 * bytes / step / copy, queued * 1e3,
           (double)(slots * PROMPT) / prefill[1]);
    const char *comma = "";
    for (int i = 0; i < SEGMENTS; i++)
        if (ms[i] > 0) {
            printf("%s\"%s\":%.3f", comma, segment_name[i], ms[i]);
            comma = ",";
        }
    printf("}}\n");
    fflush(stdout);
    decoder_release(&d);
}

/* Log-probabilities of documents, as reward-score has them made. */
static void bench_scores(struct model *m)
{
    enum { DOCS = 64 };
    struct score_doc doc[DOCS];
    double score[DOCS], s = 0;
    int32_t *token = xmalloc(DOCS * PROMPT * sizeof *token);
    uint8_t *target = xmalloc(PROMPT);
    memset(target, 1, PROMPT);
    for (int64_t i = 0; i < DOCS * PROMPT; i++)
        token[i] = (int32_t)(rng_uniform(5, 0, (uint64_t)i) * V);
    for (int64_t i = 0; i < DOCS; i++)
        doc[i] = (struct score_doc){token + i * PROMPT, target, PROMPT};
    for (int round = 0; round < 2; round++) {
        double begun = clock_s();
        model_scores(m, doc, DOCS, score);
        s = clock_s() - begun;
    }
    printf("{\"documents\":%d,\"score_tokens_per_s\":%.0f}\n", DOCS, DOCS * PROMPT / s);
    free(token), free(target);
}

int main(int argc, char **argv)
{
    static const int64_t usual[] = {1, 8, 64};
    tool_name = "bench/decode";
    if (dev_missing("cuda")) {
        printf("bench/decode: skipped: %s\n", dev_missing("cuda"));
        return 0;
    }
    struct world *w = world_self();
    struct lane l;
    struct model m;
    make_model(&m, &l, w);
    fill_weights(&m);
    double copy = copy_speed(&l);
    for (int64_t i = 0; i < (argc > 1 ? argc - 1 : ARRAY_LEN(usual)); i++)
        bench(&m, argc > 1 ? atoll(argv[i + 1]) : usual[i], copy);
    bench_scores(&m);
    model_release(&m);
    lane_release(&l);
    world_free(w);
    return 0;
}
