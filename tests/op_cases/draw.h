/* draw.h -- case: tokens drawn from rows of logits. */

/* Variants: the whole distribution; cut by top-p; the likeliest; many logits equal, and cut; a cut
 * to one token, mostly. */
static const struct {
    double temperature, top_p, grain;
} draws[] = {{1, 1, 0}, {0.7, 0.8, 0}, {0, 1, 1}, {1.5, 0.6, 1}, {0.3, 0.05, 0}};
enum { DRAWS = ARRAY_LEN(draws) };

/* Whether j comes before i where the likelier come first. */
static int likelier(const double *x, int64_t j, int64_t i)
{
    return x[j] > x[i] || (x[j] == x[i] && j < i);
}

/* By the list's words: the token whose stretch of the probabilities of those kept holds u. */
static double draw_naive(const double *x, int64_t v, double u, double temperature, double top_p)
{
    double sum = 0, kept = 0, best = -INFINITY;
    int64_t likeliest = 0, last = 0;
    for (int64_t i = 0; i < v; i++) {
        best = MAX(best, x[i]);
        likeliest = likelier(x, i, likeliest) ? i : likeliest;
    }
    if (temperature == 0)
        return (double)likeliest;
    double *p = xmalloc((size_t)v * sizeof *p), *before = xcalloc((size_t)v, sizeof *before);
    for (int64_t i = 0; i < v; i++)
        sum += p[i] = exp((x[i] - best) / temperature);
    for (int64_t i = 0; i < v; i++) {
        for (int64_t j = 0; j < v; j++)
            before[i] += (top_p < 1 ? likelier(x, j, i) : j < i) ? p[j] : 0;
        kept += top_p >= 1 || before[i] < top_p * sum ? p[i] : 0;
    }
    for (int64_t i = 0; i < v; i++)
        if (before[i] < u * kept && u * kept <= before[i] + p[i])
            last = i;
    free(p), free(before);
    return (double)last;
}

static void case_draw(struct run *r)
{
    int64_t t = r->s->t, v = r->s->v;
    double temperature = draws[r->variant].temperature, top_p = draws[r->variant].top_p;
    void *logits = draw_stat(r, t * v, -5, 5);
    for (int64_t i = 0; draws[r->variant].grain > 0 && i < t * v; i++)
        set(logits, r->op->stat, i, floor(get(logits, r->op->stat, i)));
    double *u = run_take(r, t * 8);
    for (int64_t i = 0; i < t; i++)
        u[i] = rng_uniform(7, 1, (uint64_t)i);
    int32_t *token = output_int(r, "token", t);
    r->bytes = (double)(t * v) * 4;
    RUN(r, draw, token, logits, u, t, v, temperature, top_p);
    if (!stating(r))
        return;
    double *want = work(r, t);
    for (int64_t i = 0; i < t; i++)
        want[i] = draw_naive((const double *)logits + i * v, v, u[i], temperature, top_p);
    expect(r, "token", want);
}
