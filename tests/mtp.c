/* mtp.c -- layers that predict further tokens, against mtp_golden.py: logits of every head, both
 * losses and every gradient of packed documents with weights and masks, which the reference sees
 * one by one. */
#include "tap.h"
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 2, SEQ = 24, V = 32 };
static struct shard_file *golden;

/* A tensor of the golden file as doubles; caller frees. */
static double *wanted(const char *name, int64_t *n)
{
    const struct tensor *t = blob_find(shard_header(golden), name);
    if (!t)
        die("the golden file has no %s", name);
    *n = t->bytes / dtype_size(t->type);
    double *x = xmalloc(*n * sizeof *x);
    void *raw = xmalloc(t->bytes);
    shard_read(golden, t, raw);
    dtype_convert(x, DT_F64, raw, t->type, *n);
    free(raw);
    return x;
}

static void raw(const char *name, void *to)
{
    shard_read(golden, blob_find(shard_header(golden), name), to);
}

/* max|a-b| / max|b| */
static double difference(const double *a, const double *b, int64_t n)
{
    double d = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        d = isfinite(a[i] - b[i]) ? fmax(d, fabs(a[i] - b[i])) : INFINITY;
        most = fmax(most, fabs(b[i]));
    }
    return d > 0 ? d / most : d;
}

static struct trainer *trainer_new(struct world *w, const char *type, int64_t micro,
                                   const char *loss, double weight)
{
    struct trainer *t = xcalloc(1, sizeof *t);
    struct trainer_options o = {.device = "cpu",
                                .type = type,
                                .optim.name = "sgd",
                                .loss = loss,
                                .batch = ROWS,
                                .micro = micro,
                                .seq = SEQ,
                                .aux = -1,
                                .further = weight,
                                .threads = 2};
    struct buf text = read_file("tests/golden/mtp/deepseek_v3.json");
    struct mesh mesh;
    struct config c;
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    config_parse(&c, text.data, text.len, "the golden model");
    trainer_init(t, w, &mesh, &c, &o);
    buf_release(&text);
    return t;
}

static void trainer_done(struct trainer *t)
{
    trainer_release(t);
    free(t);
}

static void fill(struct trainer *t)
{
    static int32_t token[ROWS][SEQ], document[ROWS][SEQ];
    static uint8_t target[ROWS][SEQ];
    static float weight[ROWS][SEQ];
    raw("tokens", token), raw("document", document), raw("target", target), raw("weight", weight);
    for (int64_t i = 0; i < ROWS; i++) {
        struct batch_host *h = &t->host[i / t->o.micro];
        if (i % t->o.micro == 0)
            batch_host_clear(h);
        batch_host_row(h, i % t->o.micro, token[i], target[i], document[i], weight[i]);
    }
    for (int64_t i = 0; i < t->model.layout.n; i++) {
        const struct local *l = &t->model.layout.local[i];
        int64_t n;
        double *x = wanted(l->p->name, &n);
        if (n != l->r.rows * l->r.cols)
            die("%s has %lld elements", l->p->name, (long long)n);
        dtype_convert(model_weight(&t->model, l), t->model.op->real, x, DT_F64, n);
        free(x);
    }
}

static void compare(struct world *w, const char *type, int64_t micro, double most)
{
    struct trainer *t = trainer_new(w, type, micro, "nll", 0.3);
    struct model *m = &t->model;
    struct step_result r;
    int64_t n, layers = 0;
    double worst = 0, *loss = wanted("loss", &n), *mtp = wanted("mtp", &n);
    const char *where = "";
    fill(t);
    trainer_gradients(t, &r);
    ok(fabs(r.loss - *loss) <= most && fabs(r.further - *mtp) <= most,
       "%s, %lld rows at once: the losses (off by %.1e, of further tokens by %.1e)", type,
       (long long)micro, fabs(r.loss - *loss), fabs(r.further - *mtp));
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        char *name = xasprintf("grad/%s", l->p->name);
        double *want = wanted(name, &n), *got = xcalloc(n, sizeof *got);
        if (m->grad[l->buffer])
            dtype_convert(got, DT_F64,
                          (char *)m->grad[l->buffer] + l->at * dtype_size(m->grad_type),
                          m->grad_type, n);
        double off = difference(got, want, n);
        layers += l->p->role == P_JOIN;
        if (!(off <= worst))
            worst = off, where = l->p->name;
        free(name), free(want), free(got);
    }
    ok(worst <= most && layers == 2, "%s, %lld rows at once: %lld gradients (worst %.1e, %s)", type,
       (long long)micro, (long long)m->layout.n, worst, where);
    trainer_done(t);
    free(loss), free(mtp);
}

