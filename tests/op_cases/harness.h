/* harness.h -- one case per op, run four times: f64 and f32, one thread and three.
 *
 * A case asks for inputs and outputs and calls the op once through RUN(); what it asks for is drawn
 * from the same numbers in every run, and what it gets as output is poisoned or, where the op
 * accumulates, drawn as well.  In the first run (f64, one thread: the definition) the case also
 * states what must come out, by plain loops (expect) or by finite differences (differ).
 *
 * With --bench RUN() repeats and takes the time: a case then takes its memory from a pool that host
 * and device both reach, and its large tensors are never touched by the host. */
#ifndef HARNESS_H
#define HARNESS_H

#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    int64_t t, d, h, g, c, e, k, f, v, a, span; /* span: mean length of a document */
};

struct tensor {
    const char *name;
    void *data;    /* (n) of type */
    double *start; /* (n) what it held before the op */
    uint8_t *live; /* (n) 0 where the op must not write, or NULL */
    int64_t n;
    enum dtype type;
    int chance; /* rounded up or down by chance: now and then f32 falls on the other side of f64 */
};

struct verdict { /* the worst of all shapes and variants */
    double formula, gradient, f32;
    int stated, unwritten, trespassed, threads_differ;
};

enum { SAMPLES = 64 };
struct bench { /* what the timed runs of a device share */
    struct arena pool;
    struct event begun, ended;
    struct mat stale; /* S (1,N), read between calls so that none finds its data in a cache */
    void *sum;
    double for_s; /* how long to repeat */
};

struct run {
    const struct op *op;
    struct lane *l;
    const struct shape *s;
    int64_t variant;
    struct verdict *verdict; /* of the first run, NULL in the others */
    struct tensor out[16];
    int64_t outs, draws;
    void *memory[96]; /* what the op may be given: on a GPU, host memory that it can reach */
    int64_t memories;
    void *host[96]; /* what only the harness looks at */
    int64_t hosts;
    int coarse;          /* numbers of the op's type are drawn as bf16 can hold them */
    enum dtype weight;   /* of weights that are their own masters; 0: the op's type */
    double flops, bytes; /* of one call, set by the case before RUN() */
    struct bench *bench; /* NULL in a test */
    double sample_s[SAMPLES], spent_s;
    double call_s; /* the median of what a call took */
    int64_t calls;
};

/* What follows is done once in a test, and again and again with the time taken in a benchmark. */
#define TIMED(r)          for (run_begin(r); run_again(r);)
#define RUN(r, name, ...) TIMED(r)(r)->op->name((r)->l, __VA_ARGS__)

static inline void run_begin(struct run *r)
{
    r->calls = -1;
    r->spent_s = 0;
}

static inline int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether to call (again).  The first call of a benchmark warms up and does not count. */
static inline int run_again(struct run *r)
{
    struct bench *b = r->bench;
    const struct dev_ops *dev = r->l->dev;
    if (++r->calls && b)
        dev->record(r->l, &b->ended);
    if (r->calls)
        dev->wait(r->l);
    arena_reset(&r->l->scratch);
    if (!b)
        return !r->calls;
    if (r->calls > 1)
        r->spent_s += r->sample_s[r->calls - 2] = dev->elapsed(&b->begun, &b->ended);
    if (r->calls < 5 || (r->spent_s < b->for_s && r->calls <= SAMPLES)) {
        if (b->stale.cols)
            r->op->sum_squares(r->l, b->sum, b->stale);
        dev->record(r->l, &b->begun);
        return 1;
    }
    qsort(r->sample_s, (size_t)r->calls - 1, sizeof *r->sample_s, by_value);
    r->call_s = r->sample_s[(r->calls - 1) / 2];
    return 0;
}

static inline double real_bytes(const struct run *r)
{
    return (double)dtype_size(r->op->real);
}
static inline double stat_bytes(const struct run *r)
{
    return (double)dtype_size(r->op->stat);
}

static inline void *run_take(struct run *r, int64_t bytes)
{
    if (r->bench) {
        void *p = arena_take(&r->bench->pool, bytes);
        r->l->dev->zero(r->l, p, bytes);
        r->l->dev->wait(r->l);
        return p;
    }
    if (r->memories == ARRAY_LEN(r->memory))
        die("a case asks for more than %lld tensors", (long long)ARRAY_LEN(r->memory));
    void *p = r->memory[r->memories++] = r->l->dev->alloc_host(MAX(1, bytes));
    return memset(p, 0, (size_t)MAX(1, bytes));
}
/* Memory for what a case or the harness computes itself. */
static inline void *work(struct run *r, int64_t n /* of 8 bytes */)
{
    if (r->hosts == ARRAY_LEN(r->host))
        die("a case computes more than %lld tensors", (long long)ARRAY_LEN(r->host));
    return r->host[r->hosts++] = xcalloc((size_t)MAX(1, n), 8);
}

