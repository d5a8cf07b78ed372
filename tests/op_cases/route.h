/* route.h -- cases: the router and the row map. */
struct route_data {
    struct run *r;
    double *logits, *gate, *prob, *lse, *count, *psum, *dgate, *coef;
    int32_t *index, *group;
    struct router x;
};

/* Variant bit 0: gates are normalised.  Bit 1: logits of whole numbers, so that many are equal. Bit
 * 2: nobody asks for the counts.  Bits 3 and on: softmax; the same from the best groups of experts
 * by their best; sigmoids with a bias from the best groups by their two best. */
enum { ROUTERS = 3 };

static struct router draw_router(struct run *r, int64_t variant)
{
    static const struct router kinds[ROUTERS] = {
        {.scale = 1}, {.scale = 16, .best = 1}, {.scale = 2.5, .sigmoid = 1, .best = 2}};
    struct router x = kinds[variant >> 3];
    const struct shape *s = r->s;
    x.k = s->k;
    x.norm = variant & 1;
    x.groups = x.limit = 1;
    for (int64_t g = 2; x.best && g < MIN(s->e, 33); g++) /* as many as leave at least K experts open */
        if (s->e % g == 0 && s->e / g * MAX(1, g / 2) >= s->k)
            x.groups = g, x.limit = MAX(1, g / 2);
    if (x.sigmoid)
        x.bias = draw_stat(r, s->e, -1, 1);
    return x;
}

static struct route_data draw_route(struct run *r, int64_t variant)
{
    const struct shape *s = r->s;
    struct route_data d = {r, .x = draw_router(r, variant)};
    d.logits = draw_stat(r, s->t * s->e, -2, 2);
    for (int64_t i = 0; variant & 2 && i < s->t * s->e; i++)
        set(d.logits, r->op->stat, i, floor(get(d.logits, r->op->stat, i)));
    d.group = draw_int(r, s->t, -1, s->a);
    for (int64_t i = 0; r->bench && i < s->t; i++) /* as in a batch: rows of tokens, no pads */
        d.group[i] = (int32_t)(i * s->a / s->t);
    r->bytes = 2.0 * (double)(s->t * s->e) * stat_bytes(r);
    return d;
}

static void call_route(const struct route_data *d)
{
    const struct shape *s = d->r->s;
    RUN(d->r, route, d->index, d->gate, d->prob, d->lse, d->count, d->psum, d->logits, d->group,
        s->t, s->e, s->a, &d->x);
}

/* How many of n numbers beat number i: greater, or equal and before it. */
static int64_t rank_of(const double *x, int64_t n, int64_t i)
{
    int64_t rank = 0;
    for (int64_t o = 0; o < n; o++)
        rank += x[o] > x[i] || (x[o] == x[i] && o < i);
    return rank;
}

/* A token's index, gate, prob and lse by sorting experts by (prob + bias, lower number), after
 * groups by what their best add up to. */
static void route_naive(const struct route_data *d, int64_t i, double *index, double *gate,
                        double *prob, double *lse, double *score /* (2E) */)
{
    const struct router *x = &d->x;
    int64_t e = d->r->s->e, k = x->k, size = e / x->groups;
    const double *bias = x->bias;
    double sum = 0, chosen = 0, *of_group = score + e;
    memset(of_group, 0, (size_t)e * sizeof *of_group);
    for (int64_t j = 0; j < e; j++)
        sum += exp(d->logits[i * e + j]);
    *lse = x->sigmoid ? 0 : log(sum);
    for (int64_t j = 0; j < e; j++) {
        double logit = d->logits[i * e + j];
        prob[j] = x->sigmoid ? 1 / (1 + exp(-logit)) : exp(logit) / sum;
        score[j] = prob[j] + (bias ? bias[j] : 0);
    }
    for (int64_t j = 0; j < e; j++)
        if (rank_of(score + j / size * size, size, j % size) < x->best)
            of_group[j / size] += score[j];
    for (int64_t j = 0; j < e; j++)
        if (rank_of(of_group, x->groups, j / size) >= x->limit)
            score[j] = -INFINITY;
    for (int64_t j = 0; j < e; j++) {
        int64_t rank = rank_of(score, e, j);
        if (rank < k) {
            index[rank] = (double)j;
            gate[rank] = prob[j];
            chosen += prob[j];
        }
    }
    for (int64_t j = 0; j < k; j++) {
        gate[j] = d->group[i] < 0 ? 0 : (x->norm ? gate[j] / chosen : gate[j]) * x->scale;
        index[j] = d->group[i] < 0 ? -1 : index[j];
    }
}

