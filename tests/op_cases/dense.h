/* dense.h -- cases: matrix products, biases, the activation between products, and rows moved by an
 * index. */

/* Variants: bit 0 transposes A, bit 1 B, bit 2 adds, bit 3 leaves gaps between rows, bit 4
 * has C in the other type. */
static void case_gemm(struct run *r)
{
    int ta = r->variant & 1, tb = r->variant >> 1 & 1, add = r->variant >> 2 & 1;
    int64_t gap = r->variant >> 3 & 1 ? 5 : 0;
    int64_t m = r->s->t, n = r->s->d, k = r->bench ? r->s->d : r->s->v;
    if (ta && r->bench) { /* a weight gradient */
        m = r->s->d;
        k = r->s->t;
    }
    enum dtype type = r->op->real; /* what adds is a weight gradient, and mostly S */
    enum dtype ctype = add == (r->variant >> 4 & 1) ? type : r->op->stat;
    struct mat a = mat(NULL, type, ta ? k : m, ta ? m : k),
               b = mat(NULL, type, tb ? n : k, tb ? k : n);
    struct mat c = mat(NULL, ctype, m, n);
    a.ld += gap;
    b.ld += gap;
    c.ld += gap;
    a.data = draw(r, a.rows * a.ld, -1, 1);
    b.data = draw(r, b.rows * b.ld, -1, 1);
    c.data =
        add ? output_of(r, "c", ctype, draw_of_type(r, ctype, m * c.ld, -1, 1, r->coarse), m * c.ld)
            : output_of_type(r, "c", ctype, m * c.ld);
    only_columns(r, n, c.ld);
    r->flops = 2.0 * (double)(m * n * k);
    r->bytes = (double)(m * k + k * n) * real_bytes(r) +
               (double)(m * n * (1 + add)) * (double)dtype_size(ctype);
    RUN(r, gemm, c, a, b, ta, tb, add);
    if (!stating(r))
        return;
    const double *x = a.data, *y = b.data;
    double *want = work(r, m * c.ld);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++)
                sum += x[ta ? p * a.ld + i : i * a.ld + p] * y[tb ? j * b.ld + p : p * b.ld + j];
            want[i * c.ld + j] = sum + (add ? last_output(r)->start[i * c.ld + j] : 0);
        }
    expect(r, "c", want);
}

static void case_add_bias(struct run *r)
{
    int64_t t = r->s->t, n = r->s->d;
    const double *b = draw(r, n, -1, 1);
    double *y = inout(r, "y", t * n);
    r->bytes = 2.0 * (double)(t * n) * real_bytes(r);
    RUN(r, add_bias, y, b, t, n);
    if (!stating(r))
        return;
    double *want = work(r, t * n);
    for (int64_t i = 0; i < t * n; i++)
        want[i] = last_output(r)->start[i] + b[i % n];
    expect(r, "y", want);
}

static void case_bias_wgrad(struct run *r)
{
    int64_t t = r->s->t, n = r->s->d;
    const double *dy = draw(r, t * n, -1, 1);
    struct mat dw = gradient(r, 1, n, r->variant);
    r->bytes = (double)(t * n) * real_bytes(r);
    RUN(r, bias_wgrad, dw, dy, t, r->variant & 1);
    if (!stating(r))
        return;
    double *want = gradient_start(r, r->variant);
    for (int64_t i = 0; i < t * n; i++)
        want[i % n] += dy[i];
    expect(r, "dw", want);
}

struct swiglu_data {
    struct run *r;
    double *h, *z, *da, *a;
};

/* <da, a>, a by the words of op_list.h. */
static double swiglu_loss(void *arg)
{
    struct swiglu_data *s = arg;
    int64_t t = s->r->s->t, f = s->r->s->f;
    double sum = 0;
    for (int64_t i = 0; i < t * f; i++) {
        const double *h = s->h + i / f * 2 * f + i % f;
        double gate = s->z ? 1 / (1 + exp(-s->z[i / f])) : 1;
        s->a[i] = gate * h[0] / (1 + exp(-h[0])) * h[f];
        sum += s->da ? s->da[i] * s->a[i] : 0;
    }
    return sum;
}

static void case_swiglu(struct run *r) /* variant 1: with a gate */
{
    int64_t t = r->s->t, f = r->s->f;
    struct swiglu_data s = {r, draw(r, t * 2 * f, -3, 3), NULL, NULL, NULL};
    s.z = r->variant ? draw_stat(r, t, -2, 2) : NULL;
    double *a = output(r, "a", t * f);
    r->bytes = 3.0 * (double)(t * f) * real_bytes(r);
    RUN(r, swiglu, a, s.h, s.z, t, f);
    if (!stating(r))
        return;
    s.a = work(r, t * f);
    swiglu_loss(&s);
    expect(r, "a", s.a);
}

