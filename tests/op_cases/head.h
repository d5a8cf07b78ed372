/* head.h -- cases: log-probabilities of labels and their loss. */
struct head_data {
    double *logits, *dlogp;
    int32_t *label;
    int64_t t, v, v0;
    enum dtype type; /* of the logits */
};

/* Logits of the statistics' type or, coarse, of the activations'. */
static struct head_data draw_head(struct run *r, int coarse)
{
    int64_t t = r->bench ? r->s->t / 4 : r->s->t, v = r->s->v, v0 = 3;
    enum dtype type = coarse ? r->op->real : r->op->stat;
    double *logits = coarse ? draw(r, t * v, -4, 4) : draw_stat(r, t * v, -4, 4);
    struct head_data h = {logits, NULL, draw_int(r, t, -1, v + 6), t, v, v0, type};
    if (r->bench)
        h.label = draw_int(r, t, v0, v + v0);
    for (int64_t i = 0; !r->bench && i < t;
         i++) /* one token in three far from 0, and what bf16 holds */
        for (int64_t j = 0; i % 3 == 1 && j < v; j++)
            set(h.logits, type, i * v + j,
                coarse ? 4 * get(h.logits, type, i * v + j) : 60 + get(h.logits, type, i * v + j));
    r->bytes = (double)(t * v * dtype_size(type));
    return h;
}

/* lse of row i less its maximum, which keeps large logits from overflowing. */
static double row_lse(const struct head_data *h, int64_t i, double *max)
{
    double sum = 0;
    *max = -INFINITY;
    for (int64_t j = 0; j < h->v; j++)
        *max = fmax(*max, h->logits[i * h->v + j]);
    for (int64_t j = 0; j < h->v; j++)
        sum += exp(h->logits[i * h->v + j] - *max);
    return log(sum);
}
static int has_label(const struct head_data *h, int64_t i)
{
    return h->label[i] >= h->v0 && h->label[i] < h->v0 + h->v;
}

static void case_lse_part(struct run *r)
{
    struct head_data h = draw_head(r, r->variant);
    double *part = output_stat(r, "part", h.t * 3);
    RUN(r, lse_part, part, mat(h.logits, h.type, h.t, h.v), h.label, h.v0);
    if (!stating(r))
        return;
    double *want = work(r, h.t * 3);
    for (int64_t i = 0; i < h.t; i++) {
        want[i * 3 + 1] = exp(row_lse(&h, i, &want[i * 3]));
        want[i * 3 + 2] = has_label(&h, i) ? h.logits[i * h.v + h.label[i] - h.v0] : 0;
    }
    expect(r, "part", want);
}

static void case_lse_join(struct run *r) /* two ranks hold the halves; variant 1: one holds all */
{
    struct head_data h = draw_head(r, 0);
    int64_t t = h.t, p = r->variant ? 1 : 3, n = h.v / 2;
    enum dtype type = r->op->stat;
    void *half[2] = {run_take(r, t * h.v * 8), run_take(r, t * h.v * 8)};
    for (int64_t i = 0; !r->bench && i < t * h.v; i++) {
        int64_t row = i / h.v, col = i % h.v, cols = col < n ? n : h.v - n;
        set(half[col >= n], type, row * cols + (col < n ? col : col - n), get(h.logits, type, i));
    }
    char *part = run_take(r, 3 * t * 3 * 8);
    int64_t bytes = t * 3 * dtype_size(type);
    r->op->lse_part(r->l, part, mat(r->variant ? h.logits : half[0], type, t, r->variant ? h.v : n),
                    h.label, h.v0);
    if (!r->variant) { /* the third rank holds no row at all */
        r->op->lse_part(r->l, part + bytes, mat(half[1], type, t, h.v - n), h.label, h.v0 + n);
        r->op->lse_part(r->l, part + 2 * bytes, mat(half[1], type, t, 0), h.label, h.v0 + h.v);
    }
    void *logp = output_stat(r, "logp", t), *lse = output_stat(r, "lse", t);
    r->bytes = (double)((3 * p + 2) * t) * stat_bytes(r);
    RUN(r, lse_join, logp, lse, part, h.label, t, p);
    if (!stating(r))
        return;
    double *want = work(r, t), *want_lse = work(r, t);
    for (int64_t i = 0; i < t; i++) {
        double max, rest = row_lse(&h, i, &max);
        double logit = has_label(&h, i) ? h.logits[i * h.v + h.label[i] - h.v0] : 0;
        want_lse[i] = max + rest;
        want[i] = h.label[i] < 0 ? 0 : logit - max - rest;
    }
    expect(r, "logp", want);
    expect(r, "lse", want_lse);
}

static double head_loss(void *arg) /* <dlogp, logp>, less the label's logit where it is elsewhere */
{
    const struct head_data *h = arg;
    double sum = 0, max;
    for (int64_t i = 0; i < h->t; i++)
        if (h->label[i] >= 0) {
            double rest = row_lse(h, i, &max);
            sum +=
                h->dlogp[i] *
                ((has_label(h, i) ? h->logits[i * h->v + h->label[i] - h->v0] - max : -max) - rest);
        }
    return sum;
}

static void case_logits_dgrad(struct run *r) /* variant 1: in place */
{
    struct head_data h = draw_head(r, r->variant);
    struct mat logits = mat(h.logits, h.type, h.t, h.v);
    enum dtype type = r->op->stat;
    h.dlogp = draw_stat(r, h.t, -1, 1);
    void *part = run_take(r, h.t * 3 * 8), *logp = run_take(r, h.t * 8),
         *lse = run_take(r, h.t * 8);
    for (int64_t i = 0; i < h.t; i += 4)
        set(h.dlogp, type, i, 0);
    r->op->lse_part(r->l, part, logits, h.label, h.v0);
    r->op->lse_join(r->l, logp, lse, part, h.label, h.t, 1);
    struct mat dlogits = mat(output(r, "dlogits", h.t * h.v), r->op->real, h.t, h.v);
    if (r->variant) {
        r->l->dev->copy(r->l, dlogits.data, logits.data, h.t * h.v * dtype_size(h.type));
        logits = dlogits;
    }
    r->bytes += (double)(h.t * h.v) * real_bytes(r);
    RUN(r, logits_dgrad, dlogits, logits, lse, h.dlogp, h.label, h.v0);
    if (stating(r))
        differ(r, dlogits.data, h.logits, h.t * h.v, head_loss, &h);
}

static void case_nll_dgrad(struct run *r)
{
    int64_t t = r->s->t;
    const double *weight = draw_stat(r, t, 0, 2), *denom = draw_stat(r, 1, 3, 4);
    void *dlogp = output_stat(r, "dlogp", t);
    r->bytes = 2.0 * (double)t * stat_bytes(r);
    RUN(r, nll_dgrad, dlogp, weight, denom, t);
    if (!stating(r))
        return;
    double *want = work(r, t);
    for (int64_t i = 0; i < t; i++)
        want[i] = -weight[i] / *denom;
    expect(r, "dlogp", want);
}

static void case_nll_loss(struct run *r)
{
    int64_t t = r->s->t;
    const double *weight = draw_stat(r, t, 0, 2), *logp = draw_stat(r, t, -9, 0);
    void *loss = inout_stat(r, "loss", 1);
    r->bytes = 2.0 * (double)t * stat_bytes(r);
    RUN(r, nll_loss, loss, weight, logp, t);
    if (!stating(r))
        return;
    double want = last_output(r)->start[0] - dot(weight, 1, logp, 1, t);
    expect(r, "loss", &want);
}
