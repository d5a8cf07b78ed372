/* mesh.c -- the two meshes over one world, and their groups.
 *
 * A mesh is four axes, the first with stride 1: (tp, cp, dp, pp) and (etp, ep, edp, pp).  A group
 * is a mesh and the set of axes that vary within it, so all groups come from one table.  Since pp
 * is the outermost axis of both, its stride is W / PP in both and the pipeline groups agree by
 * themselves. */
#include "mesh/mesh.h"

#include <stdlib.h>

enum { AXES = 4 };

static const struct {
    const char *name;
    enum mesh_kind kind;
    unsigned axes; /* bit a: axis a of that mesh varies within the group */
} groups[GROUP_COUNT] = {
    [GROUP_TP] = {"tp", ON_ATTENTION, 1 << 0},
    [GROUP_CP] = {"cp", ON_ATTENTION, 1 << 1},
    [GROUP_DP] = {"dp", ON_ATTENTION, 1 << 2},
    [GROUP_PP] = {"pp", ON_ATTENTION, 1 << 3},
    [GROUP_TP_CP] = {"tp-cp", ON_ATTENTION, 1 << 0 | 1 << 1},
    [GROUP_DP_CP] = {"dp-cp", ON_ATTENTION, 1 << 1 | 1 << 2},
    [GROUP_ETP] = {"etp", ON_EXPERTS, 1 << 0},
    [GROUP_EP] = {"ep", ON_EXPERTS, 1 << 1},
    [GROUP_EDP] = {"edp", ON_EXPERTS, 1 << 2},
    [GROUP_ETP_EP] = {"etp-ep", ON_EXPERTS, 1 << 0 | 1 << 1},
    [GROUP_WORLD] = {"world", ON_ATTENTION, (1 << AXES) - 1},
};

/* The sentence is for the caller to pass on at once; a rank may be a thread. */
static _Thread_local char why[256];

const char *mesh_init(struct mesh *m, int world, int rank, int tp, int cp, int pp, int etp, int ep)
{
    const struct {
        const char *name;
        int size;
    } given[] = {{"tp", tp}, {"cp", cp}, {"pp", pp}, {"etp", etp}, {"ep", ep}};
    for (int64_t i = 0; i < ARRAY_LEN(given); i++)
        if (given[i].size < 1) {
            snprintf(why, sizeof why, "%s is %d; every mesh size is at least 1", given[i].name,
                     given[i].size);
            return why;
        }
    if (world < 1 || rank < 0 || rank >= world) {
        snprintf(why, sizeof why, "rank %d is not in a world of %d", rank, world);
        return why;
    }
    /* No product can overflow once each factor is known to be at most world. */
    for (int64_t i = 0; i < ARRAY_LEN(given); i++)
        if (given[i].size > world) {
            snprintf(why, sizeof why, "%s %d is larger than the world of %d ranks", given[i].name,
                     given[i].size, world);
            return why;
        }
    int64_t attention = (int64_t)tp * cp, experts = (int64_t)etp * ep;
    if (attention > world || world % (attention * pp)) {
        snprintf(why, sizeof why, "%d ranks are not a multiple of tp %d x cp %d x pp %d", world, tp,
                 cp, pp);
        return why;
    }
    if (experts > world || world % (experts * pp)) {
        snprintf(why, sizeof why, "%d ranks are not a multiple of etp %d x ep %d x pp %d", world,
                 etp, ep, pp);
        return why;
    }
    int stage = world / pp; /* ranks of one pipeline stage */
    *m = (struct mesh){
        .tp = tp,
        .cp = cp,
        .dp = (int)(stage / attention),
        .pp = pp,
        .etp = etp,
        .ep = ep,
        .edp = (int)(stage / experts),
        .world = world,
        .rank = rank,
        .i_tp = rank % tp,
        .i_cp = rank / tp % cp,
        .i_dp = rank % stage / (int)attention,
        .i_pp = rank / stage,
        .i_etp = rank % etp,
        .i_ep = rank / etp % ep,
        .i_edp = rank % stage / (int)experts,
    };
    return NULL;
}

const char *mesh_place(struct mesh *m, const char *chunk_layers)
{
    m->chunks = 0;
    for (const char *s = chunk_layers; *s; m->chunks++) {
        char *end;
        long n = strtol(s, &end, 10);
        if (end == s || n < 1 || n > 100000 || (*end && (*end != ',' || !end[1])) ||
            m->chunks == MESH_CHUNKS) {
            snprintf(why, sizeof why, "pp-layout %.64s: not at most %d numbers of layers with commas between",
                     chunk_layers, MESH_CHUNKS);
            return why;
        }
        m->chunk_layers[m->chunks] = (int)n;
        s = *end ? end + 1 : end;
    }
    if (!m->chunks || m->chunks % m->pp) {
        snprintf(why, sizeof why, "pp-layout %.64s: %d chunks are not a multiple of pp %d", chunk_layers,
                 m->chunks, m->pp);
        return why;
    }
    return NULL;
}

const char *mesh_group_name(enum mesh_group g)
{
    return groups[g].name;
}

int mesh_group(const struct mesh *m, int rank, enum mesh_group g, int *ranks)
{
    const int size[2][AXES] = {[ON_ATTENTION] = {m->tp, m->cp, m->dp, m->pp},
                               [ON_EXPERTS] = {m->etp, m->ep, m->edp, m->pp}};
    const int *s = size[groups[g].kind];
    int first = rank, stride = 1;
    for (int a = 0; a < AXES; stride *= s[a++])
        if (groups[g].axes >> a & 1)
            first -= rank / stride % s[a] * stride;
    /* Each axis repeats what the axes inside it made, so ranks come in ascending order. */
    int n = 1;
    ranks[0] = first;
    stride = 1;
    for (int a = 0; a < AXES; stride *= s[a++])
        if (groups[g].axes >> a & 1) {
            for (int i = n; i < n * s[a]; i++)
                ranks[i] = ranks[i - n] + stride;
            n *= s[a];
        }
    return n;
}
