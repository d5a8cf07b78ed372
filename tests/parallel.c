/* parallel.c -- the mapping is not a hyperparameter: many ranks against one, in f64.
 *
 * For each mapping: the same bits of initial weights; every reduced gradient of step 1 within 1e-10
 * of the tensor's maximum; 20 losses, auxiliary losses and gradient norms within 1e-9, the same
 * experts chosen by as many tokens of every accounting group in every layer of every step, and
 * where they have limited capacity the same choices dropped in every row: of a language model with
 * SGD and with AdamW, of a reward model (Bradley-Terry) and of DPO.  Ranks are threads; under
 * mpirun they are its processes, and the mappings of that many ranks are tried.  --long tries all
 * that fit.  What the list of mappings covers is counted from it (coverage.h).
 *
 * With the argument "cuda" each process works on its own GPU, in f32 (gradients within 1e-5 of one
 * GPU's, losses within 1e-4, but for what follows from choices that moved) and in bf16 (losses
 * within 0.5 %). */
#include "coverage.h"

struct difference {
    double grad, loss, aux, norm; /* relative, the worst; aux without what moved choices explain */
    double spied;                 /* of the auxiliary loss as it follows from counts */
    int64_t moved;                /* choices of another expert than one rank's, at least */
    int first;                    /* the step in which the first moved, or -1 */
    const char *where;            /* tensor of the worst gradient */
};

/* The auxiliary loss of step i, of the choices in `count`: the mean over tokens and layers of E / K
 * sum_e count psum / m, m the tokens of the group (op_list.h, route_dgrad). */
static double aux_of(const struct outcome *o, const double *count, int i)
{
    double sum = 0, tokens = 0;
    int64_t e = o->experts, each = routed_of(o);
    for (int64_t at = i * each; at < (i + 1) * each; at += e) {
        double dot = 0, chosen = 0;
        for (int64_t j = at; j < at + e; j++)
            dot += count[j] * o->psum[j], chosen += count[j];
        if (chosen > 0)
            sum += dot * e / chosen, tokens += chosen / o->k;
    }
    return tokens > 0 ? sum / tokens : 0;
}

/* Where sums are taken in another order, a token whose experts are near a tie may go to another
 * one. That alone changes the auxiliary loss by a jump that follows from the counts, and it is
 * taken out of the comparison; whatever else differs stays in. */
static void compare_routing(struct difference *d, const struct outcome *o,
                            const struct outcome *one, int n)
{
    double aux[STEPS];
    for (int i = 0; i < n; i++) {
        double own = aux_of(o, o->count, i), moved = 0;
        for (int64_t j = i * routed_of(o); j < (i + 1) * routed_of(o); j++)
            moved += fabs(o->count[j] - one->count[j]) / 2;
        if (moved && d->first < 0)
            d->first = i;
        d->moved += (int64_t)moved;
        d->spied = fmax(d->spied, fabs(own / o->aux[i] - 1));
        aux[i] = o->aux[i] - (moved ? own - aux_of(o, one->count, i) : 0);
    }
    d->aux = worst_of(aux, one->aux, n);
}

static struct difference compare(const struct outcome *o, const struct outcome *one)
{
    struct difference d = {.where = "all the same", .first = -1};
    for (int64_t p = 0; p < one->params; p++) {
        double off = 0, scale = 0;
        for (int64_t i = one->at[p]; i < one->at[p + 1]; i++) {
            double a = o->grad[i], b = one->grad[i];
            off = isfinite(a - b) ? fmax(off, fabs(a - b)) : INFINITY;
            scale = fmax(scale, fabs(b));
        }
        if (!(off / scale <= d.grad))
            d.grad = off / scale, d.where = one->name[p];
    }
    int n = steps_of(&o->method);
    d.loss = fmax(worst_of(o->loss, one->loss, n), worst_of(o->further, one->further, n));
    if (!o->method.gpu) /* where rounding may decide who wins */
        d.loss = fmax(d.loss, worst_of(o->won, one->won, n));
    compare_routing(&d, o, one, n);
    d.norm = worst_of(o->norm, one->norm, n);
    return d;
}

static int grads_agree(const struct difference *d)
{
    return d->grad <= 1e-10;
}

