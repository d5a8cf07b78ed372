/* norm.h -- cases: embedding, rmsnorm, rope, add. */
static void case_embed(struct run *r)
{
    int64_t t = r->s->t, d = r->s->d, v = r->s->v, v0 = 2;
    const int32_t *token = draw_int(r, t, 0, v + 4);
    const void *w = draw(r, v * d, -1, 1);
    void *x = output(r, "x", t * d);
    r->bytes = 2.0 * (double)(t * d) * real_bytes(r);
    RUN(r, embed, x, token, w, t, d, v, v0);
    if (!stating(r))
        return;
    double *want = work(r, t * d);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < d; j++)
            if (token[i] >= v0 && token[i] < v0 + v)
                want[i * d + j] = ((const double *)w)[(token[i] - v0) * d + j];
    expect(r, "x", want);
}

static void case_embed_wgrad(struct run *r) /* every tenth token is the same, a frequent word */
{
    int64_t t = r->s->t, d = r->s->d, v = r->s->v, v0 = 2;
    int32_t *token = draw_int(r, t, 0, v + 4);
    for (int64_t i = 0; i < t; i += 10)
        token[i] = (int32_t)(v0 + v / 2);
    const void *dx = draw(r, t * d, -1, 1);
    struct mat dw = gradient(r, v, d, r->variant);
    r->bytes = (double)(t * d) * real_bytes(r) +
               (double)((r->variant & 1 ? 2 * t : v) * d) * (double)dtype_size(dw.type);
    RUN(r, embed_wgrad, dw, token, dx, t, v0, r->variant & 1);
    if (!stating(r))
        return;
    double *want = gradient_start(r, r->variant);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < d; j++)
            if (token[i] >= v0 && token[i] < v0 + v)
                want[(token[i] - v0) * d + j] += ((const double *)dx)[i * d + j];
    expect(r, "dw", want);
}

/* Large enough that a single column, whose gradient is all eps, has one. */
#define NORM_EPS 0.01

static void expect_norm(struct run *r, const double *x, const double *w)
{
    int64_t t = r->s->t, d = r->s->d;
    double *want = work(r, t * d), *want_rstd = work(r, t);
    for (int64_t i = 0; i < t; i++) {
        double sum = 0;
        for (int64_t j = 0; j < d; j++)
            sum += x[i * d + j] * x[i * d + j];
        want_rstd[i] = 1 / sqrt(sum / (double)d + NORM_EPS);
        for (int64_t j = 0; j < d; j++)
            want[i * d + j] = x[i * d + j] * want_rstd[i] * w[j];
    }
    expect(r, "y", want);
    expect(r, "rstd", want_rstd);
}

static void case_rmsnorm(struct run *r)
{
    int64_t t = r->s->t, d = r->s->d;
    const void *x = draw(r, t * d, -1, 1), *w = draw(r, d, 0.5, 1.5);
    void *y = output(r, "y", t * d), *rstd = output_stat(r, "rstd", t);
    r->bytes = 2.0 * (double)(t * d) * real_bytes(r);
    RUN(r, rmsnorm, y, rstd, x, w, t, d, NORM_EPS);
    if (stating(r))
        expect_norm(r, x, w);
}

static void case_add_rmsnorm(struct run *r) /* variant 1: to a in place */
{
    int64_t t = r->s->t, d = r->s->d;
    const void *b = draw(r, t * d, -1, 1), *w = draw(r, d, 0.5, 1.5);
    void *a = r->variant ? inout(r, "x", t * d) : draw(r, t * d, -1, 1);
    const double *was = r->variant ? last_output(r)->start : a;
    void *x = r->variant ? a : output(r, "x", t * d);
    void *y = output(r, "y", t * d), *rstd = output_stat(r, "rstd", t);
    r->bytes = 4.0 * (double)(t * d) * real_bytes(r);
    RUN(r, add_rmsnorm, y, rstd, x, a, b, w, t, d, NORM_EPS);
    if (!stating(r))
        return;
    double *want = work(r, t * d);
    for (int64_t i = 0; i < t * d; i++)
        want[i] = was[i] + ((const double *)b)[i];
    expect(r, "x", want);
    expect_norm(r, want, w);
}