static void case_swiglu_dgrad(struct run *r)
{
    int64_t t = r->s->t, f = r->s->f;
    struct swiglu_data s = {r, draw(r, t * 2 * f, -3, 3), NULL, draw(r, t * f, -1, 1), NULL};
    s.z = r->variant ? draw_stat(r, t, -2, 2) : NULL;
    double *dh = output(r, "dh", t * 2 * f), *a = output(r, "a", t * f);
    double *dz = r->variant ? output_stat(r, "dz", t) : NULL;
    r->bytes = 6.0 * (double)(t * f) * real_bytes(r);
    RUN(r, swiglu_dgrad, dh, a, dz, s.da, s.h, s.z, t, f);
    if (!stating(r))
        return;
    s.a = work(r, t * f);
    swiglu_loss(&s);
    expect(r, "a", s.a);
    differ(r, dh, s.h, t * 2 * f, swiglu_loss, &s);
    if (s.z)
        differ(r, dz, s.z, t, swiglu_loss, &s);
}

/* n row numbers of `rows`, some -1; each at most once where `once`. */
static int32_t *draw_rows(struct run *r, int64_t n, int64_t rows, int once)
{
    int32_t *row = draw_int(r, n, -1, rows);
    uint64_t key = rng_key(1, "rows");
    for (int64_t i = 0; once && i < n; i++)
        row[i] = i % 5 == 4 ? -1 : (int32_t)rng_permute(key, rows, i);
    return row;
}
static void *draw_of(struct run *r, enum dtype type, int64_t n)
{
    return type == DT_I32 ? (void *)draw_int(r, n, 0, 1000) : draw(r, n, -1, 1);
}

static void case_gather_rows(struct run *r) /* variant 1: int32 */
{
    int64_t n = r->s->t, d = r->s->d, from = n / 2 + 3, gap = r->bench ? 0 : 2;
    enum dtype type = r->variant ? DT_I32 : r->op->real;
    const int32_t *row = draw_rows(r, n, from, 0);
    struct mat x = mat(draw_of(r, type, from * (d + gap)), type, from, d);
    x.ld = d + gap;
    struct mat y =
        mat(r->variant ? (void *)output_int(r, "y", n * d) : output(r, "y", n * d), type, n, d);
    r->bytes = 2.0 * (double)(n * d) * (double)dtype_size(type);
    RUN(r, gather_rows, y, x, row);
    if (!stating(r))
        return;
    double *want = work(r, n * d);
    for (int64_t i = 0; i < n * d; i++)
        want[i] = row[i / d] < 0 ? 0 : get(x.data, type, row[i / d] * x.ld + i % d);
    expect(r, "y", want);
}

static void case_scatter_rows(struct run *r)
{
    int64_t n = r->s->t, d = r->s->d, to = n + 3;
    enum dtype type = r->variant ? DT_I32 : r->op->real;
    const int32_t *row = draw_rows(r, n, to, 1);
    struct mat x = mat(draw_of(r, type, n * d), type, n, d);
    struct mat y =
        mat(r->variant ? (void *)output_int(r, "y", to * d) : output(r, "y", to * d), type, to, d);
    r->bytes = 2.0 * (double)(n * d) * (double)dtype_size(x.type);
    double *want = work(r, r->bench ? 1 : to * d);
    uint8_t *live = r->bench ? NULL : (last_output(r)->live = work(r, to * d));
    for (int64_t i = 0; live && i < n * d; i++)
        if (row[i / d] >= 0) {
            live[row[i / d] * d + i % d] = 1;
            want[row[i / d] * d + i % d] = get(x.data, type, i);
        }
    RUN(r, scatter_rows, y, x, row);
    if (stating(r))
        expect(r, "y", want);
}

static void case_gather_sum(struct run *r) /* variant 1: added to other rows */
{
    int64_t n = r->s->t, d = r->s->d, k = r->s->k, from = n * k + 2;
    const int32_t *place = draw_rows(r, n * k, from, 0);
    struct mat x = mat(draw(r, from * d, -1, 1), r->op->real, from, d);
    struct mat y = mat(output(r, "y", n * d), r->op->real, n, d);
    const double *res = r->variant ? draw(r, n * d, -1, 1) : NULL;
    r->bytes = (1.0 + (double)(r->variant + k)) * (double)(n * d) * real_bytes(r);
    RUN(r, gather_sum, y, res, x, place, k);
    if (!stating(r))
        return;
    double *want = work(r, n * d);
    for (int64_t i = 0; res && i < n * d; i++)
        want[i] = res[i];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++)
            for (int64_t c = 0; c < d && place[i * k + j] >= 0; c++)
                want[i * d + c] += ((const double *)x.data)[place[i * k + j] * d + c];
    expect(r, "y", want);
}
