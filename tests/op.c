/* op.c -- every op of lib/op/op_list.h is held to its words, to itself in f32 and to itself on
 * three threads; with --bench [cpu|cuda] [OP], how long each takes.
 *
 * The claims are made of the list itself: an op without a case fails.  What an op must give is
 * stated in f64 by plain loops or by finite differences (tests/op_cases/), at the worst of several
 * odd shapes.  Where there is a GPU, its twins are held to the f64 result; --gpu [OP] does only
 * that. */
#include "tap.h"

#include "op_cases/harness.h"

#include "op_cases/norm.h"
#include "op_cases/dense.h"
#include "op_cases/attn.h"
#include "op_cases/latent.h"
#include "op_cases/route.h"
#include "op_cases/experts.h"
#include "op_cases/head.h"
#include "op_cases/draw.h"
#include "op_cases/optim.h"
#include "op_cases/pair.h"
#include "op_cases/layer.h"

#define CASE(name, variants, timed)                                                                \
    {                                                                                              \
#name, case_##name, variants, timed                                                        \
    }
static const struct op_case {
    const char *name;
    void (*run)(struct run *r);
    int64_t variants, timed; /* --bench takes the first few */
} cases[] = {
    CASE(embed, 1, 1),
    CASE(embed_wgrad, GRAD_KINDS, 2),
    CASE(rmsnorm, 1, 1),
    CASE(add_rmsnorm, 2, 1),
    CASE(rmsnorm_grad, 2 * GRAD_KINDS, 2),
    CASE(gemm, 32, 8),
    CASE(add_bias, 1, 1),
    CASE(bias_wgrad, GRAD_KINDS, 2),
    CASE(rope, QK_VARIANTS, 6),
    CASE(rope_dgrad, QK_VARIANTS, 6),
    CASE(rope_wgrad, GRAD_KINDS, 2),
    CASE(qk_dots, 1, 1),
    CASE(attn, 2 * SPAN_KINDS, DECODE + 1),
    CASE(attn_dgrad, 2 * SPAN_KINDS, CHUNKS + 1),
    CASE(turn_pairs, 2, 1),
    CASE(join_heads, 1, 1),
    CASE(part_heads, 1, 1),
    CASE(route, 8 * ROUTERS, 2),
    CASE(route_dgrad, 2 * ROUTERS, 2),
    CASE(balance, 2, 0),
    CASE(route_loss, 1, 1),
    CASE(drop, 8, 4),
    CASE(row_map, 2, 1),
    CASE(pack_rows, 2, 1),
    CASE(experts_up, 2, 1),
    CASE(experts_down, 2, 1),
    CASE(experts_dh, 4, 1),
    CASE(experts_dx, 2, 1),
    CASE(experts_up_wgrad, 2 * GRAD_KINDS, 1),
    CASE(experts_down_wgrad, 2 * GRAD_KINDS, 1),
    CASE(swiglu, 2, 2),
    CASE(swiglu_dgrad, 2, 2),
    CASE(gather_rows, 2, 1),
    CASE(scatter_rows, 2, 1),
    CASE(gather_sum, 2, 2),
    CASE(lse_part, 2, 1),
    CASE(lse_join, 2, 2),
    CASE(logits_dgrad, 2, 1),
    CASE(draw, DRAWS, DRAWS),
    CASE(nll_dgrad, 1, 1),
    CASE(nll_loss, 1, 1),
    CASE(sum_squares, 2, 1),
    CASE(step_control, ARRAY_LEN(controls), 0),
    CASE(first_bad, 6, 0),
    CASE(adamw, UPDATES, 8),
    CASE(sgd, UPDATES, 3),
    CASE(pair_dgrad, 1, 1),
    CASE(pair_loss, 1, 1),
};

static const char *const listed[] = {
#define OP(name, args) #name,
#include "op/op_list.h"
#undef OP
};

/*   t    d    h  g  c   e  k  f    v    a  span */
static const struct shape shapes[] = {
    {1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1},
    {7, 7, 2, 1, 6, 3, 2, 7, 7, 2, 3},
    {127, 129, 4, 2, 8, 5, 2, 33, 127, 3, 20},
    {129, 127, 3, 3, 34, 8, 3, 127, 129, 1, 129},
    {0, 5, 2, 2, 4, 2, 1, 3, 5, 1, 1},
    {513, 130, 2, 1, 16, 6, 2, 70, 300, 4, 150}, /* several tasks even for what is cheap */
    {3, 1031, 1, 1, 4, 2, 1, 5, 9, 1, 2},        /* rows longer than a block is wide */
    {2, 8208, 1, 1, 4, 2, 1, 5, 9, 1, 2},
};
static void run_release(struct run *r)
{
    if (r->bench)
        arena_reset(&r->bench->pool);
    for (int64_t i = 0; i < r->memories; i++)
        r->l->dev->free_host(r->memory[i]);
    for (int64_t i = 0; i < r->hosts; i++)
        free(r->host[i]);
}

