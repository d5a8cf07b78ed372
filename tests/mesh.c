/* mesh.c -- groups against worked examples, and every mapping of every world up to 64 ranks: groups
 * partition the world, slices and optimizer shards cover each tensor exactly once. */
#include "mesh/mesh.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum { WORLD_MAX = 64 };

/* All groups of one kind as text, "[0,1][2,3]"; in order of their first rank.  Caller frees. */
static char *groups_text(const struct mesh *m, enum mesh_group g)
{
    struct buf b = {0};
    int ranks[WORLD_MAX];
    for (int r = 0; r < m->world; r++) {
        int n = mesh_group(m, r, g, ranks);
        for (int i = 0; ranks[0] == r && i < n; i++)
            buf_printf(&b, "%c%d%s", i ? ',' : '[', ranks[i], i == n - 1 ? "]" : "");
    }
    return b.data;
}

/* Worked examples of the rank formulas, as Megatron's own generator prints them. */
/* clang-format off */
#define SINGLES8 "[0][1][2][3][4][5][6][7]"
#define PAIRS8 "[0,1][2,3][4,5][6,7]"
#define HALVES8 "[0,4][1,5][2,6][3,7]"
#define STEPS8 "[0,2][1,3][4,6][5,7]"
#define QUADS8 "[0,1,2,3][4,5,6,7]"
#define ALL8 "[0,1,2,3,4,5,6,7]"
#define QUADS16 "[0,1,2,3][4,5,6,7][8,9,10,11][12,13,14,15]"
#define DP16 "[0,4][1,5][2,6][3,7][8,12][9,13][10,14][11,15]"
static const struct {
    const char *name;
    int world, tp, cp, pp, etp, ep;
    struct {
        enum mesh_group g;
        const char *ranks;
    } expect[11];
} vectors[] = {
    {"A", 8, 2, 2, 1, 1, 4,
     {{GROUP_TP, PAIRS8}, {GROUP_CP, STEPS8}, {GROUP_DP, HALVES8}, {GROUP_PP, SINGLES8},
      {GROUP_DP_CP, "[0,2,4,6][1,3,5,7]"}, {GROUP_TP_CP, QUADS8}, {GROUP_WORLD, ALL8},
      {GROUP_ETP, SINGLES8}, {GROUP_EP, QUADS8}, {GROUP_EDP, HALVES8}, {GROUP_ETP_EP, QUADS8}}},
    {"B", 8, 2, 2, 2, 1, 4,
     {{GROUP_TP, PAIRS8}, {GROUP_CP, STEPS8}, {GROUP_DP, SINGLES8}, {GROUP_PP, HALVES8},
      {GROUP_DP_CP, STEPS8}, {GROUP_TP_CP, QUADS8}, {GROUP_WORLD, ALL8},
      {GROUP_ETP, SINGLES8}, {GROUP_EP, QUADS8}, {GROUP_EDP, SINGLES8}, {GROUP_ETP_EP, QUADS8}}},
    {"C", 8, 2, 2, 2, 1, 2,
     {{GROUP_TP, PAIRS8}, {GROUP_CP, STEPS8}, {GROUP_DP, SINGLES8}, {GROUP_PP, HALVES8},
      {GROUP_DP_CP, STEPS8}, {GROUP_TP_CP, QUADS8}, {GROUP_WORLD, ALL8},
      {GROUP_ETP, SINGLES8}, {GROUP_EP, PAIRS8}, {GROUP_EDP, STEPS8}, {GROUP_ETP_EP, PAIRS8}}},
    {"D", 8, 2, 1, 2, 2, 2,
     {{GROUP_TP, PAIRS8}, {GROUP_CP, SINGLES8}, {GROUP_DP, STEPS8}, {GROUP_PP, HALVES8},
      {GROUP_DP_CP, STEPS8}, {GROUP_TP_CP, PAIRS8}, {GROUP_WORLD, ALL8},
      {GROUP_ETP, PAIRS8}, {GROUP_EP, STEPS8}, {GROUP_EDP, SINGLES8}, {GROUP_ETP_EP, QUADS8}}},
    {"E", 16, 2, 2, 2, 1, 4,
     {{GROUP_TP, PAIRS8 "[8,9][10,11][12,13][14,15]"},
      {GROUP_CP, STEPS8 "[8,10][9,11][12,14][13,15]"}, {GROUP_DP, DP16},
      {GROUP_PP, "[0,8][1,9][2,10][3,11][4,12][5,13][6,14][7,15]"},
      {GROUP_DP_CP, "[0,2,4,6][1,3,5,7][8,10,12,14][9,11,13,15]"}, {GROUP_TP_CP, QUADS16},
      {GROUP_WORLD, "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]"},
      {GROUP_ETP, SINGLES8 "[8][9][10][11][12][13][14][15]"}, {GROUP_EP, QUADS16},
      {GROUP_EDP, DP16}, {GROUP_ETP_EP, QUADS16}}},
};
/* clang-format on */