static int choices_agree(const struct difference *d, const struct outcome *o,
                         const struct outcome *one)
{
    return o->start == one->start && o->kept == one->kept && !d->moved && d->spied <= 1e-9 &&
           (!one->method.capacity || worst_of(o->dropped, one->dropped, STEPS) <= 1e-12);
}

static int losses_agree(const struct difference *d)
{
    return d->loss <= 1e-9 && d->aux <= 1e-9 && d->norm <= 1e-9;
}

/* On GPUs: what the order of sums and, in bf16, the rounding of every value may do.  Choices move
 * one at a time where sums differ, and none before there was a near tie. */
static int near(const struct difference *d, const struct outcome *o)
{
    double choices = 0;
    for (int64_t i = 0; i < STEPS_GPU * routed_of(o); i++)
        choices += o->count[i];
    if (d->spied > 1e-4)
        return 0;
    return strcmp(o->method.gpu, "bf16")
               ? d->grad <= 1e-5 && d->loss <= 1e-4 && d->aux <= 1e-4 && d->moved <= 1e-3 * choices
               : d->loss <= 5e-3;
}

/* On GPUs, where auto is the window: the other ways. */
static const struct mapping of_gpus[] = {
    {2, 1, 1, 1, 1, 2, 2, NULL, "all"},  {2, 2, 1, 1, 1, 2, 2, NULL, "all"},
    {2, 2, 1, 1, 1, 2, 2, NULL, "rows"}, {2, 1, 1, 1, 2, 1, 2, NULL, "all"},
    {4, 1, 2, 1, 2, 2, 2, NULL, "all"},  {2, 2, 1, 1, 1, 2, 2, NULL, "padded"},
};

/* ---- planted bugs: the test must see them ---- */

static void double_rows(struct trainer *t, int after)
{
    int64_t tokens = t->o.micro * t->o.seq;
    for (int64_t m = 0; !after && t->mesh.rank == t->mesh.world - 1 && m < t->micros; m++)
        for (int64_t i = 0; i < tokens; i++)
            t->host[m].weight[i] *= 2;
}

static void double_experts(struct trainer *t, int after)
{
    double *g = t->model.grad[BUFFER_EXPERTS];
    for (int64_t i = 0; after && i < t->model.layout.size[BUFFER_EXPERTS]; i++)
        g[i] *= 2;
}

static void unscale_gates(struct trainer *t, int after)
{
    if (t->mesh.rank == t->mesh.world - 1)
        t->model.cfg.norm_gate = after; /* of the first step only */
}

static void swap_chunks(struct trainer *t, int after)
{
    t->mesh.i_cp = t->mesh.cp - 1 - t->mesh.i_cp;
}

static void test_the_test(const struct outcome *one, struct world *job)
{
    static const struct {
        const char *what;
        void (*spoil)(struct trainer *t, int after);
        struct mapping map;
    } bugs[] = {
        {"the gradient of one rank's rows doubled", double_rows, {2, 1, 1, 1, 1, 1, 2}},
        {"the gradient of the experts doubled", double_experts, {2, 1, 1, 1, 1, 2, 2}},
        {"one rank's gates left unscaled", unscale_gates, {2, 1, 1, 1, 1, 2, 2}},
        {"chunks given to the wrong ranks", swap_chunks, {2, 1, 2, 1, 1, 1, 2}},
    };
    for (int64_t i = 0; world_size(job) == 1 && i < ARRAY_LEN(bugs); i++) {
        struct outcome o = {.map = bugs[i].map, .method = one->method, .spoil = bugs[i].spoil};
        run(&o, job);
        struct difference d = compare(&o, one);
        ok(!grads_agree(&d), "a planted bug is seen: %s (off by %.1e)", bugs[i].what, d.grad);
        ok(losses_agree(&d), "and is gone with it");
        outcome_release(&o);
    }
}

