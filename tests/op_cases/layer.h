/* layer.h -- timed alone: the MoE layer of a model from router to combine, and its backward.
 *
 * Variant 0 spreads tokens evenly over the experts.  Variant 1 loads them as a real model's were:
 * MOE_ROUTING names a table of tokens an expert (model, data, kind, layer_slot, expert, count, with
 * tabs between), and the most uneven layer in it with as many experts is taken, or two of half as
 * many side by side. */
struct layer {
    struct run *r;
    int64_t n, k, e, d, f, m; /* m: rows of the map */
    void *x, *router, *up, *down, *dup, *ddown;
    void *drawn, *logits, *gate, *prob, *lse, *count_a, *psum; /* drawn: what the router is given */
    void *h, *a, *y, *dy, *dh, *dgate, *dx;
    int32_t *index, *group, *at, *count, *source, *place;
};

/* share (e): of the tokens' choices that go to each expert, of the layer in the table where the
 * fullest has most; 0 when there is none with as many experts. */
static int most_uneven(const char *path, int64_t e, double *share)
{
    FILE *f = fopen(path, "r");
    if (!f)
        die("%s:", path);
    double *load = xcalloc((size_t)e + 1, sizeof *load), total = 0, worst = 0;
    char line[256], layer[4][64] = {"", "", "", ""}, in[4][64] = {"", "", "", ""};
    int64_t experts = 0;
    for (int more = 1; more;) {
        long long x = 0;
        double tokens = 0;
        more = fgets(line, sizeof line, f) != NULL;
        if (more && sscanf(line, "%63[^\t]\t%63[^\t]\t%63[^\t]\t%63[^\t]\t%lld\t%lf", in[0], in[1],
                           in[2], in[3], &x, &tokens) != 6)
            continue;
        if (!more || memcmp(in, layer, sizeof in)) { /* the layer before is complete */
            double most = 0;
            for (int64_t i = 0; i < experts; i++)
                most = fmax(most, load[i]);
            if (experts == e && !strcmp(layer[2], "expert_counts") &&
                most * (double)e / total > worst) {
                worst = most * (double)e / total;
                for (int64_t i = 0; i < e; i++)
                    share[i] = load[i] / total;
            }
            memcpy(layer, in, sizeof in);
            experts = 0;
            total = 0;
        }
        if (more && x < e)
            load[x] = tokens;
        experts = more ? MAX(experts, x + 1) : 0;
        total += tokens;
    }
    fclose(f);
    free(load);
    return worst > 0;
}

/* chance (e): that a token goes to the expert; they add up to k.  0 when there is no table. */
static int chances(const struct layer *x, int real, double *chance)
{
    const char *path = getenv("MOE_ROUTING");
    int64_t e = x->e, half = e / 2;
    for (int64_t i = 0; i < e; i++)
        chance[i] = 1.0 / (double)e;
    if (real && (!path || (!most_uneven(path, e, chance) && !most_uneven(path, half, chance))))
        return 0;
    double sum = 0;
    for (int64_t i = 0; i < half; i++)
        sum += chance[i];
    for (int64_t i = 0; sum > 0.999 && i < half; i++) /* half of the experts: twice */
        chance[half + i] = chance[i] /= 2;
    for (int64_t i = 0; i < e; i++)
        chance[i] *= (double)x->k;
    return 1;
}

/* Logits whose K largest are experts drawn with these chances: a comb of K teeth, one apart, laid
 * at random over the chances end to end, meets an expert as often as its chance says. */
static void draw_logits(struct layer *x, const double *chance)
{
    float *logits = xmalloc((size_t)(x->n * x->e) * sizeof *logits);
    for (int64_t i = 0; i < x->n; i++) {
        double at = 0, tooth = rng_uniform(7, 1, (uint64_t)i);
        for (int64_t j = 0; j < x->e; j++) {
            int64_t e = (j + i) % x->e; /* another order each time, so that any experts meet */
            int met = at + chance[e] > tooth;
            at += chance[e];
            tooth += met;
            logits[i * x->e + e] =
                (float)(rng_uniform(7, 2, (uint64_t)(i * x->e + e)) + (met ? 2 : 0));
        }
    }
    x->r->l->dev->put(x->r->l, x->drawn, logits, x->n * x->e * (int64_t)sizeof *logits);
    x->r->l->dev->wait(x->r->l);
    free(logits);
}

static void layer_forward(struct layer *x)
{
    struct lane *l = x->r->l;
    const struct op *op = x->r->op;
    struct mat logits = mat(x->logits, op->stat, x->n, x->e);
    struct router router = {.k = x->k, .norm = 1, .scale = 1, .groups = 1, .limit = 1};
    op->gemm(l, logits, mat(x->x, op->real, x->n, x->d), mat(x->router, op->real, x->e, x->d), 0, 1,
             0);
    op->route(l, x->index, x->gate, x->prob, x->lse, x->count_a, x->psum, x->drawn, x->group, x->n,
              x->e, x->r->s->a, &router);
    op->row_map(l, x->at, x->count, x->source, x->place, x->index, x->n, x->k, 0, x->e, x->m);
    op->experts_up(l, x->h, x->a, x->x, x->up, x->gate, x->at, x->count, x->source, x->n * x->k,
                   x->e, x->k, x->d, x->f);
    op->experts_down(l, x->y, x->a, x->down, x->at, x->count, x->n * x->k, x->e, x->d, x->f);
    op->gather_sum(l, mat(x->dx, op->real, x->n, x->d), x->x, mat(x->y, op->real, x->m, x->d),
                   x->place, x->k);
}