static void test_vectors(void)
{
    for (int64_t i = 0; i < ARRAY_LEN(vectors); i++) {
        struct mesh m;
        const char *why = mesh_init(&m, vectors[i].world, 0, vectors[i].tp, vectors[i].cp,
                                    vectors[i].pp, vectors[i].etp, vectors[i].ep);
        int same = !why;
        for (int k = 0; !why && k < GROUP_COUNT; k++) {
            enum mesh_group g = vectors[i].expect[k].g;
            char *text = groups_text(&m, g);
            if (strcmp(text, vectors[i].expect[k].ranks)) {
                printf("# %s: %s, expected %s\n", mesh_group_name(g), text,
                       vectors[i].expect[k].ranks);
                same = 0;
            }
            free(text);
        }
        ok(same, "worked example %s has its groups", vectors[i].name);
    }
}

static void test_refusals(void)
{
    static const struct {
        int world, rank, tp, cp, pp, etp, ep;
        const char *why;
    } bad[] = {
        {8, 0, 3, 1, 1, 1, 1, "8 ranks are not a multiple of tp 3 x cp 1 x pp 1"},
        {8, 0, 1, 1, 1, 1, 3, "8 ranks are not a multiple of etp 1 x ep 3 x pp 1"},
        {8, 0, 2, 2, 4, 1, 1, "8 ranks are not a multiple of tp 2 x cp 2 x pp 4"},
        {8, 0, 1, 1, 2, 2, 4, "8 ranks are not a multiple of etp 2 x ep 4 x pp 2"},
        {8, 8, 1, 1, 1, 1, 1, "rank 8 is not in a world of 8"},
        {8, -1, 1, 1, 1, 1, 1, "rank -1 is not in a world of 8"},
        {8, 0, 0, 1, 1, 1, 1, "tp is 0; every mesh size is at least 1"},
        {8, 0, 1, 1, 1, 1, -2, "ep is -2; every mesh size is at least 1"},
        {8, 0, 1, 1 << 30, 1 << 30, 1, 1, "cp 1073741824 is larger than the world of 8 ranks"},
    };
    for (int64_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct mesh m;
        const char *why = mesh_init(&m, bad[i].world, bad[i].rank, bad[i].tp, bad[i].cp, bad[i].pp,
                                    bad[i].etp, bad[i].ep);
        ok(why && !strcmp(why, bad[i].why), "refused: %s", why ? why : "(nothing)");
    }
}

/* ---- every mapping ---- */

/* Calls fn for every mapping of `world` ranks, with the mesh of rank 0; returns how often. */
static int64_t each_mesh(int world, void (*fn)(const struct mesh *m, void *arg), void *arg)
{
    int64_t n = 0;
    for (int pp = 1; pp <= world; pp++)
        for (int tp = 1; tp <= world / pp; tp++)
            for (int cp = 1; cp <= world / pp / tp; cp++)
                for (int etp = 1; etp <= world / pp; etp++)
                    for (int ep = 1; ep <= world / pp / etp; ep++) {
                        struct mesh m;
                        if (world % (tp * cp * pp) || world % (etp * ep * pp))
                            continue;
                        if (mesh_init(&m, world, 0, tp, cp, pp, etp, ep))
                            abort();
                        fn(&m, arg);
                        n++;
                    }
    return n;
}

static struct mesh mesh_at(const struct mesh *m, int rank)
{
    struct mesh r;
    if (mesh_init(&r, m->world, rank, m->tp, m->cp, m->pp, m->etp, m->ep))
        abort();
    return r;
}

