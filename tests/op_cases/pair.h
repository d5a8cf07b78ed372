/* pair.h -- cases: the losses on pairs of documents. */

struct pair_data {
    int64_t t, spans;
    double *out, *weight, *base, *margin, *denom; /* of the run's type */
    int32_t *q_at, *chosen;
    double beta;
};

/* Spans of mixed lengths, empty ones among them; every third begins a pair. */
static struct pair_data draw_pairs(struct run *r)
{
    struct pair_data p = {.t = r->s->t, .beta = 0.7};
    int64_t cap = p.t + 3, at = 0;
    p.q_at = run_take(r, (cap + 1) * (int64_t)sizeof *p.q_at);
    p.chosen = run_take(r, cap * (int64_t)sizeof *p.chosen);
    while (at < p.t || p.spans < 2) {
        p.chosen[p.spans] = p.spans % 3 == 0;
        p.q_at[p.spans++] = (int32_t)at;
        at = MIN(p.t, at + 1 + p.spans * 7 % (2 * r->s->span));
    }
    p.q_at[p.spans] = (int32_t)p.t;
    p.chosen[p.spans - 1] = 0;
    p.out = draw_stat(r, p.t, -3, 3);
    p.weight = draw_stat(r, p.t, 0, 1);
    p.base = draw_stat(r, p.spans, -1, 1);
    p.margin = draw_stat(r, p.spans, 0, 1);
    p.denom = draw_stat(r, 1, 3, 4);
    r->bytes = 3.0 * (double)p.t * stat_bytes(r);
    return p;
}

/* The losses over the denominator by the words of op_list.h; right counts the pairs won. */
static double pair_words(void *arg, double *right)
{
    const struct pair_data *p = arg;
    double sum = 0;
    for (int64_t i = 0; i < p->spans; i++) {
        double s[2];
        if (!p->chosen[i])
            continue;
        for (int j = 0; j < 2; j++) {
            s[j] = -p->base[i + j];
            for (int64_t k = p->q_at[i + j]; k < p->q_at[i + j + 1]; k++)
                s[j] += p->weight[k] * p->out[k];
        }
        sum -= log(1 / (1 + exp(-(p->beta * (s[0] - s[1]) - p->margin[i]))));
        if (right)
            *right += s[0] > s[1] ? 1 : s[0] == s[1] ? 0.5 : 0;
    }
    return sum;
}

static double pair_objective(void *arg)
{
    return pair_words(arg, NULL) / *((struct pair_data *)arg)->denom;
}

static void case_pair_dgrad(struct run *r)
{
    struct pair_data p = draw_pairs(r);
    double *dout = output_stat(r, "dout", p.t);
    RUN(r, pair_dgrad, dout, p.out, p.weight, p.q_at, p.chosen, p.base, p.margin, p.denom, p.t,
        p.spans, p.beta);
    if (stating(r))
        differ(r, dout, p.out, p.t, pair_objective, &p);
}

static void case_pair_loss(struct run *r)
{
    struct pair_data p = draw_pairs(r);
    void *loss = inout_stat(r, "loss", 2);
    RUN(r, pair_loss, loss, p.out, p.weight, p.q_at, p.chosen, p.base, p.margin, p.spans, p.beta);
    if (!stating(r))
        return;
    double right = 0, sum = pair_words(&p, &right);
    const double *start = last_output(r)->start;
    expect(r, "loss", (double[]){start[0] + sum, start[1] + right});
}
