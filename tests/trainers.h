/* trainers.h -- a trainer of one rank on a batch that is made up, its loss and its gradients. */
#ifndef TRAINERS_H
#define TRAINERS_H

#include "tap.h"
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Latent attention, with a latent of queries and without; a dense layer before one with experts. */
#define LATENT                                                                                     \
    "{\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                       \
    "\"num_key_value_heads\":4,\"num_experts_per_tok\":2,\"vocab_size\":37,"                       \
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,"                 \
    "\"initializer_range\":0.3,\"aux_loss_alpha\":0.02,\"intermediate_size\":14,"                  \
    "\"moe_intermediate_size\":12,\"n_routed_experts\":4,\"n_shared_experts\":2,"                  \
    "\"first_k_dense_replace\":1,\"kv_lora_rank\":10,\"qk_nope_head_dim\":5,"                      \
    "\"qk_rope_head_dim\":4,\"v_head_dim\":6,\"q_lora_rank\":"
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

#endif
