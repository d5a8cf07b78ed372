/* optim.h -- cases: gradient norm, the decision to commit, the updates. */
static int64_t shard_length(const struct run *r)
{
    return r->s->t * r->s->d * (r->bench ? 4 : 3);
}

static void case_sum_squares(struct run *r)
{
    int64_t n = shard_length(r);
    enum dtype type = r->variant ? r->op->real : r->op->stat;
    const double *g = draw_of_type(r, type, n, -1, 1, r->coarse);
    void *sum = inout_stat(r, "sum", 1);
    r->bytes = (double)(n * dtype_size(type));
    RUN(r, sum_squares, sum, mat(g, type, 1, n));
    if (!stating(r))
        return;
    double want = last_output(r)->start[0] + dot(g, 1, g, 1, n);
    expect(r, "sum", &want);
}

/* What the state becomes, variant by variant: a step in the warm-up that clips, one after it that
 * does not, the end of the plan and beyond, `bad`, a sum that is no number, an infinite one. */
static const struct control {
    double count, sum, bad, warmup, clip;
    double want[STEP_STATE]; /* of a plan of 30 steps, lr 1, floor 0.25, betas 0.5 and 0.75 */
} controls[] = {
    {2, 16, 0, 10, 2, {3, 4, 0.5, 1, 0.3, 0.875, 0.578125}},
    {19, 16, 0, 10, 5, {20, 4, 1, 1, 0.625, 1 - 0x1p-20, 1 - 3486784401 * 0x1p-40}},
    {29, 9, 0, 10, 0, {30, 3, 1, 1, 0.25, 1 - 0x1p-30, 1 - 205891132094649 * 0x1p-60}},
    {39, 9, 0, 0, 0, {40, 3, 1, 1, 0.25, 1 - 0x1p-40, 1 - 12157665459056928801.0 * 0x1p-80}},
    {2, 16, 1, 10, 2, {2, 4, 9, 0, 9, 9, 9}},
    {2, NAN, 0, 10, 2, {2, NAN, 9, 0, 9, 9, 9}},
    {2, INFINITY, 0, 10, 2, {2, INFINITY, 9, 0, 9, 9, 9}},
};

static void case_step_control(struct run *r)
{
    const struct control *c = &controls[r->variant];
    struct step_plan plan = {1, 0.25, c->warmup, 30, 0.5, 0.75, 1e-8, c->clip};
    enum dtype type = r->op->stat;
    void *state = draw_stat(r, STEP_STATE, 9, 9), *sum = draw_stat(r, 1, 0, 0),
         *bad = draw_stat(r, 1, 0, 0);
    set(state, type, STEP_COUNT, c->count);
    set(sum, type, 0, c->sum);
    set(bad, type, 0, c->bad);
    output_of(r, "state", type, state, STEP_STATE);
    last_output(r)->live = work(r, STEP_STATE);
    for (int64_t i = 0; i < STEP_STATE; i++) /* a norm that is no number is checked apart */
        last_output(r)->live[i] = isfinite(c->sum) || i == STEP_OK;
    RUN(r, step_control, state, sum, bad, &plan);
    last_output(r)->start[STEP_NORM] = get(state, type, STEP_NORM);
    if (stating(r))
        expect(r, "state", c->want);
}

struct update_data {
    int64_t n, run[5];
    double decay[4], *g, *w, *master, *m, *v, *state;
    struct step_plan plan;
};

/* Four runs, one of them empty, of a shard.  Variant 0: w is its own master; 1: it is not; 2: the
 * step does not commit. */
static struct update_data draw_update(struct run *r)
{
    int64_t n = shard_length(r);
    struct update_data u = {n, {0, n / 3, n / 3, n / 3 + 1, n}, {0.1, 9, 0, 0.2}};
    u.plan = (struct step_plan){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6};
    u.g = draw_stat(r, n, -1, 1);
    u.state = draw_stat(r, STEP_STATE, 0.3, 0.8);
    set(u.state, r->op->stat, STEP_OK, r->variant != 2);
    u.w = u.master = inout(r, "w", n);
    if (r->variant == 1) {
        u.master = inout_stat(r, "master", n);
    } else if (r->op->real != r->op->stat) { /* w cannot be its own: a master of the same values */
        u.master = draw_stat(r, n, -1, 1);
        for (int64_t i = 0; !r->bench && i < n; i++)
            set(u.master, r->op->stat, i, get(u.w, r->op->real, i));
    }
    return u;
}

static void update_expect(struct run *r, const struct update_data *u, int adam)
{
    const char *name = r->variant == 1 ? "master" : "w";
    double *w = work(r, u->n), *m = work(r, u->n), *v = work(r, u->n);
    memcpy(w, output_named(r, name)->start, (size_t)u->n * 8);
    memcpy(m, output_named(r, adam ? "m" : name)->start, (size_t)u->n * 8);
    memcpy(v, output_named(r, adam ? "v" : name)->start, (size_t)u->n * 8);
    for (int64_t i = 0; r->variant != 2 && i < u->n; i++) {
        double decay = u->decay[i < u->run[1] ? 0 : i < u->run[3] ? 2 : 3];
        double g = u->g[i] * u->state[STEP_SCALE], step = g;
        if (adam) {
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            step = m[i] / u->state[STEP_BIAS1] / (sqrt(v[i] / u->state[STEP_BIAS2]) + 1e-6);
        }
        w[i] = w[i] - u->state[STEP_LR] * (decay * w[i] + step);
    }
    expect(r, "w", w);
    expect(r, name, w);
    if (adam) {
        expect(r, "m", m);
        expect(r, "v", v);
    }
}

static void case_adamw(struct run *r)
{
    struct update_data u = draw_update(r);
    u.m = inout_stat(r, "m", u.n);
    u.v = draw_stat(r, u.n, 0.1, 1);
    output_of(r, "v", r->op->stat, u.v, u.n);
    r->bytes = (double)u.n * (7 * stat_bytes(r) + (u.w != u.master) * real_bytes(r));
    RUN(r, adamw, u.w, u.master, u.m, u.v, u.g, u.run, u.decay, 4, u.state, &u.plan);
    if (stating(r))
        update_expect(r, &u, 1);
}

static void case_sgd(struct run *r)
{
    struct update_data u = draw_update(r);
    r->bytes = (double)u.n * (3 * stat_bytes(r) + (u.w != u.master) * real_bytes(r));
    RUN(r, sgd, u.w, u.master, u.g, u.run, u.decay, 4, u.state);
    if (stating(r))
        update_expect(r, &u, 0);
}