/* What of an expert's probability is counted. */
static double route_counted(const struct route_data *d, const double *prob, int64_t j)
{
    double sum = 0;
    for (int64_t i = 0; i < d->r->s->e; i++)
        sum += prob[i];
    return d->x.sigmoid ? prob[j] / sum : prob[j];
}

static void case_route(struct run *r)
{
    const struct shape *s = r->s;
    int64_t t = s->t, e = s->e, k = s->k, a = s->a;
    struct route_data d = draw_route(r, r->variant);
    d.index = output_int(r, "index", t * k);
    d.gate = output_stat(r, "gate", t * k);
    d.prob = output_stat(r, "prob", t * e);
    d.lse = output_stat(r, "lse", t);
    int counted = !(r->variant & 4);
    d.count = counted ? output_stat(r, "count", a * e) : NULL;
    d.psum = counted ? output_stat(r, "psum", a * e) : NULL;
    call_route(&d);
    if (!stating(r))
        return;
    double *index = work(r, t * k), *gate = work(r, t * k), *prob = work(r, t * e),
           *lse = work(r, t);
    double *count = work(r, a * e), *psum = work(r, a * e), *score = work(r, 2 * e);
    for (int64_t i = 0; i < t; i++) {
        route_naive(&d, i, index + i * k, gate + i * k, prob + i * e, lse + i, score);
        for (int64_t j = 0; d.group[i] >= 0 && j < k; j++)
            count[d.group[i] * e + (int64_t)index[i * k + j]]++;
        for (int64_t j = 0; d.group[i] >= 0 && j < e; j++)
            psum[d.group[i] * e + j] += route_counted(&d, prob + i * e, j);
    }
    expect(r, "index", index);
    expect(r, "gate", gate);
    expect(r, "prob", prob);
    expect(r, "lse", lse);
    if (!counted)
        return;
    expect(r, "count", count);
    expect(r, "psum", psum);
}

/* What dlogits is the gradient of: <dgate, gate> + aux sum count psum / m + z / 2 sum lse^2. */
static double route_total(void *arg)
{
    struct route_data *d = arg;
    const struct shape *s = d->r->s;
    call_route(d);
    double total = 0;
    for (int64_t i = 0; i < s->t; i++) {
        for (int64_t j = 0; j < s->k; j++)
            total += d->dgate[i * s->k + j] * d->gate[i * s->k + j];
        total += d->group[i] < 0 ? 0 : d->coef[1] / 2 * d->lse[i] * d->lse[i];
    }
    for (int64_t i = 0; i < s->a; i++) {
        double m = 0, sum = 0;
        for (int64_t j = 0; j < s->e; j++) {
            m += d->count[i * s->e + j] / (double)s->k;
            sum += d->count[i * s->e + j] * d->psum[i * s->e + j];
        }
        total += m > 0 ? d->coef[0] * sum / m : 0;
    }
    return total;
}

static void route_memory(struct route_data *d)
{
    struct run *r = d->r;
    const struct shape *s = r->s;
    d->index = run_take(r, s->t * s->k * 4);
    d->gate = run_take(r, s->t * s->k * 8);
    d->prob = run_take(r, s->t * s->e * 8);
    d->lse = run_take(r, s->t * 8);
    d->count = run_take(r, s->a * s->e * 8);
    d->psum = run_take(r, s->a * s->e * 8);
    struct bench *bench = r->bench;
    r->bench = NULL; /* not this one */
    call_route(d);
    r->bench = bench;
}

static void case_route_dgrad(struct run *r)
{
    const struct shape *s = r->s;
    struct route_data d = draw_route(r, (r->variant & 1) | r->variant >> 1 << 3);
    route_memory(&d);
    d.dgate = draw_stat(r, s->t * s->k, -1, 1);
    d.coef = draw_stat(r, 2, 0.1, 0.3);
    double *dlogits = output_stat(r, "dlogits", s->t * s->e);
    RUN(r, route_dgrad, dlogits, d.dgate, d.prob, d.lse, d.index, d.count, d.group, d.coef, s->t,
        s->e, s->a, &d.x);
    if (stating(r))
        differ(r, dlogits, d.logits, s->t * s->e, route_total, &d);
}

