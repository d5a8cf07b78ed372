/* experts.h -- cases: SwiGLU experts.  Expert 1 is empty; in odd variants all are. */
struct expert_data {
    struct run *r;
    int32_t *at, *count, *source, *place;
    double *x, *up, *down, *gate, *h, *a, *dout;
    double *da; /* (M,F) down^T dout */
    int64_t m, n, e, k, d, f;
};

static struct expert_data draw_experts(struct run *r)
{
    const struct shape *s = r->s;
    struct expert_data x = {r, .m = map_rows(s), .n = s->t, .e = s->e, .k = s->k};
    x.d = s->d;
    x.f = s->f;
    const int32_t *index = draw_choices(r);
    x.at = run_take(r, (x.e + 1) * 4);
    x.count = run_take(r, x.e * 4);
    x.source = run_take(r, x.m * 4);
    x.place = run_take(r, x.n * x.k * 4);
    r->op->row_map(r->l, x.at, x.count, x.source, x.place, index, x.n, x.k, 0, x.e, x.m);
    r->l->dev->wait(r->l);
    x.x = draw(r, x.n * x.d, -1, 1);
    x.dout = draw(r, x.n * x.d, -1, 1);
    x.up = draw(r, x.e * 2 * x.f * x.d, -0.5, 0.5);
    x.down = draw(r, x.e * x.d * x.f, -0.5, 0.5);
    x.gate = draw_stat(r, x.n * x.k, 0.1, 1);
    x.h = draw(r, x.m * 2 * x.f, -3, 3);
    x.a = draw(r, x.m * x.f, -1, 1);
    return x;
}

/* `products` of a row of D and one of F, and numbers moved a row, D of them and F of them; the
 * weights, or the gradient, of `type` are moved once. */
static void expert_cost(const struct expert_data *x, double products, double ds, double fs,
                        enum dtype type)
{
    double live = 0, matrix = (double)(x->d * x->f);
    for (int64_t i = 0; i < x->e; i++)
        live += x->count[i];
    x->r->flops = 2 * products * live * matrix;
    x->r->bytes = live * (ds * (double)x->d + fs * (double)x->f) * real_bytes(x->r) +
                  products * (double)x->e * matrix * (double)dtype_size(type);
}

/* The last output has a row of `width` for each of M; those of padding must not be touched. */
static void only_live(const struct expert_data *x, int64_t width)
{
    struct tensor *t = last_output(x->r);
    if (x->r->bench)
        return;
    t->live = work(x->r, t->n);
    for (int64_t i = 0; i < t->n; i++)
        t->live[i] = x->source[i / width] >= 0;
}

/* The same, but that rows of padding of experts with rows are written too, with zeros. */
static void only_mapped(const struct expert_data *x, int64_t width)
{
    struct tensor *t = last_output(x->r);
    t->live = work(x->r, t->n);
    for (int64_t i = 0; i < t->n; i++)
        t->live[i] = i / width < x->at[x->e];
}

