/* attn.h -- cases: attention over spans of every kind. */

/* Variants: documents, some empty; two chunks of a longer sequence that share a prefix of keys;
 * fewer keys than queries, or none; one query each against a cache (decoding); keys in no order;
 * documents of one length.  The same again with values narrower than keys. */
enum { DOCUMENTS, CHUNKS, FEW_KEYS, DECODE, DISORDER, WHOLE, SPAN_KINDS };
static int kind_of(const struct run *r)
{
    return (int)(r->variant % SPAN_KINDS);
}

struct cut { /* spans as the host sees them */
    int32_t *q_at, *k_beg, *k_end;
    int64_t n, tk;
};

static void cut_documents(struct run *r, struct cut *s)
{
    const int32_t *len = draw_int(r, s->n, 0, 2 * r->s->span + 1);
    for (int64_t i = 0; i < s->n; i++) {
        int64_t n = kind_of(r) == WHOLE ? r->s->span : len[i];
        s->q_at[i + 1] = (int32_t)MIN(r->s->t, s->q_at[i] + n);
        s->k_beg[i] = s->q_at[i];
        s->k_end[i] = s->q_at[i + 1];
    }
    s->tk = r->s->t + 2; /* two keys that nobody sees */
}

static struct cut draw_cut(struct run *r)
{
    int64_t t = r->s->t;
    int64_t ones = MIN(t, 64); /* each has keys of its own, which are many numbers to draw */
    struct cut s = {.n = kind_of(r) == DECODE  ? ones
                         : kind_of(r) == WHOLE ? t / r->s->span
                                               : 2 * (t / MAX(1, r->s->span)) + 3};
    s.q_at = run_take(r, (s.n + 1) * 4);
    s.k_beg = run_take(r, s.n * 4);
    s.k_end = run_take(r, s.n * 4);
    const int32_t *any = draw_int(r, 2 * s.n, 0, 3 * r->s->span);
    cut_documents(r, &s);
    for (int64_t i = 0; i < s.n; i++) {
        int64_t queries = s.q_at[i + 1] - s.q_at[i];
        if (kind_of(r) == CHUNKS) { /* span i and the spans after it see the first keys again */
            s.k_beg[i] = (int32_t)(i % 2 ? s.k_beg[i - 1] : s.q_at[i]);
            s.k_end[i] = s.q_at[i + 1];
        } else if (kind_of(r) == FEW_KEYS) {
            s.k_end[i] = (int32_t)(s.k_beg[i] + (i % 3 ? queries / 2 : 0));
        } else if (kind_of(r) == DECODE) {
            s.q_at[i + 1] = (int32_t)i + 1;
            s.k_beg[i] = i ? s.k_end[i - 1] : 0;
            s.k_end[i] = s.k_beg[i] + any[i];
        } else if (kind_of(r) == DISORDER) {
            s.k_beg[i] = any[2 * i];
            s.k_end[i] = s.k_beg[i] + any[2 * i + 1];
        }
        s.tk = MAX(s.tk, s.k_end[i] + 1);
    }
    return s;
}

/* What the op is told of them. */
static struct spans spans_of(const struct run *r, const struct cut *c)
{
    struct spans s = {c->q_at, c->k_beg, c->k_end, c->n, 1, 1};
    s.whole = kind_of(r) == WHOLE;
    s.self = s.whole || kind_of(r) == DOCUMENTS || kind_of(r) == FEW_KEYS;
    for (int64_t i = 0; i < c->n; i++) {
        s.queries = MAX(s.queries, c->q_at[i + 1] - c->q_at[i]);
        s.keys = MAX(s.keys, c->k_end[i] - c->k_beg[i]);
    }
    return s;
}

struct attn_data {
    struct run *r;
    struct cut s;
    struct spans spans;
    double *q, *k, *v, *d_o, *o, *lse; /* as the op has them; f64 only in the definition's run */
    int64_t cv, ldq, ldk;
    double scale;
};

static struct attn_data draw_attn(struct run *r)
{
    const struct shape *s = r->s;
    int odd = s->c % 8 != 0; /* else rows are such as fast kernels take */
    struct attn_data a = {r, draw_cut(r)};
    a.spans = spans_of(r, &a.s);
    /* of two values, what bf16 leaves of o is too little for <do, o> to cancel <do, v> */
    a.cv = r->variant < SPAN_KINDS ? s->c : MAX(MIN(s->c, 4), s->c * 2 / 3);
    a.ldq = s->h * s->c + (r->bench ? 0 : odd ? 2 : 8);
    a.ldk = s->g * s->c + (r->bench ? 0 : odd ? 1 : 8);
    a.q = draw(r, s->t * a.ldq, -2, 2);
    a.k = draw(r, a.s.tk * a.ldk, -2, 2);
    a.v = draw(r, a.s.tk * a.ldk, -1, 1);
    a.scale = 1 / sqrt((double)s->c);
    double pairs = 0; /* of a query and a key it sees */
    for (int64_t i = 0; i < a.s.n; i++) {
        double n = a.s.q_at[i + 1] - a.s.q_at[i], m = a.s.k_end[i] - a.s.k_beg[i];
        pairs += n * MAX(0, m - (n - 1) / 2);
    }
    r->flops = 2 * pairs * (double)(s->h * (s->c + a.cv));
    r->bytes = (double)((s->t * s->h + a.s.tk * s->g) * (s->c + a.cv)) * real_bytes(r);
    return a;
}