static void case_route_loss(struct run *r)
{
    const struct shape *s = r->s;
    struct route_data d = draw_route(r, 0);
    route_memory(&d);
    void *loss = inout_stat(r, "loss", 2);
    r->bytes = (double)s->t * (stat_bytes(r) + 4);
    RUN(r, route_loss, loss, d.count, d.psum, d.lse, d.group, s->t, s->e, s->k, s->a);
    if (!stating(r))
        return;
    double want[2] = {last_output(r)->start[0], last_output(r)->start[1]};
    for (int64_t i = 0; i < s->a; i++) {
        double m = 0;
        for (int64_t j = 0; j < s->t; j++)
            m += d.group[j] == i;
        for (int64_t j = 0; m > 0 && j < s->e; j++)
            want[0] +=
                (double)s->e / (double)s->k * d.count[i * s->e + j] * d.psum[i * s->e + j] / m;
    }
    for (int64_t i = 0; i < s->t; i++)
        want[1] += d.group[i] < 0 ? 0 : d.lse[i] * d.lse[i];
    expect(r, "loss", want);
}

static double to_13_bits(double x)
{
    int exponent;
    double f = frexp(x, &exponent);
    return ldexp(floor(ldexp(f, 13) + 0.5), exponent - 13);
}

/* Which choices of a group stay, one expert after another: while there is room the largest gate
 * that is left, of equal ones that of the first token. */
static void drop_naive(const int32_t *index, const double *gate, double *kept, int64_t tokens,
                       int64_t e, int64_t k, double factor)
{
    int64_t n = 0;
    for (int64_t i = 0; i < tokens * k; i++)
        kept[i] = -1;
    for (int64_t i = 0; i < tokens; i++)
        n += index[i * k] >= 0;
    for (int64_t x = 0; x < e; x++)
        for (int64_t room = (int64_t)ceil((double)(n * k) / (double)e * factor - 1e-9); room;
             room--) {
            int64_t best = -1;
            for (int64_t i = 0; i < tokens * k; i++)
                if (index[i] == x && kept[i] < 0 &&
                    (best < 0 || to_13_bits(gate[i]) > to_13_bits(gate[best])))
                    best = i;
            if (best >= 0)
                kept[best] = (double)x;
        }
}

/* Few experts and few different gates, so that many choices are dropped and many are equal; odd
 * variants: gates differ, some by less than what they are compared to.  The higher variants leave
 * room for nothing, and for all. */
static void case_drop(struct run *r)
{
    static const double factors[] = {0.75, 1.1, 0, 100};
    const struct shape *s = r->s;
    int64_t n = s->t * s->k, rows = (s->t + s->a - 1) / s->a;
    double factor = factors[r->variant / 2];
    int32_t *index = draw_int(r, n, 0, 4);
    double *gate = draw_stat(r, n, 0, 1);
    for (int64_t i = 0; i < s->t; i++) {
        int64_t pad = index[i * s->k] == 0 && !r->bench;
        int64_t first = i % 3 ? 0 : rng_permute(rng_key((uint64_t)i, "choice"), s->e, 0);
        for (int64_t j = i * s->k; j < (i + 1) * s->k; j++) {
            double x = get(gate, r->op->stat, j);
            index[j] = pad ? -1 : (int32_t)((first + j) % s->e);
            set(gate, r->op->stat, j, r->variant & 1 ? x * 0.001 + 0.5 : floor(4 * x) / 4);
        }
    }
    int32_t *kept = output_int(r, "kept", n);
    void *dropped = inout_stat(r, "dropped", 1);
    r->bytes = (double)n * (8 + stat_bytes(r));
    RUN(r, drop, kept, dropped, index, gate, s->t, s->e, s->k, s->a, factor);
    if (!stating(r))
        return;
    double *want = work(r, n), sum = last_output(r)->start[0];
    for (int64_t at = 0; at < s->t; at += rows)
        drop_naive(index + at * s->k, gate + at * s->k, want + at * s->k, MIN(rows, s->t - at),
                   s->e, s->k, factor);
    for (int64_t i = 0; i < n; i++)
        sum += index[i] >= 0 && want[i] < 0;
    expect(r, "kept", want);
    expect(r, "dropped", &sum);
}

/* K different local experts a row, -1 for some; expert 1 is always left empty; odd variants:
 * nothing is live. */
static int32_t *draw_choices(struct run *r)
{
    const struct shape *s = r->s;
    int32_t *index = draw_int(r, s->t * s->k, 0, 4);
    for (int64_t i = 0; i < s->t; i++)
        for (int64_t j = 0; j < s->k; j++) {
            int64_t e = rng_permute(rng_key((uint64_t)i, "choice"), s->e, j);
            int none =
                (r->variant & 1) || (e == 1 && !r->bench) || (!index[i * s->k + j] && !r->bench);
            index[i * s->k + j] = none ? -1 : (int32_t)e;
        }
    return index;
}
static int64_t map_rows(const struct shape *s)
{
    return (s->t * s->k / ROW_ALIGN + s->e + 1) * ROW_ALIGN;
}

