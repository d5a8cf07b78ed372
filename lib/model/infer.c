/* infer.c -- forward without backward: nothing is kept beyond the layer that needs it. */
#include "model/model_priv.h"

#include <stdlib.h>

/* Embed to the last layer; leaves the task at what comes after, its input in the last of s. */
static struct task_context forward(struct model *m, struct batch *b, struct saved *s)
{
    struct task_context t = {.m = m, .l = m->lane, .b = b, .s = s};
    for (int64_t i = 0; i <= m->layers; i++)
        s[i].heap = &m->lane->heap;
    embed_forward(&t);
    for (t.layer = 0; t.layer < m->layers; t.layer++) {
        struct layer_segments layer = layer_segments(m, t.layer);
        for (int64_t i = 0; i < layer.n; i++) {
            segment_run[layer.list[i]][PASS_FORWARD](&t);
            arena_reset(&m->lane->scratch);
        }
        saved_clear(&s[t.layer]);
    }
    return t;
}

/* n statistics of the device as doubles on the host. */
static void get_stats(struct model *m, double *to, const void *from, int64_t n)
{
    void *host = xmalloc(n * stat_size(m));
    m->lane->dev->get(m->lane, host, from, n * stat_size(m));
    m->lane->dev->wait(m->lane);
    dtype_convert(to, DT_F64, host, m->op->stat, n);
    free(host);
}

void model_logits_there(struct model *m, struct batch *b, const int32_t *row, int64_t n,
                        void *logits)
{
    struct saved *s = xcalloc(m->layers + 1, sizeof *s);
    struct task_context t = forward(m, b, s);
    int64_t d = m->cfg.d;
    void *hidden = head_hidden(&t, scratch(&t, b->t * stat_size(m))); /* R (T,D) */
    if (n && n < b->t) {
        void *picked = scratch(&t, n * d * real_size(m)); /* R (n,D) */
        m->op->gather_rows(m->lane, real_mat(m, picked, n, d), real_mat(m, hidden, b->t, d), row);
        hidden = picked;
    }
    m->op->gemm(m->lane, stat_mat(m, logits, n, m->v), real_mat(m, hidden, n, d),
                real_mat(m, weights(&t)->w[P_HEAD], m->v, d), 0, 1, 0);
    arena_reset(&m->lane->scratch);
    saved_clear(&s[m->layers]);
    free(s);
}

void model_logits(struct model *m, struct batch *b, const int32_t *token_row, int64_t n,
                  double *logits)
{
    struct lane *l = m->lane;
    int32_t *row = lane_alloc(l, n * sizeof *row, "logits");
    void *out = lane_alloc(l, n * m->v * stat_size(m), "logits"); /* S (n,V) */
    l->dev->put(l, row, token_row, n * sizeof *row);
    model_logits_there(m, b, row, n, out);
    get_stats(m, logits, out, n * m->v);
    l->dev->free(row), l->dev->free(out);
}

void model_outputs(struct model *m, struct batch *b, double *out)
{
    struct saved *s = xcalloc(m->layers + 1, sizeof *s);
    struct task_context t = forward(m, b, s);
    segment_run[m->cfg.reward ? SEG_SCORE : SEG_HEAD][PASS_FORWARD](&t);
    get_stats(m, out, b->logp, b->t);
    arena_reset(&m->lane->scratch);
    saved_clear(&s[m->layers]);
    free(s);
}

void model_open(struct model *m, struct lane *lane, struct world *w, struct ckpt *k,
                const char *device, const char *type, int64_t threads)
{
    struct config cfg;
    struct mesh mesh;
    const struct op *op = op_open(device, type);
    mesh_init(&mesh, 1, 0, 1, 1, 1, 1, 1);
    ckpt_config(k, &cfg);
    cfg.further = 0;
    lane_init(lane, dev_open(device), threads ? threads : opt_threads());
    model_init(m, &cfg, &mesh, w, lane, op);
    model_load(m, k, -1);
}