static int64_t queries_in_spans(const struct attn_data *a)
{
    return a->s.q_at[a->s.n];
}

static void call_attn(const struct attn_data *a)
{
    const struct shape *s = a->r->s;
    RUN(a->r, attn, a->o, a->lse, a->q, a->k, a->v, a->spans, s->h, s->g, s->c, a->cv, a->ldq,
        a->ldk, a->scale);
}

/* One query and head, by the header's words. */
static void attn_naive(const struct attn_data *a, int64_t i, int64_t t, int64_t h, double *o,
                       double *lse)
{
    const struct shape *s = a->r->s;
    int64_t c = s->c, cv = a->cv, kv = h / (s->h / s->g);
    int64_t end = a->s.k_end[i] - (a->s.q_at[i + 1] - 1 - t);
    const double *q = a->q + t * a->ldq + h * c;
    double max = -INFINITY, sum = 0;
    memset(o, 0, (size_t)cv * 8);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = a->s.k_beg[i]; j < end; j++) {
            double score = 0;
            for (int64_t x = 0; x < c; x++)
                score += q[x] * a->k[j * a->ldk + kv * c + x] * a->scale;
            if (!pass) {
                max = MAX(max, score);
                continue;
            }
            sum += exp(score - max);
            for (int64_t x = 0; x < cv; x++)
                o[x] += exp(score - max) * a->v[j * a->ldk + kv * cv + x];
        }
    for (int64_t x = 0; sum > 0 && x < cv; x++)
        o[x] /= sum;
    *lse = max + log(sum);
}

static void case_attn(struct run *r)
{
    struct attn_data a = draw_attn(r);
    int64_t h = r->s->h, c = a.cv, t = queries_in_spans(&a);
    a.o = output(r, "o", t * h * c);
    a.lse = output_stat(r, "lse", t * h);
    call_attn(&a);
    if (!stating(r))
        return;
    double *want = work(r, t * h * c), *want_lse = work(r, t * h);
    for (int64_t i = 0; i < a.s.n; i++)
        for (int64_t j = a.s.q_at[i] * h; j < a.s.q_at[i + 1] * h; j++)
            attn_naive(&a, i, j / h, j % h, want + j * c, want_lse + j);
    expect(r, "o", want);
    expect(r, "lse", want_lse);
}

static double attn_loss(void *arg) /* <do, attn(q, k, v)> */
{
    struct attn_data *a = arg;
    double sum = 0;
    call_attn(a);
    for (int64_t i = 0; i < queries_in_spans(a) * a->r->s->h * a->cv; i++)
        sum += a->o[i] * a->d_o[i];
    return sum;
}

static void case_attn_dgrad(struct run *r)
{
    const struct shape *s = r->s;
    struct attn_data a = draw_attn(r);
    int64_t t = queries_in_spans(&a), n = t * s->h * a.cv;
    a.o = run_take(r, n * 8);
    a.lse = run_take(r, t * s->h * 8);
    a.d_o = draw(r, n, -1, 1);
    struct bench *bench = r->bench;
    r->bench = NULL; /* not this one */
    call_attn(&a);
    r->bench = bench;
    double *dq = output(r, "dq", t * a.ldq);
    only_columns(r, s->h * s->c, a.ldq);
    double *dk = output(r, "dk", a.s.tk * a.ldk);
    only_columns(r, s->g * s->c, a.ldk);
    double *dv = output(r, "dv", a.s.tk * a.ldk);
    only_columns(r, s->g * a.cv, a.ldk);
    r->flops *= 2.5;
    r->bytes *= 2;
    RUN(r, attn_dgrad, dq, dk, dv, a.d_o, a.q, a.k, a.v, a.o, a.lse, a.spans, a.s.tk, s->h, s->g,
        s->c, a.cv, a.ldq, a.ldk, a.scale);
    if (!stating(r))
        return;
    double *into[] = {a.q, a.k, a.v}, *grad[] = {dq, dk, dv};
    int64_t rows[] = {t, a.s.tk, a.s.tk}, ld[] = {a.ldq, a.ldk, a.ldk};
    int64_t cols[] = {s->h * s->c, s->g * s->c, s->g * a.cv};
    for (int i = 0; i < 3; i++) {
        double *dense = work(r, rows[i] * ld[i]); /* 0 in the gaps, whose values nobody reads */
        for (int64_t j = 0; j < rows[i] * ld[i]; j++)
            dense[j] = j % ld[i] < cols[i] ? grad[i][j] : 0;
        differ(r, dense, into[i], rows[i] * ld[i], attn_loss, &a);
    }
}