static void case_row_map(struct run *r)
{
    const struct shape *s = r->s;
    int64_t m = map_rows(s), n = s->t, k = s->k, e = s->e;
    const int32_t *index = draw_choices(r);
    int32_t *of_all = run_take(r, n * k * 4); /* of all experts, those of other ranks on both sides */
    enum { FIRST = 3 };
    for (int64_t i = 0; i < n * k; i++)
        of_all[i] = index[i] >= 0 ? index[i] + FIRST : (int32_t)(i % 2 ? i % (FIRST + 1) - 1 : e + FIRST);
    int32_t *at = output_int(r, "at", e + 1), *count = output_int(r, "count", e);
    int32_t *source = output_int(r, "source", m), *place = output_int(r, "place", n * k);
    r->bytes = (double)(3 * n * k + m) * 4;
    RUN(r, row_map, at, count, source, place, of_all, n, k, FIRST, e, m);
    if (!stating(r))
        return;
    double *want_at = work(r, e + 1), *want_count = work(r, e), *want_source = work(r, m);
    double *want_place = work(r, n * k);
    for (int64_t i = 0; i < m; i++)
        want_source[i] = -1;
    for (int64_t i = 0; i < n * k; i++)
        want_place[i] = -1;
    for (int64_t x = 0, row = 0; x < e; x++) {
        want_at[x] = (double)row;
        for (int64_t i = 0; i < n * k; i++)
            if (index[i] == x) {
                want_place[i] = want_at[x] + want_count[x]++;
                want_source[(int64_t)want_place[i]] = (double)i;
            }
        row = (int64_t)ceil((want_at[x] + want_count[x]) / ROW_ALIGN) * ROW_ALIGN;
        want_at[x + 1] = (double)row;
    }
    expect(r, "at", want_at);
    expect(r, "count", want_count);
    expect(r, "source", want_source);
    expect(r, "place", want_place);
}

/* Two ranks share each set of experts; variant 1: no room for all rows. */
static void case_pack_rows(struct run *r)
{
    const struct shape *s = r->s;
    int64_t n = s->t, k = s->k, el = (s->e + 1) / 2, ranks = 4;
    int64_t room = r->variant ? (n + 2) / 3 : n;
    const int32_t *index = draw_choices(r);
    int32_t *row = output_int(r, "row", ranks * room);
    int32_t *there = output_int(r, "there", ranks * room * k);
    int32_t *place = output_int(r, "place", n * ranks);
    r->bytes = (double)(ranks * (n * k + n + room * (k + 1))) * 4;
    RUN(r, pack_rows, row, there, place, index, n, k, ranks, 2, el, room);
    if (!stating(r))
        return;
    double *want_row = work(r, ranks * room), *want_there = work(r, ranks * room * k);
    double *want_place = work(r, n * ranks);
    for (int64_t i = 0; i < ranks * room; i++)
        want_row[i] = -1;
    for (int64_t i = 0; i < ranks * room * k; i++)
        want_there[i] = -1;
    for (int64_t q = 0; q < ranks; q++)
        for (int64_t t = 0, at = q * room; t < n; t++) {
            int wanted = 0;
            for (int64_t j = 0; j < k; j++)
                wanted |= index[t * k + j] >= 0 && index[t * k + j] / el == q / 2;
            want_place[t * ranks + q] = wanted && at < (q + 1) * room ? (double)at : -1;
            if (!wanted || at == (q + 1) * room)
                continue;
            for (int64_t j = 0; j < k; j++)
                want_there[at * k + j] = index[t * k + j];
            want_row[at++] = (double)t;
        }
    expect(r, "row", want_row);
    expect(r, "there", want_there);
    expect(r, "place", want_place);
}

/* Variant 1: the step does not commit. */
static void case_balance(struct run *r)
{
    int64_t e = r->s->e;
    double *load = draw_stat(r, e, 0, 4), *state = draw_stat(r, STEP_STATE, 1, 2);
    for (int64_t i = 0; i < e; i++)
        set(load, r->op->stat, i, floor(get(load, r->op->stat, i)));
    set(state, r->op->stat, STEP_OK, !r->variant);
    void *bias = inout_stat(r, "bias", e);
    RUN(r, balance, bias, load, state, e, 0.25);
    if (!stating(r))
        return;
    double *want = work(r, e), mean = 0;
    for (int64_t i = 0; i < e; i++)
        mean += load[i] / (double)e;
    for (int64_t i = 0; i < e; i++) {
        double off = mean - load[i]; /* a whole number of e-ths */
        int sign = off > 0.1 / (double)e ? 1 : off < -0.1 / (double)e ? -1 : 0;
        want[i] = last_output(r)->start[i] + (r->variant ? 0 : sign * 0.25);
    }
    expect(r, "bias", want);
}
