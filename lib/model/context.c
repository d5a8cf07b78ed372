/* context.c -- sequences cut over CP: which tokens a rank holds, and keys and values of all of
 * them.
 *
 * Under a causal mask later tokens have more to attend to, so a row is cut in 2 CP chunks and rank
 * i holds chunks i and 2 CP - 1 - i: every rank has the same work.  A query needs keys of other
 * ranks, so keys and values are gathered over CP and laid in the order of the whole rows, where the
 * keys of a document's part are a stretch: a prefix of the document, up to the last query of the
 * part.  Backward gathers them again, which costs traffic and saves their memory, and sums their
 * gradients back to where they came from. */
#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

static int64_t chunk_of(int rank, int half, int cp)
{
    return half ? 2 * cp - 1 - rank : rank;
}

void batch_host_cut(struct batch_host *part, const struct batch_host *whole, const struct mesh *m)
{
    int64_t size = whole->seq / (2 * m->cp), at = 0, span = 0;
    batch_host_clear(part);
    for (int64_t i = 0; i < 2 * whole->rows; i++, at += size) {
        int64_t lo = i / 2 * whole->seq + chunk_of(m->i_cp, i % 2, m->cp) * size, hi = lo + size;
        memcpy(part->token + at, whole->token + lo, size * sizeof *part->token);
        memcpy(part->label + at, whole->label + lo, size * sizeof *part->label);
        memcpy(part->position + at, whole->position + lo, size * sizeof *part->position);
        memcpy(part->group + at, whole->group + lo, size * sizeof *part->group);
        memcpy(part->weight + at, whole->weight + lo, size * sizeof *part->weight);
        while (whole->q_at[span + 1] <= lo)
            span++;
        for (int64_t j = span; j < whole->spans && whole->q_at[j] < hi; j++) {
            int64_t end = MIN(whole->q_at[j + 1], hi), n = part->spans++;
            part->q_at[n + 1] = at + end - lo;
            part->k_beg[n] = whole->k_beg[j];
            part->chosen[n] = 0; /* a loss on pairs of documents sees whole rows */
            part->base[n] = part->margin[n] = 0;
            part->k_end[n] = MAX(whole->k_beg[j], whole->k_end[j] - (whole->q_at[j + 1] - end));
        }
    }
}

void context_init(struct context *c, const struct mesh *m, struct lane *l, int64_t rows,
                  int64_t seq)
{
    int64_t n = rows * seq, bytes = n * sizeof(int32_t), size = seq / (2 * m->cp);
    int32_t *from = xmalloc(bytes), *to = xmalloc(bytes), *own = xmalloc(bytes);
    for (int64_t i = 0; i < n; i++) { /* token i % size of chunk i / size, as the ranks hold them */
        int64_t chunk = i / size, rank = chunk / (2 * rows), row = chunk / 2 % rows;
        to[i] = row * seq + chunk_of(rank, chunk % 2, m->cp) * size + i % size;
        from[to[i]] = i;
        own[i] = i;
    }
    const int32_t *host[] = {from, to, own};
    int32_t **array[] = {&c->from, &c->to, &c->own};
    c->tokens = n;
    for (int64_t i = 0; i < ARRAY_LEN(array); i++) {
        if (!(*array[i] = l->dev->alloc(bytes)))
            die("context parallelism needs %.1f MiB more than device %s has", bytes / 1048576.0,
                l->dev->name);
        l->dev->put(l, *array[i], host[i], bytes);
    }
    l->dev->wait(l);
    free(from), free(to), free(own);
}

void context_release(struct context *c, const struct dev_ops *dev)
{
    dev->free(c->from), dev->free(c->to), dev->free(c->own);
}

void context_join(const struct context *c, struct model *m, struct lane *l, void *whole,
                  const void *held)
{
    int64_t n = c->tokens / m->mesh.cp;
    struct arena_mark mark = arena_mark(&l->scratch);
    void *all = arena_take(&l->scratch, c->tokens * stat_size(m));
    comm_all_gather(m->comm[GROUP_CP], l, all, held, n, m->op->stat);
    m->op->gather_rows(l, stat_mat(m, whole, c->tokens, 1), stat_mat(m, all, c->tokens, 1),
                       c->from);
    arena_back(&l->scratch, mark);
}

void context_part(const struct context *c, struct model *m, struct lane *l, void *held,
                  const void *whole)
{
    int64_t n = c->tokens / m->mesh.cp;
    m->op->gather_rows(l, stat_mat(m, held, n, 1), stat_mat(m, whole, c->tokens, 1),
                       c->to + m->mesh.i_cp * n);
}

void *context_gather(struct task_context *t, struct mat k, struct mat v)
{
    const struct context *c = t->b->context;
    struct model *m = t->m;
    int64_t wide = k.cols + v.cols, n = k.rows * wide, rsz = real_size(m);
    char *all = scratch(t, c->tokens * wide * rsz), *own = all + m->mesh.i_cp * n * rsz;
    void *whole = scratch(t, c->tokens * wide * rsz);
    struct mat own_k = real_mat(m, own, k.rows, k.cols);
    struct mat own_v = real_mat(m, own + k.cols * rsz, v.rows, v.cols);
    own_k.ld = own_v.ld = wide;
    m->op->gather_rows(t->l, own_k, k, c->own);
    m->op->gather_rows(t->l, own_v, v, c->own);
    comm_all_gather(m->comm[GROUP_CP], t->l, all, own, n, m->op->real);
    m->op->gather_rows(t->l, real_mat(m, whole, c->tokens, wide), real_mat(m, all, c->tokens, wide),
                       c->from);
    return whole;
}

void context_scatter(struct task_context *t, struct mat dk, struct mat dv, const void *whole)
{
    const struct context *c = t->b->context;
    struct model *m = t->m;
    int64_t wide = dk.cols + dv.cols, n = dk.rows * wide, rsz = real_size(m);
    char *all = scratch(t, c->tokens * wide * rsz), *own = all + m->mesh.i_cp * n * rsz;
    m->op->gather_rows(t->l, real_mat(m, all, c->tokens, wide), real_mat(m, whole, c->tokens, wide),
                       c->to);
    comm_reduce_scatter(m->comm[GROUP_CP], t->l, own, all, n, m->op->real);
    struct mat own_k = real_mat(m, own, dk.rows, dk.cols);
    struct mat own_v = real_mat(m, own + dk.cols * rsz, dv.rows, dv.cols);
    own_k.ld = own_v.ld = wide;
    m->op->gather_rows(t->l, dk, own_k, c->own);
    m->op->gather_rows(t->l, dv, own_v, c->own);
}