/* What compare() makes of choices that moved, and of an auxiliary loss that they do not explain. */
static void test_moved(const struct outcome *one)
{
    struct outcome o = *one;
    int64_t n = STEPS * routed_of(one), step = 3, at = step * routed_of(one);
    o.count = xmemdup(one->count, n * sizeof *o.count);
    double before = aux_of(one, one->count, step);
    while (!o.count[at])
        at++;
    int64_t other = at % o.experts ? at - 1 : at + 1;
    o.count[at]--, o.count[other]++;
    o.aux[step] += aux_of(&o, o.count, step) - before;
    struct difference d = compare(&o, one);
    ok(d.moved == 1 && d.first == step && losses_agree(&d) && d.spied <= 1e-9,
       "a choice that moved is seen, with what it does to the auxiliary loss");
    ok(!choices_agree(&d, &o, one), "in f64 none may move");
    o.aux[step] *= 1 + 1e-6;
    d = compare(&o, one);
    ok(!losses_agree(&d), "an auxiliary loss that it does not explain is seen");
    free(o.count);
}

/* A pipeline computes what one rank computes, in the same order; only sums over all tensors differ.
 */
static void test_bits(const struct mapping *one_rank, const char *set)
{
    static const struct mapping pipes[] = {
        {2, 1, 1, 2, 1, 1, 2}, {2, 1, 1, 2, 1, 1, 2, "1,1,1,1"}, {4, 1, 1, 4, 1, 1, 1}};
    struct world *w = world_self();
    for (int64_t i = 0; i < ARRAY_LEN(pipes); i++) {
        struct outcome one = {.map = *one_rank, .method = {"nll", "adamw", set, mixtral, 1}},
                       o = one;
        one.map.micro = pipes[i].micro;
        o.map = pipes[i];
        run(&one, w);
        run(&o, w);
        ok(!memcmp(one.loss, o.loss, sizeof o.loss), "%s: %d losses in f32 have one rank's bits",
           mapping_name(&o.map), STEPS);
        outcome_release(&one), outcome_release(&o);
    }
    world_free(w);
}