struct norm_loss {
    struct run *r;
    double *x, *w, *dy, *y, *rstd;
};
static double norm_loss(void *arg) /* <dy, rmsnorm(x)> */
{
    struct norm_loss *n = arg;
    int64_t t = n->r->s->t, d = n->r->s->d;
    n->r->op->rmsnorm(n->r->l, n->y, n->rstd, n->x, n->w, t, d, NORM_EPS);
    double sum = 0;
    for (int64_t i = 0; i < t * d; i++)
        sum += n->y[i] * n->dy[i];
    return sum;
}

/* Variants: bit 0, with a residual gradient; the others, the kind of the weight gradient. */
static void case_rmsnorm_grad(struct run *r)
{
    int64_t t = r->s->t, d = r->s->d, kind = r->variant / 2;
    void *x = draw(r, t * d, -1, 1), *w = draw(r, d, 0.5, 1.5), *dy = draw(r, t * d, -1, 1);
    const double *res = r->variant & 1 ? draw(r, t * d, -1, 1) : NULL;
    void *y = run_take(r, t * d * 8), *rstd = run_take(r, t * 8);
    r->op->rmsnorm(r->l, y, rstd, x, w, t, d, NORM_EPS);
    double *dx = output(r, "dx", t * d);
    struct mat dw = gradient(r, 1, d, kind);
    r->bytes = (res ? 4.0 : 3.0) * (double)(t * d) * real_bytes(r);
    RUN(r, rmsnorm_grad, dx, dw, res, dy, x, w, rstd, t, kind & 1);
    if (!stating(r))
        return;
    double *grad = work(r, t * d), *wgrad = work(r, d), *was = gradient_start(r, kind);
    for (int64_t i = 0; i < t * d; i++)
        grad[i] = dx[i] - (res ? res[i] : 0);
    for (int64_t i = 0; i < d; i++)
        wgrad[i] = ((double *)dw.data)[i] - was[i];
    struct norm_loss loss = {r, x, w, dy, y, rstd};
    differ(r, grad, x, t * d, norm_loss, &loss);
    differ(r, wgrad, w, d, norm_loss, &loss);
}

/* Variants: turned back; positions higher than there are tokens; both. */
static void case_rope(struct run *r)
{
    int64_t t = r->s->t, heads = r->s->h, c = r->s->c, ld = heads * c + (r->bench ? 0 : 3);
    int sign = r->variant & 1 ? -1 : 1;
    int64_t most = r->bench ? r->s->span : MAX(1, t / 2);
    const int32_t *position = r->variant & 2 ? draw_int(r, t, 1000, 4000) : draw_int(r, t, 0, most);
    void *freq = draw_stat(r, c / 2, 0, 0);
    for (int64_t i = 0; i < c / 2; i++)
        set(freq, r->op->stat, i, (float)pow(10000, -2.0 * (double)i / (double)c));
    void *x = inout(r, "x", t * ld);
    only_columns(r, heads * c, ld);
    r->bytes = 2.0 * (double)(t * heads * c) * real_bytes(r);
    RUN(r, rope, x, position, freq, t, heads, c, ld, sign);
    if (!stating(r))
        return;
    const double *in = last_output(r)->start;
    double *want = work(r, t * ld);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < heads * c; j++) {
            int64_t at = i * ld + j, half = c / 2, low = j % c < half;
            double angle = sign * position[i] * ((double *)freq)[j % half];
            want[at] = low ? in[at] * cos(angle) - in[at + half] * sin(angle)
                           : in[at] * cos(angle) + in[at - half] * sin(angle);
        }
    expect(r, "x", want);
}

static void case_add(struct run *r)
{
    int64_t n = r->s->t * r->s->d;
    const void *a = draw(r, n, -1, 1), *b = draw(r, n, -1, 1);
    void *y = output(r, "y", n);
    r->bytes = 3.0 * (double)n * real_bytes(r);
    RUN(r, add, y, a, b, n);
    if (!stating(r))
        return;
    double *want = work(r, n);
    for (int64_t i = 0; i < n; i++)
        want[i] = ((const double *)a)[i] + ((const double *)b)[i];
    expect(r, "y", want);
}
