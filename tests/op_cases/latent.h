/* latent.h -- cases: what latent attention does with heads between its products. */
struct latent_case {
    struct run *r;
    int64_t n, cv; /* the part that turns, or that all share; the width of values */
    int64_t ld;    /* of rows of what all share */
    double *y;     /* what a loss is taken of */
    double *b, *shared, *weight;
};

static struct latent_case latent_case(struct run *r)
{
    int64_t c = r->s->c;
    return (struct latent_case){r, MAX(2, c / 4 * 2), MAX(1, c * 2 / 3), MAX(2, c / 4 * 2) + 3};
}

/* Variant 1: back. */
static void case_turn_pairs(struct run *r)
{
    const struct shape *s = r->s;
    struct latent_case x = latent_case(r);
    int64_t wide = s->h * s->c;
    const int32_t *position = draw_int(r, s->t, 0, 4000);
    double *freq = draw_stat(r, x.n / 2, 0.01, 1);
    void *y = inout(r, "y", s->t * wide);
    r->bytes = 2.0 * (double)(s->t * s->h * x.n) * real_bytes(r);
    double size = r->variant ? 1 : 1.25;
    RUN(r, turn_pairs, y, position, freq, s->t, s->h, s->c, x.n, size, (int)r->variant);
    if (!stating(r))
        return;
    const double *was = last_output(r)->start;
    double *want = work(r, s->t * wide);
    for (int64_t i = 0; i < s->t * wide; i++) {
        int64_t at = i % s->c - (s->c - x.n), pair = at & ~1;
        want[i] = was[i];
        if (at < 0)
            continue;
        double angle = position[i / wide] * freq[pair / 2] * (r->variant ? -1 : 1);
        want[i] = size * (at == pair ? was[i] * cos(angle) - was[i + 1] * sin(angle)
                                     : was[i] * cos(angle) + was[i - 1] * sin(angle));
    }
    expect(r, "y", want);
}

static void case_join_heads(struct run *r)
{
    const struct shape *s = r->s;
    struct latent_case x = latent_case(r);
    int64_t own = s->c - x.n, wide = s->h * (s->c + x.cv);
    x.b = draw(r, s->t * s->h * (own + x.cv), -1, 1);
    x.shared = draw(r, s->t * x.ld, -1, 1);
    void *kv = output(r, "kv", s->t * wide);
    r->bytes = 2.0 * (double)(s->t * wide) * real_bytes(r);
    RUN(r, join_heads, kv, x.b, x.shared, s->t, s->h, s->c, x.cv, x.n, x.ld);
    if (!stating(r))
        return;
    double *want = work(r, s->t * wide);
    for (int64_t t = 0; t < s->t; t++)
        for (int64_t h = 0; h < s->h; h++) {
            const double *b = x.b + (t * s->h + h) * (own + x.cv);
            for (int64_t j = 0; j < s->c; j++)
                want[t * wide + h * s->c + j] = j < own ? b[j] : x.shared[t * x.ld + j - own];
            for (int64_t j = 0; j < x.cv; j++)
                want[t * wide + s->h * s->c + h * x.cv + j] = b[own + j];
        }
    expect(r, "kv", want);
}

static double join_loss(void *arg) /* <weight, join_heads(b, shared)> */
{
    struct latent_case *x = arg;
    const struct shape *s = x->r->s;
    x->r->op->join_heads(x->r->l, x->y, x->b, x->shared, s->t, s->h, s->c, x->cv, x->n, x->ld);
    double sum = 0;
    for (int64_t i = 0; i < s->t * s->h * (s->c + x->cv); i++)
        sum += x->y[i] * x->weight[i];
    return sum;
}

static void case_part_heads(struct run *r)
{
    const struct shape *s = r->s;
    struct latent_case x = latent_case(r);
    int64_t own = s->c - x.n, wide = s->h * (s->c + x.cv), n = s->t * s->h * (own + x.cv);
    x.weight = draw(r, s->t * wide, -1, 1);
    double *db = output(r, "db", n), *dshared = output(r, "dshared", s->t * x.ld);
    only_columns(r, x.n, x.ld);
    r->bytes = 2.0 * (double)(s->t * wide) * real_bytes(r);
    RUN(r, part_heads, db, dshared, x.weight, s->t, s->h, s->c, x.cv, x.n, x.ld);
    if (!stating(r))
        return;
    x.y = work(r, s->t * wide), x.b = work(r, n), x.shared = work(r, s->t * x.ld);
    differ(r, db, x.b, n, join_loss, &x);
    double *dense = work(r, s->t * x.ld); /* 0 in the gaps, whose values nobody reads */
    for (int64_t i = 0; i < s->t * x.ld; i++)
        dense[i] = i % x.ld < x.n ? dshared[i] : 0;
    differ(r, dense, x.shared, s->t * x.ld, join_loss, &x);
}
