/* optim.h -- cases: gradient norm, the decision to commit, the updates. */
static int64_t shard_length(const struct run *r)
{
    int64_t n = r->s->t * r->s->d * 3;
    return r->bench ? r->s->t * r->s->d * 4 : n % 2 ? n : (n + 7) / 8 * 8; /* both accesses */
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
 * does not, the end of the plan and beyond, a loss that is
 * no number, a sum that is no number, an infinite one. */
static const struct control {
    double count, sum, loss, warmup, clip;
    double want[STEP_STATE]; /* of a plan of 30 steps, lr 1, floor 0.25, betas 0.5 and 0.75 */
} controls[] = {
    {2, 16, 0, 10, 2, {3, 4, 0.5, 1, 0.3, 0.875, 0.578125}},
    {19, 16, 0, 10, 5, {20, 4, 1, 1, 0.625, 1 - 0x1p-20, 1 - 3486784401 * 0x1p-40}},
    {29, 9, 0, 10, 0, {30, 3, 1, 1, 0.25, 1 - 0x1p-30, 1 - 205891132094649 * 0x1p-60}},
    {39, 9, 0, 0, 0, {40, 3, 1, 1, 0.25, 1 - 0x1p-40, 1 - 12157665459056928801.0 * 0x1p-80}},
    {2, 16, NAN, 10, 2, {2, 4, 9, 0, 9, 9, 9}},
    {2, NAN, 0, 10, 2, {2, NAN, 9, 0, 9, 9, 9}},
    {2, INFINITY, 0, 10, 2, {2, INFINITY, 9, 0, 9, 9, 9}},
};

static void case_step_control(struct run *r)
{
    const struct control *c = &controls[r->variant];
    struct step_plan plan = {1, 0.25, c->warmup, 30, 0.5, 0.75, 1e-8, c->clip};
    enum dtype type = r->op->stat;
    void *state = draw_stat(r, STEP_STATE, 9, 9), *sum = draw_stat(r, 1, 0, 0),
         *loss = draw_stat(r, 3, 1, 1);
    set(state, type, STEP_COUNT, c->count);
    set(sum, type, 0, c->sum);
    set(loss, type, 1, c->loss);
    output_of(r, "state", type, state, STEP_STATE);
    last_output(r)->live = work(r, STEP_STATE);
    for (int64_t i = 0; i < STEP_STATE; i++) /* a norm that is no number is checked apart */
        last_output(r)->live[i] = isfinite(c->sum) || i == STEP_OK;
    RUN(r, step_control, state, sum, loss, 3, &plan);
    last_output(r)->start[STEP_NORM] = get(state, type, STEP_NORM);
    if (stating(r))
        expect(r, "state", c->want);
}

/* Variants: nothing bad, something bad in a step that commits, in one that does not; bits as of
 * gradients. */
static void case_first_bad(struct run *r)
{
    int64_t n = shard_length(r), third = n / 3;
    enum dtype stat = r->op->stat, type = r->variant & 1 ? r->op->real : stat;
    int what = (int)r->variant / 2;
    void *g = draw_of_type(r, type, n, -1, 1, 0), *state = draw_stat(r, STEP_STATE, 1, 1);
    int32_t *where = output_int(r, "where", 2); /* an int64_t, as its halves */
    set(state, stat, STEP_OK, what == 1);
    for (int64_t i = third; what && n && i < n; i += third + 1)
        set(g, type, i, i == third ? INFINITY : NAN);
    r->bytes = (double)(n * dtype_size(type)) * (what == 2);
    RUN(r, first_bad, (int64_t *)where, mat(g, type, 1, n), state);
    double want[2] = {-1, -1};
    if (what == 2 && n)
        want[0] = (double)third, want[1] = 0;
    if (stating(r))
        expect(r, "where", want);
}

/* Variants of an update. */
enum {
    MOMENTS_BF16 = 1,
    OWN = 2,   /* weights are their own masters: bf16, or of the type that is tested */
    GRADS = 4, /* gradients in R */
    IDLE = 8,  /* the step does not commit */
    UPDATES = 9
};

struct update_data {
    int64_t n;
    struct mat w, master, m, v, g;
    struct stretches *s;
    void *state;
    struct step_plan plan;
};

/* Four stretches of a shard: one empty, one of a slice that is narrower than its tensor. */
static struct stretches *draw_stretches(struct run *r, int64_t n)
{
    int64_t third = r->bench ? n / 24 * 8 : n / 3, off = r->bench ? 0 : 5;
    const struct stretch list[] = {{0, 0.1, 11, off, 9, 9},
                                   {third, 9, 12, 0, 1, 1},
                                   {third, 0, 13, 24, 16, 48},
                                   {third * 2, 0.2, 14, off, 7, 7},
                                   {n, 0, 0, 0, 0, 0}};
    struct stretches *s = run_take(r, sizeof *s);
    int64_t blocks = (n + STRETCH_BLOCK - 1) / STRETCH_BLOCK;
    s->stretch = run_take(r, sizeof list);
    memcpy(s->stretch, list, sizeof list);
    s->n = 4;
    s->of_block = run_take(r, blocks * 4);
    for (int64_t i = 0; i < blocks; i++)
        while (s->stretch[s->of_block[i] + 1].at <= i * STRETCH_BLOCK)
            s->of_block[i]++;
    return s;
}

/* An operand that is read and written; one of bf16 is rounded by chance, on the CPU as well. */
static struct mat updated(struct run *r, const char *name, enum dtype type, int64_t n, double lo,
                          double hi, int coarse)
{
    int chance = type == DT_BF16;
    void *p = draw_of_type(r, type, n, lo, hi, chance || coarse);
    output_of(r, name, type, p, n);
    last_output(r)->chance = chance;
    return mat(p, type, 1, n);
}

static struct update_data draw_update(struct run *r, int adam)
{
    int64_t n = shard_length(r);
    enum dtype real = r->op->real, stat = r->op->stat,
               weight = r->weight == DT_BF16 ? DT_BF16 : real;
    enum dtype moments = r->variant & MOMENTS_BF16 ? DT_BF16 : stat;
    enum dtype grads = r->variant & GRADS ? real : stat;
    struct update_data u = {.n = n, .s = draw_stretches(r, n)};
    u.plan = (struct step_plan){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6};
    u.g = mat(draw_of_type(r, grads, n, -1, 1, r->coarse && r->variant & GRADS), grads, 1, n);
    u.state = draw_stat(r, STEP_STATE, 0.3, 0.8);
    set(u.state, stat, STEP_OK, !(r->variant & IDLE));
    set(u.state, stat, STEP_COUNT, 7);
    if (r->variant & OWN) {
        u.master = u.w = updated(r, "w", weight, n, -1, 1, r->coarse);
    } else {
        u.w = updated(r, "w", real, n, -1, 1, r->coarse);
        last_output(r)->chance = 0;
        u.master = updated(r, "master", stat, n, -1, 1, 0);
    }
    if (adam) {
        u.m = updated(r, "m", moments, n, -1, 1, 0);
        u.v = updated(r, "v", moments, n, 0.1, 1, 0);
    }
    r->bytes = (double)n * (double)(dtype_size(grads) + 2 * dtype_size(u.master.type) +
                                    (r->variant & OWN ? 0 : dtype_size(real)) +
                                    (adam ? 4 * dtype_size(moments) : 0));
    return u;
}

/* What is rounded by chance, by the words of op.h. */
static void round_by_chance(const struct update_data *u, struct mat x, int array, double *want)
{
    const struct stretch *s = u->s->stretch;
    for (int64_t i = 0; x.type == DT_BF16 && i < u->n; i++) {
        uint32_t bits[4];
        while (s[1].at <= i)
            s++;
        int64_t from = i - s->at, e = s->first + from / s->cols * s->ld + from % s->cols;
        rng_bits(bits, s->key, (uint64_t)(4 * 7 + array), (uint64_t)(e / 8));
        uint16_t y = rng_round_bf16((float)want[i], bits[e % 8 / 2] >> (e % 2 ? 16 : 0));
        want[i] = get(&y, DT_BF16, 0);
    }
}

static double *start_of(struct run *r, const char *name, int64_t n)
{
    return memcpy(work(r, n), output_named(r, name)->start, (size_t)n * 8);
}

static void update_expect(struct run *r, const struct update_data *u, int adam)
{
    const char *master = r->variant & OWN ? "w" : "master";
    const double *state = u->state;
    double *w = start_of(r, master, u->n), *m = NULL, *v = NULL;
    if (adam)
        m = start_of(r, "m", u->n), v = start_of(r, "v", u->n);
    const struct stretch *s = u->s->stretch;
    for (int64_t i = 0; !(r->variant & IDLE) && i < u->n; i++) {
        while (s[1].at <= i)
            s++;
        double g = get(u->g.data, u->g.type, i) * state[STEP_SCALE], step = g;
        if (adam) {
            m[i] = 0.9 * m[i] + (1 - 0.9) * g;
            v[i] = 0.95 * v[i] + (1 - 0.95) * g * g;
            step = m[i] / state[STEP_BIAS1] / (sqrt(v[i] / state[STEP_BIAS2]) + 1e-6);
        }
        w[i] = w[i] - state[STEP_LR] * (s->decay * w[i] + step);
    }
    if (!(r->variant & IDLE)) {
        round_by_chance(u, u->master, DRAW_WEIGHT, w);
        if (adam) {
            round_by_chance(u, u->m, DRAW_M, m);
            round_by_chance(u, u->v, DRAW_V, v);
        }
    }
    if (r->variant & IDLE)
        memcpy(w, output_named(r, "w")->start, (size_t)u->n * 8);
    expect(r, "w", w);
    if (!(r->variant & (IDLE | OWN)))
        expect(r, master, w);
    if (adam) {
        expect(r, "m", m);
        expect(r, "v", v);
    }
}

static void case_adamw(struct run *r)
{
    struct update_data u = draw_update(r, 1);
    RUN(r, adamw, u.w, u.master, u.m, u.v, u.g, u.s, u.state, &u.plan);
    if (stating(r))
        update_expect(r, &u, 1);
}

static void case_sgd(struct run *r)
{
    struct update_data u = draw_update(r, 0);
    RUN(r, sgd, u.w, u.master, u.g, u.s, u.state);
    if (stating(r))
        update_expect(r, &u, 0);
}
