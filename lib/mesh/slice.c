/* slice.c -- which rectangle of each tensor a rank holds, and where it lies in the rank's memory.
 *
 * A tensor is held by one pipeline stage; an expert's by one rank of EP; what is left is cut evenly
 * over TP or ETP, or replicated.  Everybody who agrees in these coordinates has the same rectangle;
 * the first of them writes it. */
#include "mesh/mesh.h"

#include <assert.h>
#include <stdlib.h>

/* Fused tensors begin at multiples of this many elements, for aligned loads in any type. */
enum { ALIGN = 32 };

static _Thread_local char why[512];

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Of what does not divide, the first chunks have more, as the last has the head to compute. */
int mesh_chunk(const struct mesh *m, int layer, int layers)
{
    int chunk = 0;
    if (layer == STAGE_FIRST)
        return 0;
    if (layer == STAGE_LAST || layer >= layers)
        return MAX(m->chunks, m->pp) - 1;
    if (m->chunks) {
        for (int end = m->chunk_layers[0]; layer >= end && chunk + 1 < m->chunks;)
            end += m->chunk_layers[++chunk];
        return chunk;
    }
    int each = layers / m->pp, more = layers % m->pp;
    if (layer < more * (each + 1))
        return layer / (each + 1);
    return more + (layer - more * (each + 1)) / each;
}

int mesh_stage(const struct mesh *m, int layer, int layers)
{
    return mesh_chunk(m, layer, layers) % m->pp;
}

/* Over how many ranks a tensor is cut, and this rank's place among them. */
static int cut_ways(const struct mesh *m, const struct param *p, int *place)
{
    int experts = p->kind == ON_EXPERTS;
    *place = p->cut == CUT_NONE ? 0 : experts ? m->i_etp : m->i_tp;
    return p->cut == CUT_NONE ? 1 : experts ? m->etp : m->tp;
}

/* Whether what this rank has of the tensor, if anything, is a copy. */
static int is_copy(const struct mesh *m, const struct param *p, int layers)
{
    return p->lent && m->i_pp == m->pp - 1 && mesh_stage(m, p->layer, layers) != m->i_pp;
}

int mesh_slice(const struct mesh *m, const struct param *p, int layers, int experts,
               struct rect *out)
{
    if (mesh_stage(m, p->layer, layers) != m->i_pp && !is_copy(m, p, layers))
        return 0;
    if (p->expert >= 0 && p->expert / (experts / m->ep) != m->i_ep)
        return 0;
    int place, ways = cut_ways(m, p, &place);
    *out = (struct rect){0, 0, p->rows, MAX(p->cols, 1)};
    int64_t *at = p->cut == CUT_COLS ? &out->col : &out->row;
    int64_t *size = p->cut == CUT_COLS ? &out->cols : &out->rows;
    *size /= ways;
    *at = *size * place;
    return 1;
}

const char *mesh_check(const struct mesh *m, const struct param *p, int64_t n, int layers,
                       int experts)
{
    if (experts % m->ep) {
        snprintf(why, sizeof why, "%d experts cannot be dealt evenly to ep %d", experts, m->ep);
        return why;
    }
    for (int64_t i = 0; i < n; i++) {
        int place, ways = cut_ways(m, &p[i], &place);
        int64_t size = p[i].cut == CUT_COLS ? MAX(p[i].cols, 1) : p[i].rows;
        if (size % ways) {
            snprintf(why, sizeof why, "%s: its %lld %s cannot be cut evenly over %s %d", p[i].name,
                     (long long)size, p[i].cut == CUT_COLS ? "columns" : "rows",
                     p[i].kind == ON_EXPERTS ? "etp" : "tp", ways);
            return why;
        }
    }
    int placed = 0;
    for (int i = 0; i < m->chunks; i++)
        placed += m->chunk_layers[i];
    if (m->chunks && placed != layers) {
        snprintf(why, sizeof why, "pp-layout places %d layers, and the model has %d", placed,
                 layers);
        return why;
    }
    if (layers < m->pp) {
        snprintf(why, sizeof why, "%d layers are too few for pp %d stages", layers, m->pp);
        return why;
    }
    return NULL;
}

/* The passes over the list that lay out a rank's memory, in order. */
static const struct {
    enum mesh_buffer buffer;
    int cut; /* 0: only what TP replicates, 1: only what it cuts, -1: all */
} passes[] = {
    {BUFFER_DENSE, 0}, {BUFFER_DENSE, 1},   {BUFFER_EXPERTS, -1},
    {BUFFER_FINE, -1}, {BUFFER_COPIES, -1},
};