static int64_t expert_of(const struct expert_data *x, int64_t m)
{
    int64_t e = 0;
    while (x->at[e + 1] <= m)
        e++;
    return e;
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* sum over j < n of a[j * as] b[j * bs] */
static double dot(const double *a, int64_t as, const double *b, int64_t bs, int64_t n)
{
    double sum = 0;
    for (int64_t j = 0; j < n; j++)
        sum += a[j * as] * b[j * bs];
    return sum;
}

static void case_experts_up(struct run *r)
{
    struct expert_data x = draw_experts(r);
    int64_t d = x.d, f = x.f;
    double *h = output(r, "h", x.m * 2 * f);
    only_live(&x, 2 * f);
    double *a = output(r, "a", x.m * f);
    only_live(&x, f);
    expert_cost(&x, 2, 1, 3, r->op->real);
    RUN(r, experts_up, h, a, x.x, x.up, x.gate, x.at, x.count, x.source, x.n * x.k, x.e, x.k, d, f);
    if (!stating(r))
        return;
    double *want_h = work(r, x.m * 2 * f), *want_a = work(r, x.m * f);
    for (int64_t m = 0; m < x.m; m++) {
        if (x.source[m] < 0)
            continue;
        const double *row = x.x + x.source[m] / x.k * d, *w = x.up + expert_of(&x, m) * 2 * f * d;
        double *out = want_h + m * 2 * f;
        for (int64_t j = 0; j < 2 * f; j++)
            out[j] = dot(row, 1, w + j * d, 1, d);
        for (int64_t j = 0; j < f; j++)
            want_a[m * f + j] = x.gate[x.source[m]] * silu(out[j]) * out[f + j];
    }
    expect(r, "h", want_h);
    expect(r, "a", want_a);
}

static void case_experts_down(struct run *r)
{
    struct expert_data x = draw_experts(r);
    double *y = output(r, "y", x.m * x.d);
    only_live(&x, x.d);
    expert_cost(&x, 1, 1, 1, r->op->real);
    RUN(r, experts_down, y, x.a, x.down, x.at, x.count, x.n * x.k, x.e, x.d, x.f);
    if (!stating(r))
        return;
    double *want = work(r, x.m * x.d);
    for (int64_t i = 0; i < x.m * x.d; i++)
        if (x.source[i / x.d] >= 0)
            want[i] = dot(x.a + i / x.d * x.f, 1,
                          x.down + (expert_of(&x, i / x.d) * x.d + i % x.d) * x.f, 1, x.f);
    expect(r, "y", want);
}

/* <dout, down a(h, gate)>, as a function of h and of gate. */
static double experts_loss(void *arg)
{
    const struct expert_data *x = arg;
    double sum = 0;
    for (int64_t i = 0; i < x->m * x->f; i++) {
        int64_t m = i / x->f;
        const double *h = x->h + m * 2 * x->f + i % x->f;
        if (x->source[m] >= 0)
            sum += x->gate[x->source[m]] * silu(h[0]) * h[x->f] * x->da[i];
    }
    return sum;
}

static void case_experts_dh(struct run *r)
{
    struct expert_data x = draw_experts(r);
    int64_t d = x.d, f = x.f;
    int in_place = r->variant / 2;
    double *dh = in_place ? output_of(r, "dh", r->op->real, x.h, x.m * 2 * f)
                          : output(r, "dh", x.m * 2 * f);
    only_mapped(&x, 2 * f);
    output(r, "a", x.m * f);
    only_mapped(&x, f);
    double *a = last_output(r)->data, *dgate = output_stat(r, "dgate", x.n * x.k);
    expert_cost(&x, 1, 1, 5, r->op->real);
    RUN(r, experts_dh, dh, a, dgate, x.dout, x.down, x.h, x.gate, x.at, x.count, x.source, x.n, x.e,
        x.k, d, f);
    if (!stating(r))
        return;
    double *want_a = work(r, x.m * f), *live_dh = work(r, x.m * 2 * f);
    if (in_place)
        x.h = output_named(r, "dh")->start;
    x.da = work(r, x.m * f);
    for (int64_t m = 0; m < x.m; m++)
        for (int64_t j = 0; x.source[m] >= 0 && j < f; j++) {
            const double *h = x.h + m * 2 * f;
            want_a[m * f + j] = x.gate[x.source[m]] * silu(h[j]) * h[f + j];
            x.da[m * f + j] =
                dot(x.dout + x.source[m] / x.k * d, 1, x.down + expert_of(&x, m) * d * f + j, f, d);
            live_dh[m * 2 * f + j] = dh[m * 2 * f + j];
            live_dh[m * 2 * f + f + j] = dh[m * 2 * f + f + j];
        }
    expect(r, "a", want_a);
    differ(r, live_dh, x.h, MIN(x.m, x.n) * 2 * f, experts_loss, &x);
    differ(r, dgate, x.gate, x.n * x.k, experts_loss, &x);
}

static void case_experts_dx(struct run *r)
{
    struct expert_data x = draw_experts(r);
    int64_t d = x.d, f = x.f;
    double *dx = output(r, "dx", x.m * d);
    only_live(&x, d);
    expert_cost(&x, 2, 1, 2, r->op->real);
    RUN(r, experts_dx, dx, x.h, x.up, x.at, x.count, x.e, d, f);
    if (!stating(r))
        return;
    double *want = work(r, x.m * d);
    for (int64_t i = 0; i < x.m * d; i++)
        if (x.source[i / d] >= 0)
            want[i] = dot(x.h + i / d * 2 * f, 1, x.up + expert_of(&x, i / d) * 2 * f * d + i % d,
                          d, 2 * f);
    expect(r, "dx", want);
}

/* want (E,rows,cols) += sum over rows of left (M,rows) x right (M,cols) */
static void outer_sum(const struct expert_data *x, double *want, const double *left, int64_t rows,
                      int left_gathered, const double *right, int64_t cols)
{
    for (int64_t m = 0; m < x->m; m++) {
        if (x->source[m] < 0)
            continue;
        const double *a = left + (left_gathered ? x->source[m] / x->k : m) * rows;
        const double *b = right + (left_gathered ? m : x->source[m] / x->k) * cols;
        double *w = want + expert_of(x, m) * rows * cols;
        for (int64_t i = 0; i < rows * cols; i++)
            w[i] += a[i / cols] * b[i % cols];
    }
}

/* Where the gradient is written its squares are asked for. */
static void *squares_of(struct run *r, int64_t kind)
{
    return kind & 1 || r->bench ? NULL : inout_stat(r, "squares", 1);
}

static void expect_squares(struct run *r, const void *squares, const double *dw, int64_t n)
{
    if (!squares)
        return;
    double *want = work(r, 1);
    *want = *output_named(r, "squares")->start + dot(dw, 1, dw, 1, n);
    expect(r, "squares", want);
}

static void case_experts_up_wgrad(struct run *r)
{
    struct expert_data x = draw_experts(r);
    int64_t kind = r->variant / 2;
    void *squares = squares_of(r, kind);
    struct mat dw = gradient(r, x.e * 2 * x.f, x.d, kind);
    expert_cost(&x, 2, 1, 2, dw.type);
    RUN(r, experts_up_wgrad, dw, x.h, x.x, x.at, x.count, x.source, x.n * x.k, x.e, x.k, kind & 1,
        squares);
    if (!stating(r))
        return;
    double *want = gradient_start(r, kind);
    outer_sum(&x, want, x.h, 2 * x.f, 0, x.x, x.d);
    expect(r, "dw", want);
    expect_squares(r, squares, want, dw.rows * dw.cols);
}

static void case_experts_down_wgrad(struct run *r)
{
    struct expert_data x = draw_experts(r);
    int64_t kind = r->variant / 2;
    void *squares = squares_of(r, kind);
    struct mat dw = gradient(r, x.e * x.d, x.f, kind);
    expert_cost(&x, 1, 1, 1, dw.type);
    RUN(r, experts_down_wgrad, dw, x.dout, x.a, x.at, x.count, x.source, x.n * x.k, x.e, x.k,
        kind & 1, squares);
    if (!stating(r))
        return;
    double *want = gradient_start(r, kind);
    outer_sum(&x, want, x.dout, x.d, 1, x.a, x.f);
    expect(r, "dw", want);
    expect_squares(r, squares, want, dw.rows * dw.cols);
}
