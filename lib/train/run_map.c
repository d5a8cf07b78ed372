/* run_map.c -- how a run lies on its ranks; and where it cannot, on which mapping it could. */
#include "train/run_priv.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

struct wish { /* what a mapping must fit */
    const struct run_options *o;
    const struct config *cfg;
    const struct trainer_options *t;
};

/* A micro-batch that is left to choose is each rank's whole share of rows. */
static int64_t micro_of(const struct trainer_options *t, const struct mesh *m)
{
    return t->micro ? t->micro : t->batch % m->dp ? 1 : t->batch / m->dp;
}

static const char *fault_of(void *arg, struct mesh *m)
{
    const struct wish *x = arg;
    struct trainer_options t = *x->t;
    const char *why = x->o->pp_layout ? mesh_place(m, x->o->pp_layout) : NULL;
    t.micro = micro_of(&t, m);
    return why ? why : trainer_fault(m, x->cfg, &t);
}

static _Noreturn void refuse(const struct wish *x, int ranks, const int *want, const char *why)
{
    static const char *const name[MESH_SIZES] = {"tp", "cp", "pp", "etp", "ep"};
    /* Every rank comes here; of those that are threads one searches, and ends them all. */
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one);
    struct mesh near;
    struct buf b = {0};
    if (ranks == 1 && want[0] * want[1] * want[2] * want[3] * want[4] == 1)
        die_misused("%s", why);
    buf_printf(&b, "this mapping does not fit %d ranks: %s; ", ranks, why);
    if (mesh_nearest(&near, ranks, want, fault_of, (void *)x)) {
        const int have[MESH_SIZES] = {near.tp, near.cp, near.pp, near.etp, near.ep};
        buf_str(&b, "the nearest that does has");
        for (int i = 0; i < MESH_SIZES; i++)
            if (have[i] != want[i])
                buf_printf(&b, " --%s %d", name[i], have[i]);
    } else {
        buf_str(&b, "no mapping does");
    }
    die_misused("%s", b.data);
}

void run_map(const struct run *r, const struct config *c, struct trainer_options *t, struct mesh *m)
{
    const struct run_options *o = r->o;
    const struct wish x = {o, c, t};
    const int64_t sizes[MESH_SIZES] = {o->tp, o->cp, o->pp, o->etp, o->ep};
    int want[MESH_SIZES];
    for (int i = 0; i < MESH_SIZES; i++)
        want[i] = (int)MIN(sizes[i], INT_MAX); /* either is refused */
    int ranks = world_size(r->world);
    const char *why =
        mesh_init(m, ranks, world_rank(r->world), want[0], want[1], want[2], want[3], want[4]);
    if (!why)
        why = fault_of((void *)&x, m);
    if (why)
        refuse(&x, ranks, want, why);
    t->micro = micro_of(t, m);

    /* The machine's cores shared among its processes, unless the launcher has already bound each to
     * its own. */
    int64_t processes = world_local(r->world) / o->ranks, threads = opt_threads();
    if (processes > 1)
        threads = MIN(threads, sysconf(_SC_NPROCESSORS_ONLN) / processes);
    if (t->threads == 0)
        t->threads = MAX(threads / o->ranks, 1);
}