struct faults {
    int64_t coordinates, sizes, order, partition, pipelines;
    int64_t fits, coverage, replicas, shards, memory;
};

static void check_groups(const struct mesh *m, void *arg)
{
    struct faults *f = arg;
    const int sizes[GROUP_COUNT] = {
        [GROUP_TP] = m->tp,
        [GROUP_CP] = m->cp,
        [GROUP_DP] = m->dp,
        [GROUP_PP] = m->pp,
        [GROUP_TP_CP] = m->tp * m->cp,
        [GROUP_DP_CP] = m->dp * m->cp,
        [GROUP_ETP] = m->etp,
        [GROUP_EP] = m->ep,
        [GROUP_EDP] = m->edp,
        [GROUP_ETP_EP] = m->etp * m->ep,
        [GROUP_WORLD] = m->world,
    };
    for (int r = 0; r < m->world; r++) {
        struct mesh a = mesh_at(m, r);
        f->coordinates += r != a.i_tp + a.tp * (a.i_cp + a.cp * (a.i_dp + a.dp * a.i_pp));
        f->coordinates += r != a.i_etp + a.etp * (a.i_ep + a.ep * (a.i_edp + a.edp * a.i_pp));
        const int place[GROUP_COUNT] = {
            [GROUP_TP] = a.i_tp,
            [GROUP_CP] = a.i_cp,
            [GROUP_DP] = a.i_dp,
            [GROUP_PP] = a.i_pp,
            [GROUP_TP_CP] = a.i_tp + a.tp * a.i_cp,
            [GROUP_DP_CP] = a.i_cp + a.cp * a.i_dp,
            [GROUP_ETP] = a.i_etp,
            [GROUP_EP] = a.i_ep,
            [GROUP_EDP] = a.i_edp,
            [GROUP_ETP_EP] = a.i_etp + a.etp * a.i_ep,
            [GROUP_WORLD] = r,
        };
        for (int g = 0; g < GROUP_COUNT; g++) {
            int mine[WORLD_MAX], others[WORLD_MAX];
            int n = mesh_group(m, r, (enum mesh_group)g, mine);
            f->sizes += n != sizes[g];
            f->order += mine[place[g]] != r;
            for (int i = 1; i < n; i++)
                f->order += mine[i - 1] >= mine[i];
            /* Equal to the group of its first member, for every rank: a partition. */
            f->partition += mesh_group(m, mine[0], (enum mesh_group)g, others) != n ||
                            memcmp(mine, others, (size_t)n * sizeof *mine);
            for (int i = 0; g == GROUP_PP && i < n; i++) {
                struct mesh b = mesh_at(m, mine[i]);
                f->pipelines += b.i_pp != i || b.i_etp != a.i_etp || b.i_ep != a.i_ep ||
                                b.i_edp != a.i_edp || b.i_tp != a.i_tp;
            }
        }
    }
}

static void test_groups(void)
{
    struct faults f = {0};
    int64_t n = 0;
    for (int w = 1; w <= WORLD_MAX; w++)
        n += each_mesh(w, check_groups, &f);
    printf("# %lld mappings of 1 to %d ranks\n", (long long)n, WORLD_MAX);
    ok(f.coordinates == 0, "every rank is what its coordinates make, in both meshes");
    ok(f.sizes == 0, "every group has its size");
    ok(f.order == 0, "every rank has its place in its groups, which are in ascending order");
    ok(f.partition == 0, "the groups of each kind partition the world");
    ok(f.pipelines == 0, "a pipeline's ranks agree in all other coordinates of both meshes");
}

/* A small Mixtral whose sizes any mapping m can cut, with no more slack than needed.  names are not
 * looked at here. */
struct model {
    struct param p[4096];
    int64_t n;
    int layers, experts;
};

static void add(struct model *a, int role, int layer, int expert, int64_t rows, int64_t cols,
                enum mesh_cut cut)
{
    if (a->n == ARRAY_LEN(a->p))
        abort();
    a->p[a->n++] = (struct param){.name = "w",
                                  .role = role,
                                  .layer = layer,
                                  .expert = expert,
                                  .rows = rows,
                                  .cols = cols,
                                  .cut = cut,
                                  .kind = expert >= 0 ? ON_EXPERTS : ON_ATTENTION};
}