static inline double get(const void *p, enum dtype type, int64_t i)
{
    float x;
    if (type == DT_BF16)
        dtype_convert(&x, DT_F32, (const uint16_t *)p + i, DT_BF16, 1);
    return type == DT_F64    ? ((const double *)p)[i]
           : type == DT_F32  ? (double)((const float *)p)[i]
           : type == DT_BF16 ? (double)x
                             : ((const int32_t *)p)[i];
}
static inline void set(void *p, enum dtype type, int64_t i, double x)
{
    float y = (float)x;
    if (type == DT_F64)
        ((double *)p)[i] = x;
    else if (type == DT_F32)
        ((float *)p)[i] = y;
    else if (type == DT_BF16)
        dtype_convert((uint16_t *)p + i, DT_BF16, &y, DT_F32, 1);
    else
        ((int32_t *)p)[i] = (int32_t)x;
}

/* For a benchmark: normal numbers of the mean and the spread of even ones between lo and hi, cut
 * off there.  A block of them is repeated on the device; its length is odd, so that neighbouring
 * rows of a matrix differ, since a product of equal rows costs less power and so less time. */
static inline void fill_normal(struct run *r, void *p, enum dtype type, int64_t n, double lo,
                               double hi)
{
    enum { BLOCK = (1 << 20) - 3 };
    static float *normal;
    int64_t size = dtype_size(type), done = MIN(n, (int64_t)BLOCK);
    if (!normal) {
        normal = xmalloc(BLOCK * sizeof *normal);
        for (int64_t i = 0; i < BLOCK; i++)
            normal[i] = (float)rng_normal(1, 0, (uint64_t)i);
    }
    char *host = xmalloc((size_t)(done * size));
    for (int64_t i = 0; i < done; i++)
        set(host, type, i, fmin(hi, fmax(lo, (lo + hi) / 2 + (hi - lo) / 3.5 * normal[i])));
    r->l->dev->put(r->l, p, host, done * size);
    for (; done < n; done += MIN(done, n - done))
        r->l->dev->copy(r->l, (char *)p + done * size, p, MIN(done, n - done) * size);
    r->l->dev->wait(r->l);
    free(host);
}

/* n numbers between lo and hi that f32 (coarse: bf16) holds exactly, the same in every run. */
static inline void *draw_of_type(struct run *r, enum dtype type, int64_t n, double lo, double hi,
                                 int coarse)
{
    void *p = run_take(r, n * dtype_size(type));
    uint64_t key = rng_key((uint64_t)r->draws++, "op");
    if (r->bench)
        fill_normal(r, p, type, n, lo, hi);
    for (int64_t i = 0; !r->bench && i < n; i++) {
        float x = (float)(lo + (hi - lo) * rng_uniform(key, 0, (uint64_t)i));
        if (coarse) {
            uint16_t near;
            set(&near, DT_BF16, 0, x);
            x = (float)get(&near, DT_BF16, 0);
        }
        set(p, type, i, x);
    }
    return p;
}
/* Of activations and weights; of statistics. */
static inline void *draw(struct run *r, int64_t n, double lo, double hi)
{
    return draw_of_type(r, r->op->real, n, lo, hi, r->coarse);
}
static inline void *draw_stat(struct run *r, int64_t n, double lo, double hi)
{
    return draw_of_type(r, r->op->stat, n, lo, hi, 0);
}
static inline int32_t *draw_int(struct run *r, int64_t n, int64_t lo, int64_t hi /* beyond */)
{
    int32_t *p = run_take(r, n * 4);
    uint64_t key = rng_key((uint64_t)r->draws++, "op");
    for (int64_t i = 0; i < n; i++)
        p[i] = (int32_t)floor((double)lo + (double)(hi - lo) * rng_uniform(key, 0, (uint64_t)i));
    return p;
}

