/* bench.h -- how long each op takes, beside what the machine can do in the same minute. */

/* A device is measured at the shapes that matter there, in the type it works in. */
struct bench_shape {
    const char *name;
    struct shape s;
    const char *only; /* cases whose names begin so; NULL: all */
    int64_t variant;  /* the only one, or -1 */
};

/*   t    d    h  g  c   e  k  f    v    a  span */
static const struct bench_shape cpu_shapes[] = {
    {"small", {4096, 128, 4, 2, 32, 8, 2, 192, 2048, 16, 64}, NULL, -1},
    {0},
};
/* Models at their true width, 16,384 tokens in rows of 4096, and attention at other lengths: a row
 * is one document, or packed with documents of a quarter of its length on average. */
#define QWEN3(t, span)                                                                             \
    {                                                                                              \
        t, 2048, 32, 4, 128, 128, 8, 768, 151936, 4, span                                          \
    }
#define V2LITE(t, span)                                                                            \
    {                                                                                              \
        t, 2048, 16, 16, 192, 64, 6, 1408, 102400, 4, span                                         \
    }
static const struct bench_shape cuda_shapes[] = {
    {"qwen3-30b-a3b", QWEN3(16384, 4096), NULL, -1},
    {"mixtral-8x7b", {16384, 4096, 32, 8, 128, 8, 2, 14336, 32000, 4, 4096}, NULL, -1},
    {"olmoe-1b-7b", {16384, 2048, 16, 16, 128, 64, 8, 1024, 50304, 4, 4096}, NULL, -1},
    {"v2-lite", V2LITE(16384, 4096), "attn", WHOLE + SPAN_KINDS},
    {"v2-lite packed", V2LITE(16384, 1024), "attn", DOCUMENTS + SPAN_KINDS},
    {"v2-lite 16k", V2LITE(16384, 16384), "attn", WHOLE + SPAN_KINDS},
    {"v2-lite", V2LITE(16384, 4096), "turn_pairs", -1},
    {"v2-lite", V2LITE(16384, 4096), "join_heads", -1},
    {"v2-lite", V2LITE(16384, 4096), "part_heads", -1},
    {"4k whole", QWEN3(16384, 4096), "attn", WHOLE},
    {"4k packed", QWEN3(16384, 1024), "attn", DOCUMENTS},
    {"16k whole", QWEN3(16384, 16384), "attn", WHOLE},
    {"16k packed", QWEN3(16384, 4096), "attn", DOCUMENTS},
    {"32k whole", QWEN3(32768, 32768), "attn", WHOLE},
    {"32k packed", QWEN3(32768, 8192), "attn", DOCUMENTS},
    {0},
};

static const struct bench_device {
    const char *name;
    enum dtype type;
    int64_t product; /* rows and columns of the matrices of the ceiling */
    int64_t copy;    /* bytes of its copy */
    int64_t stale;   /* numbers to read between two calls */
    const struct bench_shape *shapes;
} bench_devices[] = {
    {"cpu", DT_F32, 1024, 64 << 20, 0, cpu_shapes},
    {"cuda", DT_BF16, 8192, 1 << 30, 48 << 20, cuda_shapes},
};

static const struct op_case layer_cases[] = {CASE(moe_forward, 2, 2), CASE(moe_backward, 2, 2)};

struct ceiling {
    double flops, bytes; /* a second */
};

/* A large product and a copy.  On the CPU rows are gathered, since all threads share in that. */
static struct ceiling measure_ceiling(const struct bench_device *d, struct lane *l, struct bench *b,
                                      const struct op *op)
{
    int64_t n = d->product, size = dtype_size(d->type), cols = 1024, rows = d->copy / cols / size;
    struct run r = {.op = op, .l = l, .bench = b};
    struct mat a = mat(draw(&r, n * n, -1, 1), d->type, n, n), c = a, x = a, y = a;
    struct ceiling top;
    c.data = run_take(&r, n * n * size);
    b->for_s = 0.3;
    RUN(&r, gemm, c, a, a, 0, 1, 0);
    top.flops = 2.0 * (double)(n * n * n) / r.call_s;
    int32_t *row = draw_int(&r, rows, 0, 1);
    for (int64_t i = 0; i < rows; i++)
        row[i] = (int32_t)i;
    x = mat(draw(&r, rows * cols, -1, 1), d->type, rows, cols);
    y = mat(run_take(&r, d->copy), d->type, rows, cols);
    if (l->dev->is_host)
        RUN(&r, gather_rows, y, x, row);
    else
        TIMED(&r) l->dev->copy(l, y.data, x.data, d->copy);
    top.bytes = 2.0 * (double)d->copy / r.call_s;
    b->for_s = 0.05;
    run_release(&r);
    return top;
}