static void forward(struct task_context *t, enum segment s)
{
    segment_run[s][PASS_FORWARD](t);
    arena_reset(&t->l->scratch);
}

static void forward_layer(struct task_context *t)
{
    struct layer_segments s = layer_segments(t->m, t->layer);
    for (int64_t i = 0; i < s.n; i++)
        forward(t, s.list[i]);
}

/* Logits where the head at that index predicts something; 0 elsewhere, as in the golden file. */
static double *logits(struct task_context *t, int64_t head)
{
    const double *x = saved_fetch(&t->s[head], SLOT_X), *norm = t->m->at[head].w[P_NORM];
    const double *w = t->m->at[head].w[P_HEAD];
    double *out = xcalloc(ROWS * SEQ * V, sizeof *out);
    int64_t d = t->m->cfg.d;
    for (int64_t i = 0; i < ROWS * SEQ; i++, x += d) {
        double square = 0;
        for (int64_t j = 0; j < d; j++)
            square += x[j] * x[j] / (double)d;
        for (int64_t v = 0; v < V && t->b->group[i] >= 0; v++)
            for (int64_t j = 0; j < d; j++)
                out[i * V + v] += x[j] / sqrt(square + t->m->cfg.eps) * norm[j] * w[v * d + j];
    }
    return out;
}

static void test_logits(struct world *w)
{
    struct trainer *t = trainer_new(w, "f64", ROWS, "nll", 0.3);
    struct model *m = &t->model;
    struct step_result r;
    fill(t);
    trainer_gradients(t, &r); /* which lays the batches out */
    struct task_context c = {.m = m, .l = &t->lane, .b = &t->batch[0], .s = t->saved};
    forward(&c, SEG_EMBED);
    for (; c.layer < m->layers; c.layer++)
        forward_layer(&c);
    for (int64_t k = 0; k <= m->further; k++) {
        int64_t n, head = m->layers + 2 * k;
        if (k) {
            c.b = &t->further[k - 1];
            c.layer = (int)head - 1;
            forward(&c, SEG_JOIN);
            forward_layer(&c);
        }
        char *name = xasprintf("logits/%lld", (long long)k);
        double *want = wanted(name, &n), *got = logits(&c, head), off = difference(got, want, n);
        ok(n == ROWS * SEQ * V && off <= 1e-9, "logits of what is %lld tokens on (%.1e)",
           (long long)k + 1, off);
        free(name), free(want), free(got);
    }
    for (int64_t i = 0; i < model_slots(m); i++)
        saved_clear(&t->saved[i]);
    trainer_done(t);
}

/* A weight of 0, and losses that are not of tokens alone, leave the layers out. */
static void test_left_out(struct world *w)
{
    static const struct {
        const char *loss;
        double weight;
    } runs[] = {{"nll", 0}, {"dpo", 0.3}};
    for (int64_t i = 0; i < ARRAY_LEN(runs); i++) {
        struct trainer *t = trainer_new(w, "f64", ROWS, runs[i].loss, runs[i].weight);
        int64_t n = 0;
        for (int64_t j = 0; j < t->model.params; j++)
            n += t->model.param[j].layer >= t->model.cfg.layers;
        ok(n == 0 && t->model.further == 0 && model_slots(&t->model) == 3,
           "%s with weight %g: without these layers", runs[i].loss, runs[i].weight);
        trainer_done(t);
    }
}

int main(void)
{
    struct world *w = world_self();
    golden = shard_open("tests/golden/mtp/deepseek_v3.safetensors");
    compare(w, "f64", 2, 1e-9);
    compare(w, "f64", 1, 1e-9);
    compare(w, "f32", 2, 1e-4);
    test_logits(w);
    test_left_out(w);
    shard_close(golden);
    world_free(w);
    return finish();
}
