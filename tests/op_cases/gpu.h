/* gpu.h -- the CUDA twins against the f64 definition, at the odd shapes of every op and at shapes
 * that the tensor-core kernels take.  Nothing is stated again: the definition has been held to its
 * words. */

/*   t    d    h  g  c   e  k  f    v    a  span */
static const struct shape whole_tiles[] = {
    {300, 128, 4, 2, 64, 5, 2, 64, 256, 3, 60},
    {700, 192, 4, 1, 128, 6, 3, 192, 264, 2, 300},
    {600, 256, 2, 2, 128, 3, 2, 320, 96, 2, 500},
    {1, 256, 16, 1, 128, 6, 2, 320, 96, 2, 900}, /* few rows, as in decoding */
    {5, 256, 8, 2, 64, 40, 3, 64, 256, 2, 40},
    {13, 128, 12, 1, 128, 12, 4, 96, 1088, 2, 700},
    {20, 160, 8, 8, 64, 16, 6, 48, 3072, 2, 100},
    {40, 512, 4, 4, 128, 12, 2, 128, 128, 2, 300},
    {64, 128, 8, 1, 128, 70, 8, 64, 4104, 2, 64},
    {150, 128, 4, 4, 192, 5, 2, 64, 96, 2, 90}, /* of latent attention: values of 128 */
    {260, 3136, 2, 1, 64, 5, 2, 64, 64, 2, 100}, /* and products of long rows */
    {200, 64, 2, 1, 64, 3, 2, 3136, 64, 2, 100},
    {3100, 320, 2, 1, 64, 2, 2, 256, 64, 2, 100},
};

/* More tiles of experts' products than a GPU has blocks, which then take several. */
static const struct shape many_tiles = {1500, 64, 2, 1, 64, 3, 2, 1536, 64, 2, 300};

struct gpu_verdict {
    double distance;
    int unwritten, trespassed, reruns_differ;
};

/* A bf16 result is off by rounding of what went into it; the rest of the bound is for sums in f32.
 */
static const struct gpu_type {
    enum dtype type;
    const char *name;
    double most;
} gpu_types[] = {{DT_F32, "f32", 1e-4}, {DT_BF16, "bf16", 1.5e-2}};

static void gpu_judge(const struct op_case *c, const struct shape *s, int64_t variant,
                      const struct gpu_type *type, struct lane *cpu, struct lane *gpu,
                      struct gpu_verdict *v)
{
    enum { DEFINITION, FAST, SAME, AGAIN, RUNS }; /* SAME and AGAIN must give the same bits */
    struct run *r = xcalloc(RUNS, sizeof *r);
    struct verdict written = {0};
    for (int i = 0; i < RUNS; i++) {
        r[i].op = i == DEFINITION ? op_table("cpu", DT_F64) : op_table("cuda", type->type);
        r[i].l = i == DEFINITION ? cpu : gpu;
        r[i].s = s;
        r[i].variant = variant;
        r[i].coarse = type->type == DT_BF16;
        r[i].weight = type->type;
        gpu->deterministic = i >= SAME;
        c->run(&r[i]);
        gpu->dev->wait(gpu);
        if (i != DEFINITION)
            check_written(&r[i], &written);
    }
    double distance = MAX(run_distance(&r[FAST], &r[DEFINITION]),
                          run_distance(&r[SAME], &r[DEFINITION]));
    if (distance > type->most)
        printf("# %s/%lld %s: %.1e at T %lld, D %lld, C %lld\n", c->name, (long long)variant,
               type->name, distance, (long long)s->t, (long long)s->d, (long long)s->c);
    v->distance = MAX(v->distance, distance);
    v->unwritten += written.unwritten;
    v->trespassed += written.trespassed;
    v->reruns_differ += !same_bits(&r[SAME], &r[AGAIN]);
    for (int i = 0; i < RUNS; i++)
        run_release(&r[i]);
    free(r);
}

static void gpu_test_case(const struct op_case *c, struct lane *cpu, struct lane *gpu)
{
    for (int64_t t = 0; t < ARRAY_LEN(gpu_types); t++) {
        struct gpu_verdict v = {0};
        for (int64_t j = 0; j < c->variants; j++) {
            for (int64_t i = 0; i < ARRAY_LEN(shapes); i++)
                gpu_judge(c, &shapes[i], j, &gpu_types[t], cpu, gpu, &v);
            for (int64_t i = 0; gpu_types[t].type == DT_BF16 && i < ARRAY_LEN(whole_tiles); i++)
                gpu_judge(c, &whole_tiles[i], j, &gpu_types[t], cpu, gpu, &v);
        }
        if (gpu_types[t].type == DT_BF16 && !strncmp(c->name, "experts", 7))
            gpu_judge(c, &many_tiles, 0, &gpu_types[t], cpu, gpu, &v);
        ok(v.distance <= gpu_types[t].most, "%s: cuda %s is near f64 (%.0e)", c->name,
           gpu_types[t].name, v.distance);
        ok(!v.unwritten && !v.trespassed && !v.reruns_differ,
           "%s: cuda %s writes all it should, nothing else, and where it must the same bits again "
           "(%d, %d, %d)",
           c->name, gpu_types[t].name, v.unwritten, v.trespassed, v.reruns_differ);
    }
}

static void gpu_test(const char *only)
{
    const char *why = dev_missing("cuda");
    if (why) {
        skip("the CUDA twins are near f64", why);
        return;
    }
    struct lane cpu, gpu;
    lane_init(&cpu, dev_open("cpu"), opt_threads());
    lane_init(&gpu, dev_open("cuda"), 1);
    for (int64_t i = 0; i < ARRAY_LEN(cases); i++)
        if (!only || !strcmp(only, cases[i].name))
            gpu_test_case(&cases[i], &cpu, &gpu);
    lane_release(&gpu);
    lane_release(&cpu);
}