static void bench_case(const struct op_case *c, const struct bench_shape *s, struct lane *l,
                       struct bench *b, const struct op *op, struct ceiling top)
{
    for (int64_t v = 0; v < MAX(c->timed, s->variant + 1); v++) {
        if (s->variant >= 0 && v != s->variant)
            continue;
        struct run r = {.op = op, .l = l, .s = &s->s, .bench = b, .variant = v};
        c->run(&r);
        if (r.calls) {
            double floor_s = fmax(r.flops / top.flops, r.bytes / top.bytes);
            printf("%-18s /%-2lld %-14s %10.1f %8.1f %9.3f %5.0f\n", c->name, (long long)v, s->name,
                   r.call_s * 1e6, r.bytes / r.call_s * 1e-9, r.flops / r.call_s * 1e-12,
                   100 * floor_s / r.call_s);
        } else {
            printf("%-18s /%-2lld %-14s skipped: MOE_ROUTING names no table for it\n", c->name,
                   (long long)v, s->name);
        }
        fflush(stdout);
        run_release(&r);
    }
}

static void bench_cases(const struct op_case *c, int64_t n, const struct bench_shape *s,
                        const char *only, struct lane *l, struct bench *b, const struct op *op,
                        struct ceiling top)
{
    for (int64_t i = 0; i < n; i++)
        if ((!only || !strcmp(only, c[i].name)) &&
            (!s->only || !strncmp(s->only, c[i].name, strlen(s->only))))
            bench_case(&c[i], s, l, b, op, top);
}

static int bench(const char *device, const char *only)
{
    const struct bench_device *d = bench_devices;
    struct lane l;
    if (dev_missing(device)) {
        printf("skipped: %s\n", dev_missing(device));
        return 0;
    }
    while (strcmp(d->name, device))
        d++;
    const struct op *op = op_table(device, d->type);
    struct dev_ops both = *dev_open(device); /* the pool's memory is reached by both */
    both.alloc = both.alloc_both;
    lane_init(&l, dev_open(device), opt_threads());
    struct bench b = {.begun.timed = 1, .ended.timed = 1};
    struct heap heap;
    heap_init(&heap, &both);
    arena_init(&b.pool, &heap);
    b.sum = lane_alloc(&l, 8, "a benchmark");
    b.stale =
        mat(lane_alloc(&l, d->stale * dtype_size(op->stat), "a benchmark"), op->stat, 1, d->stale);
    struct ceiling top = measure_ceiling(d, &l, &b, op);
    printf("%s %s, %lld threads: product of %lld^3 %.3f TFLOP/s, copy of %lld MiB %.1f GB/s (read "
           "and written)\n",
           device, dtype_name(d->type), (long long)opt_threads(), (long long)d->product,
           top.flops * 1e-12, (long long)(d->copy >> 20), top.bytes * 1e-9);
    printf("%-22s %-14s %10s %8s %9s %5s\n", "op/variant", "shape", "us", "GB/s", "TFLOP/s", "%");
    for (const struct bench_shape *s = d->shapes; s->name; s++) {
        bench_cases(cases, ARRAY_LEN(cases), s, only, &l, &b, op, top);
        bench_cases(layer_cases, ARRAY_LEN(layer_cases), s, only, &l, &b, op, top);
    }
    arena_release(&b.pool);
    heap_release(&heap);
    l.dev->free(b.sum);
    l.dev->free(b.stale.data);
    lane_release(&l);
    return 0;
}
