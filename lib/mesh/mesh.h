/* mesh.h -- parallel folding (arXiv 2504.14960): who is in which group and who owns which slice.
 *
 * Two meshes lie over the same ranks.  Attention: rank = tp + TP (cp + CP (dp + DP pp)).
 * Experts: rank = etp + ETP (ep + EP (edp + EDP pp)).  DP = W / (TP CP PP), EDP = W / (ETP EP
 * PP).  The pipeline groups of both agree; everything else is free.  Pure arithmetic: nothing
 * here communicates. */
#ifndef MESH_H
#define MESH_H

#include "base/base.h"

enum { MESH_CHUNKS = 256 };
struct mesh {
    int tp, cp, dp, pp, etp, ep, edp; /* sizes */
    int world, rank;
    int i_tp, i_cp, i_dp, i_pp, i_etp, i_ep, i_edp; /* this rank's coordinates */
    int chunks;                    /* of layers, dealt to the stages in turn; 0: one a stage, of like size */
    int chunk_layers[MESH_CHUNKS]; /* (chunks) */
};

/* Fills m for one rank.  Returns NULL, or why the sizes do not fit the world: a sentence that is
 * good until this thread asks again. */
const char *mesh_init(struct mesh *m, int world, int rank, int tp, int cp, int pp, int etp, int ep);

/* Places layers freely: "2,1,1,2" is a chunk of 2 layers on the first stage, one of 1 on the next, and so on
 * in turn; several chunks a stage interleave.  Returns NULL or why not, as mesh_init(). */
const char *mesh_place(struct mesh *m, const char *chunk_layers);

/* For sizes (tp, cp, pp, etp, ep) that do not fit: of the mappings of the world in which fault() finds
 * none, the one that changes the fewest sizes, and those the least, with the mesh of rank 0.  fault()
 * may place layers.  Returns 0 where no mapping fits. */
enum { MESH_SIZES = 5 };
int mesh_nearest(struct mesh *best, int world, const int want[MESH_SIZES],
                 const char *(*fault)(void *arg, struct mesh *m), void *arg);

enum mesh_group {
    GROUP_TP, GROUP_CP, GROUP_DP, GROUP_PP,
    GROUP_TP_CP,     /* the ranks that hold one packed row */
    GROUP_DP_CP,     /* dense gradients are reduced and optimizer shards cut over this */
    GROUP_ETP, GROUP_EP, GROUP_EDP, /* EDP: as DP_CP, for experts */
    GROUP_ETP_EP,    /* the token dispatcher's group */
    GROUP_WORLD, GROUP_COUNT
};
const char *mesh_group_name(enum mesh_group g);
/* The ranks of the group that `rank` is in, in order; returns their number (at most world). */
int mesh_group(const struct mesh *m, int rank, enum mesh_group g, int *ranks);

/* One tensor of a model under its checkpoint (Hugging Face) name, whole.  arch makes the list. */
enum mesh_kind { ON_ATTENTION, ON_EXPERTS };
enum mesh_cut { CUT_NONE, CUT_ROWS, CUT_COLS };
enum { STAGE_FIRST = -1, STAGE_LAST = -2 }; /* layer of tensors that belong to no layer */
struct param {
    char *name;
    const char *of;   /* arch_copies(): the tensor it repeats; else NULL */
    int role;         /* which fused tensor of the layer it lives in (arch.h) */
    int layer;        /* or STAGE_FIRST, STAGE_LAST */
    int expert;       /* or -1 */
    int64_t rows, cols; /* global shape; cols 0 for a vector */
    enum mesh_kind kind;
    enum mesh_cut cut;  /* over TP for attention, ETP for experts */
    int init;           /* arch.h */
    int decay;          /* weight decay applies */
    int fine;           /* kept in the type of statistics, and moved by no gradient */
    int lent;           /* the last stage has a copy, where it is another than the tensor's own */
};

/* The rectangle of a tensor that a rank holds.  A vector has one column. */
struct rect {
    int64_t row, col, rows, cols;
};
/* Which chunk of layers holds this one of `layers` (or STAGE_FIRST, STAGE_LAST; layers past them
 * are the last one's too); chunk i is on pipeline stage i % pp.  Unless mesh_place() says otherwise
 * there is one a stage, equally many layers each; the first layers % pp have one more. */
int mesh_chunk(const struct mesh *m, int layer, int layers);
int mesh_stage(const struct mesh *m, int layer, int layers);
/* Returns 1 and the rectangle, or 0 when the rank holds nothing of the tensor.  Rank ep of EP
 * holds the experts [ep E / EP, (ep + 1) E / EP). */
int mesh_slice(const struct mesh *m, const struct param *p, int layers, int experts,
               struct rect *out);
/* Why these sizes do not fit the model's tensors (layers, widths, experts, vocabulary), or
 * NULL.  That a cut falls between heads is arch_check()'s to see. */
const char *mesh_check(const struct mesh *m, const struct param *p, int64_t n, int layers,
                       int experts);

/* A rank's memory: every local slice in one of some flat buffers, in the order
 * of the list, in which the tensors of one (layer, role) are neighbours and of one cut; these
 * lie end to end without a gap, and the first of them at a multiple of 32 elements.  In the
 * dense buffer the tensors that TP replicates come first.  The first two buffers, dense and experts,
 * are cut into buckets for the optimizer, which knows nothing of the others: fine tensors, and copies
 * of what another stage owns.  A bucket is what lies together of a layer, replicated by TP or not: its
 * gradients are done at the same time.  Each of the ranks that share the buffer owns an equal part of
 * every bucket; end to end these parts are the rank's shard. */
enum mesh_buffer {
    BUFFER_DENSE,
    BUFFER_EXPERTS,
    BUFFERS_LEARNT,
    BUFFER_FINE = BUFFERS_LEARNT,
    BUFFER_COPIES,
    BUFFERS
};
struct local {
    const struct param *p;
    struct rect r;
    enum mesh_buffer buffer;
    int64_t at; /* offset in the buffer, elements */
    int writes; /* this rank writes the slice to a checkpoint: it is the first of its replicas */
    int owns;   /* the first of the replicas over TP or ETP, on the tensor's own stage: what of the
                 * slice   lies in this rank's shard is counted in norms and has its optimizer state
                 * written   here and nowhere else */
};
struct bucket {
    enum mesh_buffer buffer;
    int layer;         /* of its tensors */
    int replicated;    /* by TP */
    int64_t at, n;     /* in the buffer, elements: multiples of 32 for each of the ranks that share it */
    int64_t own, part; /* where this rank's part begins in the buffer, and its elements */
    int64_t in_shard;  /* where the part begins in the shard */
};
struct layout {
    struct local *local;
    int64_t n;
    struct bucket *bucket; /* end to end, dense and then experts */
    int64_t buckets;
    int64_t size[BUFFERS];  /* elements */
    int64_t shard[BUFFERS]; /* what one rank's optimizer owns; or 0 */
};
void layout_init(struct layout *y, const struct mesh *m, const struct param *p, int64_t n,
                 int layers, int experts);
void layout_release(struct layout *y);
/* The elements [*lo, *hi) of a local slice, flat, that are in this rank's part of a bucket; returns 0
 * where there are none. */
int layout_part(const struct bucket *b, const struct local *l, int64_t *lo, int64_t *hi);

/* The stretch [lo, hi) of a local slice, flat in local row-major order, as rectangles of the global
 * tensor: at most 3.  Returns their number. */
int rect_from_range(const struct rect *slice, int64_t lo, int64_t hi, struct rect out[3]);

#endif
