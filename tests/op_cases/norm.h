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

/* Variants of what becomes of queries and keys: by norm (none, of each head, whole, whole with sums
 * given as ranks have them), and of each at low positions, out of place, and at positions higher
 * than there are tokens, in place. */
enum { QK_VARIANTS = 8 };
struct qk_case {
    struct qk n;
    int64_t norms;   /* S (T,norms) of rstd; 0 without norm */
    int64_t weights; /* of w, 0 without norm */
    int in_place, given;
    double *w; /* as n.w, to be changed */
    const int32_t *position;
    void *freq;
};
static struct qk_case qk_case(struct run *r)
{
    const struct shape *s = r->s;
    int64_t kind = r->variant / 2, c = s->c;
    struct qk_case q = {.n = {s->h, s->g, c, (s->h + 2 * s->g) * c + (kind || r->bench ? 0 : 3),
                              .whole = kind >= 2, .ranks = kind == 2 ? 1 : 2, .eps = NORM_EPS}};
    q.in_place = r->variant & 1;
    q.given = kind == 3;
    q.weights = kind ? qk_weights(&q.n) : 0;
    q.norms = kind ? qk_norms(&q.n) : 0;
    if (kind)
        q.n.w = q.w = draw(r, q.weights, 0.5, 1.5);
    int64_t most = r->bench ? s->span : MAX(1, s->t / 2);
    q.position = q.in_place ? draw_int(r, s->t, 1000, 4000) : draw_int(r, s->t, 0, most);
    q.freq = draw_stat(r, c / 2, 0, 0);
    for (int64_t i = 0; i < c / 2; i++)
        set(q.freq, r->op->stat, i, (float)pow(10000, -2.0 * (double)i / (double)c));
    return q;
}

/* The heads that norm i spans, as the first element and how many. */
static int64_t qk_heads(const struct qk_case *q, int64_t i, int64_t *first)
{
    const struct qk *n = &q->n;
    *first = (n->whole ? i * n->h : i) * n->c;
    return n->c * (!n->whole ? 1 : i ? n->g : n->h);
}

static void case_rope(struct run *r)
{
    struct qk_case q = qk_case(r);
    const struct qk *n = &q.n;
    int64_t t = r->s->t, c = n->c, half = c / 2, wide = (n->h + n->g) * c;
    const void *in = draw(r, t * n->ld, -1, 1);
    void *rstd = q.norms ? output_stat(r, "rstd", t * q.norms) : NULL;
    void *y = q.in_place ? inout(r, "y", t * n->ld) : output(r, "y", t * n->ld);
    only_columns(r, wide, n->ld);
    const void *x = q.in_place ? y : in, *square = q.given ? draw_stat(r, t * 2, 20, 30) : NULL;
    r->bytes = 2.0 * (double)(t * wide) * real_bytes(r);
    RUN(r, rope, y, rstd, x, square, q.position, q.freq, t, n);
    if (!stating(r))
        return;
    const double *from = q.in_place ? last_output(r)->start : in;
    double *want = work(r, t * n->ld), *want_rstd = work(r, t * q.norms), *z = work(r, wide);
    for (int64_t i = 0; i < t; i++) {
        memcpy(z, from + i * n->ld, (size_t)wide * sizeof *z);
        for (int64_t k = 0, first; k < q.norms; k++) {
            int64_t span = qk_heads(&q, k, &first);
            double sum = 0;
            for (int64_t j = first; j < first + span; j++)
                sum += z[j] * z[j];
            if (square)
                sum = ((const double *)square)[i * 2 + k];
            double s = 1 / sqrt(sum / (double)(n->whole ? span * n->ranks : span) + NORM_EPS);
            want_rstd[i * q.norms + k] = s;
            for (int64_t j = first; j < first + span; j++)
                z[j] *= s * q.w[n->whole ? j : (j / c >= n->h) * c + j % c];
        }
        for (int64_t j = 0; j < wide; j++) {
            int low = j % c < half;
            double angle = q.position[i] * ((double *)q.freq)[j % half];
            want[i * n->ld + j] = low ? z[j] * cos(angle) - z[j + half] * sin(angle)
                                      : z[j] * cos(angle) + z[j - half] * sin(angle);
        }
    }
    expect(r, "y", want);
    if (q.norms)
        expect(r, "rstd", want_rstd);
}

struct rope_loss {
    struct run *r;
    const struct qk_case *q;
    double *x, *dy, *y, *rstd, *square;
};
/* Sums over ranks: this one's, and another's that hold still. */
static void rope_sums(struct run *r, const struct qk *n, double *square, const double *x)
{
    r->op->qk_dots(r->l, square, x, x, r->s->t, n);
    for (int64_t i = 0; i < 2 * r->s->t; i++)
        square[i] += 3;
}
static double rope_loss(void *arg) /* <dy, rope(x)> */
{
    struct rope_loss *a = arg;
    const struct qk_case *q = a->q;
    int64_t t = a->r->s->t, wide = (q->n.h + q->n.g) * q->n.c;
    double sum = 0;
    if (q->given)
        rope_sums(a->r, &q->n, a->square, a->x);
    a->r->op->rope(a->r->l, a->y, a->rstd, a->x, q->given ? a->square : NULL, q->position, q->freq,
                   t, &q->n);
    for (int64_t i = 0; i < t * q->n.ld; i++)
        if (i % q->n.ld < wide)
            sum += a->y[i] * a->dy[i];
    return sum;
}