static void model_for(struct model *a, const struct mesh *m)
{
    enum { D = 3 };
    a->n = 0;
    a->layers = m->pp + 1;
    a->experts = m->ep > 4 ? m->ep : 2 * m->ep;
    add(a, 10, STAGE_FIRST, -1, 2 * m->tp, D, CUT_ROWS);
    a->p[0].lent = 1;
    for (int l = 0; l < a->layers; l++) {
        add(a, 0, l, -1, D, 0, CUT_NONE);
        add(a, 1, l, -1, 2 * m->tp, D, CUT_ROWS);
        add(a, 1, l, -1, m->tp, D, CUT_ROWS);
        add(a, 1, l, -1, m->tp, D, CUT_ROWS);
        add(a, 2, l, -1, D, 2 * m->tp, CUT_COLS);
        add(a, 3, l, -1, a->experts, D, CUT_NONE);
        add(a, 6, l, -1, a->experts, 0, CUT_NONE);
        a->p[a->n - 1].fine = 1;
        for (int e = 0; e < a->experts; e++) {
            add(a, 4, l, e, m->etp, D, CUT_ROWS);
            add(a, 4, l, e, m->etp, D, CUT_ROWS);
        }
        for (int e = 0; e < a->experts; e++)
            add(a, 5, l, e, D, m->etp, CUT_COLS);
    }
    add(a, 11, STAGE_LAST, -1, D, 0, CUT_NONE);
    add(a, 12, STAGE_LAST, -1, 2 * m->tp, D, CUT_ROWS);
}

struct paint { /* one count for each element of each tensor */
    uint8_t held[1 << 16], written[1 << 16], owned[1 << 16];
    int64_t at[4096]; /* where a tensor's counts begin */
};

static void paint_rect(uint8_t *tensor, const struct param *p, const struct rect *r)
{
    int64_t cols = MAX(p->cols, 1);
    for (int64_t i = r->row; i < r->row + r->rows; i++)
        for (int64_t j = r->col; j < r->col + r->cols; j++)
            tensor[i * cols + j]++;
}

/* Memory: slices in order, aligned groups without gaps inside; buckets that tile what is learnt, each
 * of one layer and replicated or not, with an equal part of them for each rank that shares them. */
static int64_t memory_faults(const struct layout *y, const struct mesh *m)
{
    int64_t faults = 0, end[BUFFERS] = {0}, full[BUFFERS_LEARNT] = {0}, parts[BUFFERS] = {0};
    const int sharing[BUFFERS] = {m->dp * m->cp, m->edp, 1, 1};
    const int place[BUFFERS_LEARNT] = {m->i_cp + m->cp * m->i_dp, m->i_edp};
    for (int64_t i = 0; i < y->n; i++) {
        const struct local *a = &y->local[i], *b = i ? a - 1 : NULL;
        int fused = b && b->p->layer == a->p->layer && b->p->role == a->p->role;
        faults += fused ? a->at != end[a->buffer] : a->at < end[a->buffer] || a->at % 32;
        faults += a->at - end[a->buffer] >= 32 * sharing[a->buffer];
        faults += a->buffer != (a->p->lent && m->i_pp      ? BUFFER_COPIES
                                : a->p->fine               ? BUFFER_FINE
                                : a->p->kind == ON_EXPERTS ? BUFFER_EXPERTS
                                                           : BUFFER_DENSE);
        faults += a->buffer == BUFFER_COPIES && m->i_pp != m->pp - 1;
        end[a->buffer] = a->at + a->r.rows * a->r.cols;
        int64_t in = 0; /* buckets that hold all of it */
        for (int64_t k = 0; k < y->buckets; k++)
            in += y->bucket[k].buffer == a->buffer && y->bucket[k].at <= a->at &&
                  end[a->buffer] <= y->bucket[k].at + y->bucket[k].n &&
                  y->bucket[k].layer == a->p->layer &&
                  y->bucket[k].replicated ==
                      (a->buffer == BUFFER_DENSE && a->p->cut == CUT_NONE);
        faults += in != (a->buffer < BUFFERS_LEARNT);
    }
    for (int64_t k = 0; k < y->buckets; k++) {
        const struct bucket *b = &y->bucket[k];
        faults += b->at != full[b->buffer] || b->n <= 0 || b->part % 32 ||
                  b->n != b->part * sharing[b->buffer] ||
                  b->own != b->at + b->part * place[b->buffer] || b->in_shard != parts[b->buffer];
        full[b->buffer] += b->n;
        parts[b->buffer] += b->part;
    }
    for (int b = 0; b < BUFFERS; b++)
        faults += end[b] > y->size[b] || y->size[b] - end[b] >= 32 * sharing[b] ||
                  y->shard[b] != parts[b] || (b < BUFFERS_LEARNT && full[b] != y->size[b]);
    return faults;
}