int main(int argc, char **argv)
{
    static const struct mapping one_rank = {1, 1, 1, 1, 1, 1, 2};
    static struct mapping list[2000];
    char dir[64] = "/tmp/parallel-XXXXXX";
    static int differs[2000], runs[2000];
    int64_t n = ARRAY_LEN(chosen), agreed = 0, tried = 0, mappings = 0;
    int largest = 8;
    double worst = 0, worst_bf16 = 0; /* of what is claimed */
    memcpy(list, chosen, sizeof chosen);
    if (argc > 1 && !strcmp(argv[1], "--long"))
        n = all_mappings(list, n), largest = 16;
    int gpu = argc > 1 && !strcmp(argv[1], "cuda");
    for (int64_t i = 0; gpu && i < ARRAY_LEN(of_gpus); i++)
        list[n++] = of_gpus[i];

    opt_quiet = 1;
    struct world *job = world_open(600);
    int size = world_size(job), first = world_rank(job) == 0, all[64];
    for (int i = 0; i < size; i++)
        all[i] = i;
    struct comm *c = comm_new(job, "job", all, size);
    if (first && !mkdtemp(dir))
        die("mkdtemp:");
    comm_broadcast(c, NULL, dir, sizeof dir, 0);
    char *set = path_join(dir, "set/"), *pairs = path_join(dir, "pairs/");
    char *tiles = path_join(dir, "tiles/");
    if (first) {
        write_set(set, 0, SEQ);
        write_set(pairs, 1, SEQ);
        write_set(tiles, 0, SEQ_TILES);
    }
    const struct method on_gpus[] = {
        {"nll", "adamw", set, mixtral, .gpu = "f32"},
        {"nll", "adamw", tiles, olmoe_tiles, .gpu = "f32", .seq = SEQ_TILES},
        {"nll", "adamw", tiles, olmoe_tiles, .gpu = "bf16", .seq = SEQ_TILES},
        {"nll", "adamw", tiles, qwen3_tiles, .gpu = "bf16", .moments = "bf16", .seq = SEQ_TILES},
        {"bt", "adamw", pairs, olmoe, .gpu = "f32"},
        {"nll", "adamw", set, further, .gpu = "f32", .balance = 0.02},
        {"nll", "adamw", tiles, olmoe_tiles, .gpu = "f32", .seq = SEQ_TILES, .capacity = 0.5},
    };
    const struct method on_cpus[] = {
        {"nll", "sgd", set, mixtral},
        {"nll", "adamw", set, mixtral},
        {"nll", "adamw", set, mixtral, 0, "bf16"}, /* rounded by chance, which no mapping changes */
        {"bt", "adamw", pairs, mixtral},
        {"dpo", "sgd", pairs, mixtral},
        {"nll", "adamw", set, qwen3},
        {"bt", "adamw", pairs, olmoe},
        {"nll", "sgd", set, mixtral, .capacity = 1},
        {"nll", "adamw", set, qwen3, .capacity = 0.8, .group = 2},
        {"nll", "adamw", set, qwen2},
        {"nll", "adamw", set, deepseek},
        {"nll", "adamw", set, deepseek3, .balance = 0.02},
        {"nll", "adamw", set, further, .balance = 0.02},
        {"nll", "adamw", set, tied},
    };
    const struct method *methods = gpu ? on_gpus : on_cpus;
    int64_t kinds = gpu ? ARRAY_LEN(on_gpus) : ARRAY_LEN(on_cpus);
    comm_barrier(c);
    for (int64_t k = 0; k < kinds; k++) {
        struct outcome base = {.map = one_rank, .method = methods[k]};
        if (first) {
            run(&base, job);
            ok(base.loss[steps_of(&methods[k]) - 1] < base.loss[0],
               "one rank of %s learns %s with %s (%.4f to %.4f)", base.family, methods[k].loss,
               methods[k].optimizer, base.loss[0], base.loss[steps_of(&methods[k]) - 1]);
        }
        for (int64_t i = 0; i < n; i++) {
            struct outcome o = {.map = list[i], .method = methods[k]};
            if ((size > 1 && list[i].ranks != size) || !fits(&list[i], &methods[k]))
                continue;
            run(&o, job);
            if (!first)
                continue;
            struct difference d = compare(&o, &base);
            int same = gpu ? near(&d, &o)
                           : grads_agree(&d) && losses_agree(&d) && choices_agree(&d, &o, &base);
            char routing[64] = "";
            if (d.moved)
                snprintf(routing, sizeof routing, "; %lld choices moved, the first in step %d",
                         (long long)d.moved, d.first + 1);
            ok(same,
               "%s, %s, %s %s%s%s%s: gradients %.1e (%s), losses %.1e, auxiliary %.1e, norms "
               "%.1e%s",
               mapping_name(gpu ? &o.map : &list[i]), base.family, methods[k].loss,
               methods[k].optimizer, methods[k].capacity ? " with dropping" : "",
               gpu ? " on GPUs in " : "", gpu ? methods[k].gpu : "", d.grad, d.where, d.loss, d.aux,
               d.norm, routing);
            double *most = gpu && !strcmp(methods[k].gpu, "bf16") ? &worst_bf16 : &worst;
            *most = fmax(*most, d.loss);
            if (most == &worst)
                worst = fmax(fmax(worst, gpu ? 0 : d.norm), fmax(d.grad, d.aux));
            agreed += same, tried++, mappings += !runs[i];
            differs[i] |= !same, runs[i]++;
            outcome_release(&o);
        }
        if (first && methods[k].capacity)
            ok(base.dropped[0] > fmax(0.05, 0.95 - methods[k].capacity) &&
                   base.dropped[0] < fmax(0.5, 1.25 - methods[k].capacity),
               "experts with room for %g of the mean drop %.1f %% of the choices",
               methods[k].capacity, 100 * base.dropped[0]);
        if (k == 0 && !gpu)
            test_the_test(&base, job);
        if (k == 0 && size == 1 && !gpu)
            test_moved(&base);
        if (k == 0 && size == 1 && !gpu)
            test_bits(&one_rank, set);
        if (first)
            outcome_release(&base);
    }
    if (first && size == 1 && !gpu) {
        static struct mapping good[2000];
        int64_t goods = 0;
        for (int64_t i = 0; i < n; i++)
            if (runs[i] && !differs[i])
                good[goods++] = list[i];
        test_coverage(good, goods, largest);
    }
    if (first) {
        printf("# %lld of %lld runs of %lld mappings agree with one rank; gradients and losses to "
               "%.1e",
               (long long)agreed, (long long)tried, (long long)mappings, worst);
        if (gpu)
            printf(" in f32, losses to %.1e in bf16", worst_bf16);
        printf("\n");
        remove_tree(dir);
    }
    free(set), free(pairs), free(tiles);
    comm_free(c);
    world_free(job);
    return first ? finish() : 0;
}