/* What both gradients need, by way of the op itself; of the given variant in f64 only, since what
 * another rank holds is added by hand. */
static struct rope_loss rope_made(struct run *r, const struct qk_case *q)
{
    int64_t t = r->s->t;
    struct rope_loss a = {r, q};
    a.x = draw(r, t * q->n.ld, -1, 1);
    a.y = run_take(r, t * q->n.ld * 8);
    a.rstd = run_take(r, t * MAX(1, q->norms) * 8);
    a.square = run_take(r, t * 2 * 8);
    if (q->given) {
        r->op->qk_dots(r->l, a.square, a.x, a.x, t, &q->n);
        r->l->dev->wait(r->l);
        for (int64_t i = 0; i < 2 * t; i++)
            set(a.square, r->op->stat, i, get(a.square, r->op->stat, i) + 3);
    }
    r->op->rope(r->l, a.y, a.rstd, a.x, q->given ? a.square : NULL, q->position, q->freq, t, &q->n);
    return a;
}

static void case_rope_dgrad(struct run *r)
{
    struct qk_case q = qk_case(r);
    const struct qk *n = &q.n;
    int64_t t = r->s->t, wide = (n->h + n->g) * n->c;
    struct rope_loss a = rope_made(r, &q);
    void *dy = draw(r, t * n->ld, -1, 1), *dot = NULL;
    if (q.given) { /* with y in the type of the run it is off by its rounding */
        dot = run_take(r, t * 2 * 8);
        r->op->qk_dots(r->l, dot, dy, a.y, t, n);
        r->l->dev->wait(r->l);
    }
    a.dy = dy;
    void *part = q.norms ? output_stat(r, "part", QK_PARTS * q.weights) : NULL;
    void *dx = output(r, "dx", t * n->ld);
    only_columns(r, wide, n->ld);
    if (q.in_place) {
        memcpy(dx, dy, (size_t)(t * n->ld * dtype_size(r->op->real)));
        for (int64_t i = 0; !r->bench && i < t * n->ld; i++)
            last_output(r)->start[i] = get(dy, r->op->real, i);
    }
    r->bytes = (q.norms ? 3.0 : 2.0) * (double)(t * wide) * real_bytes(r);
    RUN(r, rope_dgrad, dx, part, q.in_place ? dx : dy, a.x, a.rstd, dot, q.position, q.freq, t, n);
    if (!stating(r))
        return;
    double *grad = work(r, t * n->ld);
    for (int64_t i = 0; i < t * n->ld; i++)
        grad[i] = i % n->ld < wide ? ((double *)dx)[i] : 0;
    differ(r, grad, a.x, t * n->ld, rope_loss, &a);
    double *dw = work(r, q.weights);
    for (int64_t i = 0; i < QK_PARTS * q.weights; i++)
        dw[i % q.weights] += ((double *)part)[i];
    if (q.norms)
        differ(r, dw, q.w, q.weights, rope_loss, &a);
}

static void case_rope_wgrad(struct run *r)
{
    struct mat dw = gradient(r, 1, 2 * r->s->c * r->s->h, r->variant);
    const void *part = draw_stat(r, QK_PARTS * dw.cols, -1, 1);
    r->bytes = (double)(QK_PARTS * dw.cols) * 4;
    RUN(r, rope_wgrad, dw, part, r->variant & 1);
    if (!stating(r))
        return;
    double *want = gradient_start(r, r->variant);
    for (int64_t i = 0; i < QK_PARTS * dw.cols; i++)
        want[i % dw.cols] += ((const double *)part)[i];
    expect(r, "dw", want);
}

static void case_qk_dots(struct run *r)
{
    const struct shape *s = r->s;
    struct qk n = {s->h, s->g, s->c, (s->h + 2 * s->g) * s->c, .whole = 1};
    const void *a = draw(r, s->t * n.ld, -1, 1), *b = draw(r, s->t * n.ld, -1, 1);
    void *dot = output_stat(r, "dot", s->t * 2);
    r->bytes = 2.0 * (double)(s->t * (n.h + n.g) * n.c) * real_bytes(r);
    RUN(r, qk_dots, dot, a, b, s->t, &n);
    if (!stating(r))
        return;
    double *want = work(r, s->t * 2);
    for (int64_t i = 0; i < s->t; i++)
        for (int64_t j = 0; j < (n.h + n.g) * n.c; j++)
            want[i * 2 + (j >= n.h * n.c)] +=
                ((const double *)a)[i * n.ld + j] * ((const double *)b)[i * n.ld + j];
    expect(r, "dot", want);
}

