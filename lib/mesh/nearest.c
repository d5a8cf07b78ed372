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

/* The least divisor of n that is greater than d; above n when there is none. */
static int next_divisor(int n, int d)
{
    do
        d++;
    while (d <= n && n % d);
    return d;
}

int mesh_nearest(struct mesh *best, int world, const int want[MESH_SIZES],
                 const char *(*fault)(void *arg, struct mesh *m), void *arg)
{
    struct distance least = {MESH_SIZES + 1, 0};
    for (int pp = 1; pp <= world; pp = next_divisor(world, pp)) {
        int stage = world / pp;
        for (int tp = 1; tp <= stage; tp = next_divisor(stage, tp))
            for (int cp = 1; cp <= stage / tp; cp = next_divisor(stage / tp, cp))
                for (int etp = 1; etp <= stage; etp = next_divisor(stage, etp))
                    for (int ep = 1; ep <= stage / etp; ep = next_divisor(stage / etp, ep)) {
                        struct distance d = distance_of(want, (int[]){tp, cp, pp, etp, ep});
                        struct mesh m;
                        if (d.changes > least.changes ||
                            (d.changes == least.changes && d.ratio >= least.ratio) ||
                            mesh_init(&m, world, 0, tp, cp, pp, etp, ep) || fault(arg, &m))
                            continue;
                        least = d;
                        *best = m;
                    }
    }
    return least.changes <= MESH_SIZES;
}