static int same_bits(const struct run *a, const struct run *b)
{
    for (int64_t i = 0; i < a->outs; i++)
        if (memcmp(a->out[i].data, b->out[i].data,
                   (size_t)(a->out[i].n * dtype_size(a->out[i].type))))
            return 0;
    return 1;
}

/* Elements that should have been written and were not, and the reverse. */
static void check_written(const struct run *r, struct verdict *v)
{
    for (int64_t i = 0; i < r->outs; i++)
        for (int64_t j = 0; j < r->out[i].n; j++) {
            const struct tensor *t = &r->out[i];
            double x = get(t->data, t->type, j), was = t->start[j];
            if (!t->live || t->live[j])
                v->unwritten += isnan(x) || x == POISON;
            else
                v->trespassed += !(x == was || (isnan(x) && isnan(was)));
        }
}

static double run_distance(const struct run *a, const struct run *b)
{
    double worst = 0;
    for (int64_t i = 0; i < a->outs; i++) {
        const struct tensor *x = &a->out[i], *y = &b->out[i];
        struct distance d = {0};
        int64_t fell = 0;
        for (int64_t j = 0; j < x->n; j++) {
            double p = get(x->data, x->type, j), q = get(y->data, y->type, j);
            if (x->chance && p != q && fabs(p - q) <= 0x1p-7 * fmax(fabs(p), fabs(q)))
                fell++;
            else if (!x->live || x->live[j])
                distance_add(&d, p, q);
        }
        worst = MAX(worst, fell > 1 + x->n / 500 ? INFINITY : distance_value(&d));
    }
    return worst;
}

static void judge(const struct op_case *c, const struct shape *s, int64_t variant, struct lane *one,
                  struct lane *three, struct verdict *v)
{
    enum { F64, F64_THREADS, F32, F32_THREADS, RUNS };
    struct run *r = xcalloc(RUNS, sizeof *r);
    for (int i = 0; i < RUNS; i++) {
        r[i].op = op_table("cpu", i < F32 ? DT_F64 : DT_F32);
        r[i].l = i == F64 || i == F32 ? one : three;
        r[i].s = s;
        r[i].variant = variant;
        r[i].verdict = i == F64 ? v : NULL;
        r[i].weight = DT_BF16;
        c->run(&r[i]);
        check_written(&r[i], v);
    }
    v->threads_differ +=
        !same_bits(&r[F64], &r[F64_THREADS]) + !same_bits(&r[F32], &r[F32_THREADS]);
    v->f32 = MAX(v->f32, run_distance(&r[F32], &r[F64]));
    for (int i = 0; i < RUNS; i++)
        run_release(&r[i]);
    free(r);
}

static void test_case(const struct op_case *c, struct lane *one, struct lane *three)
{
    struct verdict v = {0};
    for (int64_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (int64_t j = 0; j < c->variants; j++)
            judge(c, &shapes[i], j, one, three, &v);
    ok(v.stated && v.formula <= 1e-12 && v.gradient <= 1e-6,
       "%s: f64 is what the list says (formula %.0e, finite differences %.0e)", c->name, v.formula,
       v.gradient);
    ok(v.f32 <= 1e-4, "%s: f32 is near f64 (%.0e)", c->name, v.f32);
    ok(!v.unwritten && !v.trespassed, "%s: writes all it should, and nothing else", c->name);
    ok(!v.threads_differ, "%s: one thread and three give the same bits", c->name);
}

#include "op_cases/gpu.h"

#include "op_cases/bench.h"

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--bench")) {
        int named = argc > 2 && (!strcmp(argv[2], "cpu") || !strcmp(argv[2], "cuda"));
        return bench(named ? argv[2] : "cpu", argc > 2 + named ? argv[2 + named] : NULL);
    }
    if (argc > 1 && !strcmp(argv[1], "--gpu")) {
        gpu_test(argc > 2 ? argv[2] : NULL);
        return finish();
    }
    struct lane one, three;
    lane_init(&one, dev_open("cpu"), 1);
    lane_init(&three, dev_open("cpu"), 3);
    for (int64_t i = 0; i < ARRAY_LEN(listed); i++) {
        const struct op_case *c = NULL;
        for (int64_t j = 0; j < ARRAY_LEN(cases); j++)
            if (!strcmp(cases[j].name, listed[i]))
                c = &cases[j];
        if (c)
            test_case(c, &one, &three);
        else
            ok(0, "%s has a case here", listed[i]);
    }
    lane_release(&one);
    lane_release(&three);
    gpu_test(NULL);
    return finish();
}
