/* transformers.c -- the whole model against transformers: losses, gradients, logits, what routers
 * choose, greedy decoding (tests/hf_golden.py wrote what it said); and how --balance moves choices.
 */
#include "trainers.h"

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
    test_balance(w);
    world_free(w);
    return finish();
}