static inline void *output_of(struct run *r, const char *name, enum dtype type, void *data,
                              int64_t n)
{
    struct tensor *t = &r->out[r->outs++];
    *t = (struct tensor){name, data, NULL, NULL, n, type};
    if (r->bench)
        return data;
    t->start = work(r, n);
    for (int64_t i = 0; i < n; i++)
        t->start[i] = get(data, type, i);
    return data;
}
/* "=": poisoned, so that what is not written shows. */
static inline void *output_of_type(struct run *r, const char *name, enum dtype type, int64_t n)
{
    void *p = run_take(r, n * dtype_size(type));
    for (int64_t i = 0; !r->bench && i < n; i++)
        set(p, type, i, NAN);
    return output_of(r, name, type, p, n);
}
static inline void *output(struct run *r, const char *name, int64_t n)
{
    return output_of_type(r, name, r->op->real, n);
}
static inline void *output_stat(struct run *r, const char *name, int64_t n)
{
    return output_of_type(r, name, r->op->stat, n);
}
enum { POISON = -77777777 };
static inline int32_t *output_int(struct run *r, const char *name, int64_t n)
{
    int32_t *p = run_take(r, n * 4);
    for (int64_t i = 0; !r->bench && i < n; i++)
        p[i] = POISON;
    return output_of(r, name, DT_I32, p, n);
}
/* "+=" and in place. */
static inline void *inout(struct run *r, const char *name, int64_t n)
{
    return output_of(r, name, r->op->real, draw(r, n, -1, 1), n);
}
static inline void *inout_stat(struct run *r, const char *name, int64_t n)
{
    return output_of(r, name, r->op->stat, draw_stat(r, n, -1, 1), n);
}

/* A weight gradient "dw".  kind: bit 0 adds to it, bit 1 has it in the type of activations. */
enum { GRAD_KINDS = 4 };
static inline struct mat gradient(struct run *r, int64_t rows, int64_t cols, int64_t kind)
{
    enum dtype type = kind & 2 ? r->op->real : r->op->stat;
    void *p = kind & 1
                  ? output_of(r, "dw", type, draw_of_type(r, type, rows * cols, -1, 1, r->coarse),
                              rows * cols)
                  : output_of_type(r, "dw", type, rows * cols);
    return mat(p, type, rows, cols);
}
/* In the definition's run: what dw held where the op adds, else zeros. */
static inline double *gradient_start(struct run *r, int64_t kind)
{
    const struct tensor *t = &r->out[r->outs - 1];
    double *want = work(r, t->n);
    for (int64_t i = 0; kind & 1 && i < t->n; i++)
        want[i] = t->start[i];
    return want;
}

static inline struct tensor *last_output(struct run *r)
{
    return &r->out[r->outs - 1];
}
/* Only columns 0..cols of the last output's rows, ld apart, may be written. */
static inline void only_columns(struct run *r, int64_t cols, int64_t ld)
{
    struct tensor *t = last_output(r);
    if (r->bench)
        return;
    t->live = work(r, t->n);
    for (int64_t i = 0; i < t->n; i++)
        t->live[i] = i % ld < cols;
}

/* max|a-b| / max|b|; infinite where either is no number.  Equal infinities agree.  Inputs are near
 * 1, so a result that is 0 but for what cancels is measured against SMALL. */
#define SMALL 1e-3
struct distance {
    double off, size;
};
static inline void distance_add(struct distance *d, double a, double b)
{
    double off = a == b ? 0 : fabs(a - b);
    d->off = off >= 0 ? MAX(d->off, off) : INFINITY;
    if (isfinite(b))
        d->size = MAX(d->size, fabs(b));
}
static inline double distance_value(const struct distance *d)
{
    return d->off / MAX(d->size, SMALL);
}

/* In the definition's run: the tensor must equal want[] (f64), which loops of the case computed. */
static inline int stating(const struct run *r)
{
    return r->verdict != NULL;
}
static inline const struct tensor *output_named(const struct run *r, const char *name)
{
    for (int64_t i = 0; i < r->outs; i++)
        if (!strcmp(r->out[i].name, name))
            return &r->out[i];
    die("no output %s", name);
}
static inline void expect(struct run *r, const char *name, const double *want)
{
    const struct tensor *t = output_named(r, name);
    struct distance d = {0};
    for (int64_t i = 0; i < t->n; i++)
        if (!t->live || t->live[i])
            distance_add(&d, get(t->data, t->type, i), want[i]);
    r->verdict->formula = MAX(r->verdict->formula, distance_value(&d));
    r->verdict->stated = 1;
}

/* In the definition's run: grad (n), what the op gave, against central differences of loss() in
 * each of x (n), or in some of them, evenly chosen, when they are many. */
static inline void differ(struct run *r, const double *grad, double *x, int64_t n,
                          double (*loss)(void *arg), void *arg)
{
    enum { MOST = 40 };
    const double h = 1e-5;
    struct distance d = {0};
    for (int64_t i = 0; i < n; i++)
        d.size = MAX(d.size, fabs(grad[i]));
    for (int64_t j = 0; j < MIN(n, MOST); j++) {
        int64_t i = n <= MOST ? j : j * n / MOST + j % 3 * (n / MOST) / 3;
        double keep = x[i];
        x[i] = keep + h;
        double above = loss(arg);
        x[i] = keep - h;
        double below = loss(arg);
        x[i] = keep;
        distance_add(&d, (above - below) / (2 * h), grad[i]);
    }
    r->verdict->gradient = MAX(r->verdict->gradient, distance_value(&d));
    r->verdict->stated = 1;
}

#endif
