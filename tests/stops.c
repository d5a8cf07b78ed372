/* stops.c -- stop-and-go-on: runs stopped at one mapping go on at another, and their losses are
 * those of one rank that never stopped, in f64.  Pairs of mappings are drawn at random; ranks are
 * threads.
 * --long draws from all mappings that fit, and more. */
#include "mappings.h"

static void test_stops(const struct outcome *one, const struct mapping *list, int64_t n,
                       const char *dir, int pairs)
{
    char *at = path_join(dir, "stopped");
    double worst = 0;
    struct world *job = world_self();
    for (int i = 0; i < pairs; i++) {
        struct mapping a = list[(int64_t)(rng_uniform(21, i, 0) * n)];
        struct mapping b = list[(int64_t)(rng_uniform(21, i, 1) * n)];
        int stop = 1 + (int)(rng_uniform(21, i, 2) * (STEPS - 1));
        struct outcome o = {.map = a, .method = one->method, .end = stop, .to = at};
        struct outcome p = {.map = b, .method = one->method, .begin = stop, .from = at};
        make_dirs(at);
        run(&o, job);
        run(&p, job);
        memcpy(p.loss, o.loss, stop * sizeof *o.loss);
        memcpy(p.further, o.further, stop * sizeof *o.further);
        memcpy(p.aux, o.aux, stop * sizeof *o.aux);
        memcpy(p.norm, o.norm, stop * sizeof *o.norm);
        double off = fmax(
            fmax(worst_of(p.loss, one->loss, STEPS), worst_of(p.aux, one->aux, STEPS)),
            fmax(worst_of(p.norm, one->norm, STEPS), worst_of(p.further, one->further, STEPS)));
        worst = fmax(worst, off);
        if (!(off <= 1e-9)) {
            char *first = xstrdup(mapping_name(&a));
            ok(0, "%s, and after step %d %s: off by %.1e", first, stop, mapping_name(&b), off);
            free(first);
        }
        outcome_release(&o), outcome_release(&p);
        remove_tree(at);
    }
    ok(worst <= 1e-9, "%d pairs of mappings A, B: stopped at A, the losses go on at B (to %.1e)",
       pairs, worst);
    struct outcome o = {.map = list[0], .method = one->method, .end = 5, .to = at};
    struct outcome p = {.map = list[0], .method = one->method, .begin = 6, .from = at};
    make_dirs(at);
    run(&o, job);
    run(&p, job);
    ok(worst_of(p.loss + 6, one->loss + 6, STEPS - 6) > 1e-9, "a step that is left out is seen");
    outcome_release(&o), outcome_release(&p);
    world_free(job);
    free(at);
}

int main(int argc, char **argv)
{
    static struct mapping list[2000];
    int more = argc > 1 && !strcmp(argv[1], "--long");
    int64_t n = 0;
    char dir[] = "/tmp/stops-XXXXXX";
    opt_quiet = 1;
    if (!mkdtemp(dir))
        die("mkdtemp:");
    char *set = path_join(dir, "set/");
    write_set(set, 0, SEQ);
    struct world *w = world_self();
    struct outcome one = {.map = {1, 1, 1, 1, 1, 1, 2}, .method = {"nll", "adamw", set, mixtral}};
    for (int64_t i = 0; i < ARRAY_LEN(chosen); i++)
        if (fits(&chosen[i], &one.method))
            list[n++] = chosen[i];
    if (more)
        n = all_mappings(list, n);
    run(&one, w);
    test_stops(&one, list, n, dir, more ? 200 : 50);
    outcome_release(&one);
    struct outcome v3 = {.map = one.map, .method = {"nll", "adamw", set, further, .balance = 0.02}};
    run(&v3, w); /* fine tensors, and copies on the last stage */
    test_stops(&v3, list, n, dir, more ? 100 : 10);
    outcome_release(&v3);
    world_free(w);
    remove_tree(dir);
    free(set);
    return finish();
}