static struct model model;
static struct paint paint;

static void check_slices(const struct mesh *m, void *arg)
{
    struct faults *f = arg;
    model_for(&model, m);
    f->fits += mesh_check(m, model.p, model.n, model.layers, model.experts) != NULL;
    int64_t total = 0, same_size[BUFFERS] = {-1, -1, -1, -1}, stage = -1;
    for (int64_t i = 0; i < model.n; i++) {
        paint.at[i] = total;
        total += model.p[i].rows * MAX(model.p[i].cols, 1);
    }
    if (total > (int64_t)sizeof paint.written)
        abort();
    memset(paint.held, 0, (size_t)total);
    memset(paint.written, 0, (size_t)total);
    memset(paint.owned, 0, (size_t)total);
    for (int r = 0; r < m->world; r++) {
        struct mesh a = mesh_at(m, r);
        struct layout y;
        layout_init(&y, &a, model.p, model.n, model.layers, model.experts);
        f->memory += memory_faults(&y, &a);
        /* The ranks that share a buffer must agree about its size: all of one stage do. */
        for (int b = 0; b < BUFFERS; b++) {
            f->memory += a.i_pp == stage && same_size[b] != y.size[b];
            same_size[b] = y.size[b];
        }
        stage = a.i_pp;
        for (int64_t i = 0; i < y.n; i++) {
            const struct local *s = &y.local[i];
            int64_t t = s->p - model.p;
            paint_rect(paint.held + paint.at[t], s->p, &s->r);
            if (s->writes)
                paint_rect(paint.written + paint.at[t], s->p, &s->r);
            for (int64_t b = 0; b < y.buckets; b++) {
                struct rect parts[3];
                int64_t lo, hi;
                int own = s->owns && layout_part(&y.bucket[b], s, &lo, &hi);
                int n = own ? rect_from_range(&s->r, lo, hi, parts) : 0;
                for (int k = 0; k < n; k++)
                    paint_rect(paint.owned + paint.at[t], s->p, &parts[k]);
            }
        }
        layout_release(&y);
    }
    static uint8_t fine[1 << 16];
    for (int64_t t = 0; t < model.n; t++) {
        const struct param *p = &model.p[t];
        memset(fine + paint.at[t], p->fine, (size_t)(p->rows * MAX(p->cols, 1)));
        int replicas = p->kind == ON_EXPERTS ? m->edp
                                             : m->dp * m->cp * (p->cut == CUT_NONE ? m->tp : 1) *
                                                   (p->lent && m->pp > 1 ? 2 : 1);
        for (int64_t i = 0; i < p->rows * MAX(p->cols, 1); i++)
            f->replicas += paint.held[paint.at[t] + i] != replicas;
    }
    for (int64_t i = 0; i < total; i++) {
        f->coverage += paint.written[i] != 1;
        f->shards += paint.owned[i] != 1 - fine[i];
    }
}

static void test_slices(void)
{
    struct faults f = {0};
    int64_t n = 0;
    for (int w = 1; w <= WORLD_MAX; w++)
        n += each_mesh(w, check_slices, &f);
    ok(f.fits == 0, "a model of matching sizes fits each of %lld mappings", (long long)n);
    ok(f.replicas == 0, "every element is held by as many ranks as replicate it");
    ok(f.coverage == 0, "every element of every tensor is written by exactly one rank");
    ok(f.shards == 0, "and, unless fine, is in exactly one owner's optimizer shard");
    ok(f.memory == 0, "a rank's memory has no gaps, overlaps or misplaced tensors, and parts of all its buckets");
}