static enum mesh_buffer buffer_of(const struct mesh *m, const struct param *p, int layers)
{
    return is_copy(m, p, layers)   ? BUFFER_COPIES
           : p->fine               ? BUFFER_FINE
           : p->kind == ON_EXPERTS ? BUFFER_EXPERTS
                                   : BUFFER_DENSE;
}

/* How many ranks share a buffer, and this rank's place among them. */
static int sharing(const struct mesh *m, enum mesh_buffer b, int *place)
{
    *place = b == BUFFER_DENSE ? m->i_cp + m->cp * m->i_dp : b == BUFFER_EXPERTS ? m->i_edp : 0;
    return b == BUFFER_DENSE ? m->dp * m->cp : b == BUFFER_EXPERTS ? m->edp : 1;
}

/* Ends the bucket in progress, if there is one, and returns the end. */
static int64_t bucket_end(struct layout *y, const struct mesh *m, int64_t end)
{
    struct bucket *b = y->buckets ? &y->bucket[y->buckets - 1] : NULL;
    int place, ranks;
    if (!b || b->n)
        return end;
    ranks = sharing(m, b->buffer, &place);
    b->n = round_up(end - b->at, (int64_t)ALIGN * ranks);
    b->part = b->n / ranks;
    b->own = b->at + place * b->part;
    b->in_shard = b->at / ranks;
    return b->at + b->n;
}

void layout_init(struct layout *y, const struct mesh *m, const struct param *p, int64_t n,
                 int layers, int experts)
{
    *y = (struct layout){.local = xcalloc((size_t)MAX(n, 1), sizeof *y->local),
                         .bucket = xcalloc((size_t)MAX(n, 1), sizeof *y->bucket)};
    for (int64_t pass = 0; pass < ARRAY_LEN(passes); pass++) {
        enum mesh_buffer buffer = passes[pass].buffer;
        int64_t at = y->size[buffer];
        const struct param *last = NULL;
        for (int64_t i = 0; i < n; i++) {
            struct rect r;
            int cut = p[i].cut != CUT_NONE;
            if (buffer_of(m, &p[i], layers) != buffer ||
                (passes[pass].cut >= 0 && passes[pass].cut != cut) ||
                !mesh_slice(m, &p[i], layers, experts, &r))
                continue;
            if (buffer < BUFFERS_LEARNT && (!last || last->layer != p[i].layer)) {
                at = bucket_end(y, m, at);
                y->bucket[y->buckets++] = (struct bucket){.buffer = buffer,
                                                          .layer = p[i].layer,
                                                          .replicated = passes[pass].cut == 0,
                                                          .at = at};
            }
            if (!last || last->layer != p[i].layer || last->role != p[i].role)
                at = round_up(at, ALIGN);
            last = &p[i];
            int dense = p[i].kind == ON_ATTENTION;
            /* An ON_EXPERTS tensor of no expert is on every rank of EP. */
            int owns = buffer == BUFFER_COPIES ? 0
                       : dense                 ? cut || m->i_tp == 0
                               : (cut || m->i_etp == 0) && (p[i].expert >= 0 || m->i_ep == 0);
            y->local[y->n++] = (struct local){
                .p = &p[i],
                .r = r,
                .buffer = buffer,
                .at = at,
                .owns = owns,
                .writes = owns && (dense ? m->i_cp == 0 && m->i_dp == 0 : m->i_edp == 0),
            };
            at += r.rows * r.cols;
        }
        y->size[buffer] = round_up(bucket_end(y, m, at), ALIGN);
    }
    for (int64_t i = 0; i < y->buckets; i++)
        y->shard[y->bucket[i].buffer] += y->bucket[i].part;
}

int layout_part(const struct bucket *b, const struct local *l, int64_t *lo, int64_t *hi)
{
    *lo = MAX(b->own - l->at, 0);
    *hi = MIN(b->own + b->part - l->at, l->r.rows * l->r.cols);
    return l->buffer == b->buffer && *lo < *hi;
}

void layout_release(struct layout *y)
{
    free(y->local), free(y->bucket);
    *y = (struct layout){0};
}

int rect_from_range(const struct rect *slice, int64_t lo, int64_t hi, struct rect out[3])
{
    assert(0 <= lo && hi <= slice->rows * slice->cols);
    int n = 0;
    while (lo < hi) {
        /* The rest of a begun row, else as many whole rows as there are, else the head of one. */
        int64_t row = lo / slice->cols, col = lo % slice->cols;
        int64_t rows = col ? 0 : (hi - lo) / slice->cols;
        int64_t cols = rows ? slice->cols : MIN(hi - lo, slice->cols - col);
        rows = MAX(rows, 1);
        out[n++] = (struct rect){slice->row + row, slice->col + col, rows, cols};
        lo += rows * cols;
    }
    return n;
}
