/* nearest.c -- the mapping that works and is nearest to one that does not.
 *
 * A world of n ranks has as many mappings as n has ways to be divided, some thousands where it is
 * large, so all are tried. */
#include "mesh/mesh.h"

/* What is to be changed: in how many sizes, and then by how much, as a product of ratios. */
struct distance {
    int changes;
    double ratio;
};

static struct distance distance_of(const int *want, const int *have)
{
    struct distance d = {0, 1};
    for (int i = 0; i < MESH_SIZES; i++) {
        double a = MAX(want[i], 1), b = have[i];
        d.changes += want[i] != have[i];
        d.ratio *= a > b ? a / b : b / a;
    }
    return d;
}

int mesh_nearest(struct mesh *best, int world, const int want[MESH_SIZES],
                 const char *(*fault)(void *arg, struct mesh *m), void *arg)
{
    struct distance least = {MESH_SIZES + 1, 0};
    for (int pp = 1; pp <= world; pp++)
        for (int tp = 1; world % pp == 0 && tp <= world / pp; tp++)
            for (int cp = 1; world / pp % tp == 0 && cp <= world / pp / tp; cp++)
                for (int etp = 1; world / pp / tp % cp == 0 && etp <= world / pp; etp++)
                    for (int ep = 1; world / pp % etp == 0 && ep <= world / pp / etp; ep++) {
                        struct distance d = distance_of(want, (int[]){tp, cp, pp, etp, ep});
                        struct mesh m;
                        if (d.changes > least.changes ||
                            (d.changes == least.changes && d.ratio >= least.ratio) ||
                            mesh_init(&m, world, 0, tp, cp, pp, etp, ep) || fault(arg, &m))
                            continue;
                        least = d;
                        *best = m;
                    }
    return least.changes <= MESH_SIZES;
}