static void layer_backward(struct layer *x)
{
    struct lane *l = x->r->l;
    const struct op *op = x->r->op;
    op->experts_dh(l, x->dh, x->a, x->dgate, x->dy, x->down, x->h, x->gate, x->at, x->count,
                   x->source, x->n, x->e, x->k, x->d, x->f);
    op->experts_dx(l, x->y, x->dh, x->up, x->at, x->count, x->e, x->d, x->f);
    op->gather_sum(l, mat(x->dx, op->real, x->n, x->d), NULL, mat(x->y, op->real, x->m, x->d),
                   x->place, x->k);
    op->experts_down_wgrad(l, mat(x->ddown, op->stat, x->e * x->d, x->f), x->dy, x->a, x->at,
                           x->count, x->source, x->n * x->k, x->e, x->k, 0, NULL);
    op->experts_up_wgrad(l, mat(x->dup, op->stat, x->e * 2 * x->f, x->d), x->dh, x->x, x->at,
                         x->count, x->source, x->n * x->k, x->e, x->k, 0, NULL);
}

static struct layer draw_layer(struct run *r)
{
    const struct shape *s = r->s;
    struct layer x = {r, s->t, s->k, s->e, s->d, s->f, map_rows(s)};
    int64_t real = dtype_size(r->op->real), stat = dtype_size(r->op->stat);
    x.x = draw(r, x.n * x.d, -1, 1);
    x.dy = draw(r, x.n * x.d, -1, 1);
    x.router = draw(r, x.e * x.d, -0.05, 0.05);
    x.up = draw(r, x.e * 2 * x.f * x.d, -0.05, 0.05);
    x.down = draw(r, x.e * x.d * x.f, -0.05, 0.05);
    x.dup = draw_stat(r, x.e * 2 * x.f * x.d, -1, 1);
    x.ddown = draw_stat(r, x.e * x.d * x.f, -1, 1);
    void **rows[] = {&x.h, &x.a, &x.y, &x.dh};
    int64_t width[] = {2 * x.f, x.f, x.d, 2 * x.f};
    for (int64_t i = 0; i < ARRAY_LEN(rows); i++)
        *rows[i] = run_take(r, x.m * width[i] * real);
    x.dx = run_take(r, x.n * x.d * real);
    void **stats[] = {&x.drawn, &x.logits, &x.prob};
    for (int64_t i = 0; i < ARRAY_LEN(stats); i++)
        *stats[i] = run_take(r, x.n * x.e * stat);
    x.gate = run_take(r, x.n * x.k * stat);
    x.dgate = run_take(r, x.n * x.k * stat);
    x.lse = run_take(r, x.n * stat);
    x.count_a = run_take(r, s->a * x.e * stat);
    x.psum = run_take(r, s->a * x.e * stat);
    x.index = run_take(r, x.n * x.k * 4);
    x.group = run_take(r, x.n * 4);
    x.at = run_take(r, (x.e + 1) * 4);
    x.count = run_take(r, x.e * 4);
    x.source = run_take(r, x.m * 4);
    x.place = run_take(r, x.n * x.k * 4);
    for (int64_t i = 0; i < x.n; i++)
        x.group[i] = (int32_t)(i * s->a / x.n);
    return x;
}

/* flops and bytes stay 0 where there is nothing to time. */
static void case_layer(struct run *r, int backward)
{
    struct layer x = draw_layer(r);
    double *chance = xmalloc((size_t)x.e * sizeof *chance);
    if (chances(&x, (int)r->variant, chance)) {
        draw_logits(&x, chance);
        double rows = (double)(x.n * x.k), weights = 3.0 * (double)(x.e * x.f * x.d);
        double wide = rows * (double)(x.d + 4 * x.f + x.d); /* x, h and a written and read, y */
        r->flops = (backward ? 12 : 6) * rows * (double)(x.d * x.f);
        r->bytes = (wide + weights) * real_bytes(r) * (backward ? 2 : 1) +
                   (backward ? weights * stat_bytes(r) : 0);
        struct bench *bench = r->bench;
        r->bench = NULL; /* not yet: what a backward needs, and clean counts */
        TIMED(r) layer_forward(&x);
        r->bench = bench;
        TIMED(r)(backward ? layer_backward : layer_forward)(&x);
    }
    free(chance);
}
static void case_moe_forward(struct run *r)
{
    case_layer(r, 0);
}
static void case_moe_backward(struct run *r)
{
    case_layer(r, 1);
}