static void test_stages(void)
{
    int faults = 0;
    for (int pp = 1; pp <= 16; pp++)
        for (int layers = pp; layers <= 40; layers++) {
            struct mesh m;
            if (mesh_init(&m, pp, 0, 1, 1, pp, 1, 1))
                abort();
            int count[16] = {0}, last = 0;
            for (int l = 0; l < layers; l++) {
                int s = mesh_stage(&m, l, layers);
                faults += s < last || s >= pp;
                last = s;
                count[s]++;
            }
            for (int s = 0; s < pp; s++)
                faults += count[s] != layers / pp + (s < layers % pp);
            faults += mesh_stage(&m, STAGE_FIRST, layers) != 0;
            faults += mesh_stage(&m, STAGE_LAST, layers) != pp - 1;
        }
    ok(faults == 0, "stages are contiguous and even, the first ones taking the remainder");
}

static void test_check(void)
{
    static const struct {
        int tp, pp, etp, ep;
        const char *why;
    } cases[] = {
        {2, 1, 1, 1, NULL},
        {1, 1, 3, 2, NULL},
        {1, 1, 1, 4, "6 experts cannot be dealt evenly to ep 4"},
        {3, 1, 1, 1, "q: its 8 rows cannot be cut evenly over tp 3"},
        {4, 1, 1, 1, "o: its 6 columns cannot be cut evenly over tp 4"},
        {1, 1, 2, 1, "w1: its 9 rows cannot be cut evenly over etp 2"},
        {1, 4, 1, 1, "3 layers are too few for pp 4 stages"},
    };
    static const struct param p[] = {
        {.name = "q", .layer = 0, .expert = -1, .rows = 8, .cols = 5, .cut = CUT_ROWS},
        {.name = "o", .layer = 1, .expert = -1, .rows = 5, .cols = 6, .cut = CUT_COLS},
        {.name = "w1",
         .layer = 2,
         .expert = 5,
         .rows = 9,
         .cols = 5,
         .kind = ON_EXPERTS,
         .cut = CUT_ROWS},
    };
    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct mesh m;
        int world = 24;
        if (mesh_init(&m, world, 0, cases[i].tp, 1, cases[i].pp, cases[i].etp, cases[i].ep))
            abort();
        const char *why = mesh_check(&m, p, ARRAY_LEN(p), 3, 6);
        ok(why && cases[i].why ? !strcmp(why, cases[i].why) : why == cases[i].why,
           "tp %d pp %d etp %d ep %d: %s", cases[i].tp, cases[i].pp, cases[i].etp, cases[i].ep,
           why ? why : "fits");
    }
}

static void test_ranges(void)
{
    int64_t faults = 0, most = 0;
    for (int64_t rows = 1; rows <= 5; rows++)
        for (int64_t cols = 1; cols <= 5; cols++)
            for (int64_t lo = 0; lo <= rows * cols; lo++)
                for (int64_t hi = lo; hi <= rows * cols; hi++) {
                    const struct rect slice = {7, 11, rows, cols};
                    struct rect out[3];
                    int n = rect_from_range(&slice, lo, hi, out);
                    most = MAX(most, n);
                    int64_t next =
                        lo; /* in the order of the rectangles, row by row: lo, lo + 1, ... */
                    for (int k = 0; k < n; k++)
                        for (int64_t i = out[k].row; i < out[k].row + out[k].rows; i++)
                            for (int64_t j = out[k].col; j < out[k].col + out[k].cols; j++)
                                faults += i < 7 || i >= 7 + rows || j < 11 || j >= 11 + cols ||
                                          (i - 7) * cols + (j - 11) != next++;
                    faults += next != hi || (cols == 1 && n > 1);
                }
    ok(faults == 0 && most == 3,
       "every stretch of every small slice is at most 3 rectangles, in order");
}

static void test_place(void)
{
    static const struct {
        const char *layout, *stages; /* of layers 0, 1, ... */
    } fits[] = {
        {"1,1,1,1", "0101"}, {"3,1", "0001"}, {"1,2,2,1,1,1", "01100101"}, {"2,1,1,2", "001011"}};
    static const char *const refused[] = {"",     "1",    "1,1,1", "0,1", "1,,1",
                                          "1,1,", "1,-1", "1,x",   "1 1"};
    struct mesh m;
    int wrong = 0;
    mesh_init(&m, 2, 0, 1, 1, 2, 1, 1);
    for (int64_t i = 0; i < ARRAY_LEN(fits); i++) {
        int n = (int)strlen(fits[i].stages);
        wrong += mesh_place(&m, fits[i].layout) != NULL;
        for (int l = 0; l < n; l++)
            wrong += mesh_stage(&m, l, n) != fits[i].stages[l] - '0';
        wrong += mesh_stage(&m, STAGE_FIRST, n) != 0 || mesh_stage(&m, STAGE_LAST, n) != 1;
    }
    ok(wrong == 0, "layers lie where a layout places them");
    for (int64_t i = 0; i < ARRAY_LEN(refused); i++)
        wrong += mesh_place(&m, refused[i]) == NULL;
    ok(wrong == 0, "what is no layout of two stages is refused");
}

/* As a model of 6 experts, 4 heads and 3 layers, sequences of 4 tokens and a step of 4 rows fit. */
static const char *small_fault(void *arg, struct mesh *m)
{
    ++*(int64_t *)arg;
    return 6 % m->ep || 4 % m->tp || m->cp > 2 || m->pp > 3 || 4 % m->dp ? "too large" : NULL;
}

struct nearest { /* against all that there are: whether one is nearer */
    int want[MESH_SIZES], changes;
    double ratio;
    int64_t fitting;
};

static void measure(const struct mesh *m, const int *want, int *changes, double *ratio)
{
    const int have[] = {m->tp, m->cp, m->pp, m->etp, m->ep};
    *changes = 0, *ratio = 1;
    for (int i = 0; i < MESH_SIZES; i++) {
        int a = MAX(want[i], 1);
        *changes += want[i] != have[i];
        *ratio *= (double)MAX(a, have[i]) / MIN(a, have[i]);
    }
}

static void try_nearer(const struct mesh *m, void *arg)
{
    struct nearest *x = arg;
    struct mesh copy = *m;
    int64_t calls = 0;
    int changes;
    double ratio;
    if (small_fault(&calls, &copy))
        return;
    measure(m, x->want, &changes, &ratio);
    if (!x->fitting++ || changes < x->changes ||
        (changes == x->changes && ratio < x->ratio * (1 - 1e-9)))
        x->changes = changes, x->ratio = ratio;
}

/* Every wish of 0 to 9 for each size, for every world to 9 ranks; in some worlds nothing fits. */
static void test_nearest(void)
{
    enum { WISHES = 10, WORLD = 9 };
    int64_t wrong = 0, unfit = 0, impossible = 0, none = 0, calls = 0;
    for (int world = 1; world <= WORLD; world++)
        for (int i = 0; i < 100000; i++) {
            struct nearest x = {.want = {i % WISHES, i / 10 % WISHES, i / 100 % WISHES,
                                         i / 1000 % WISHES, i / 10000}};
            struct mesh near, again;
            int changes;
            double ratio;
            int found = mesh_nearest(&near, world, x.want, small_fault, &calls);
            if (!mesh_init(&again, world, 0, x.want[0], x.want[1], x.want[2], x.want[3],
                           x.want[4]) &&
                !small_fault(&calls, &again)) { /* itself */
                measure(&near, x.want, &changes, &ratio);
                wrong += !found || changes;
                continue;
            }
            impossible++;
            each_mesh(world, try_nearer, &x);
            none += !found;
            if (found != (x.fitting > 0)) {
                wrong++;
            } else if (found) {
                unfit += mesh_init(&again, world, 0, near.tp, near.cp, near.pp, near.etp,
                                   near.ep) != NULL ||
                         small_fault(&calls, &again) != NULL;
                measure(&near, x.want, &changes, &ratio);
                wrong += changes != x.changes || ratio > x.ratio * (1 + 1e-9);
            }
        }
    ok(unfit == 0, "each of %lld mappings that do not fit has a nearest that does, or none has",
       (long long)impossible);
    ok(wrong == 0 && none > 0 && none < impossible,
       "and no other is nearer (in %lld there is none)", (long long)none);
}

int main(void)
{
    test_vectors();
    test_refusals();
    test_groups();
    test_stages();
    test_check();
    test_ranges();
    test_slices();
    test_place();
    test_nearest();
    return finish();
}
