/* tok_ranks.c -- the merges that a vocabulary of ranks stands for.
 *
 * tiktoken and SentencePiece keep no merges: of all neighbours they join those whose joined text
 * has the best rank, leftmost first.  A token, wherever it comes about, comes about as it does when
 * its own text is encoded alone, since no merge across its ends can have happened.  So the last
 * step of that encoding is its one merge, and a token that its own text does not end in has none.
 * Tokens of one rank must be runs of one character (SentencePiece's spaces); there the leftmost
 * grows before the next begins, which is: the longest first. */

#include "text/tok_file.h"

#include <stdlib.h>
#include <string.h>

struct ranked {
    int32_t rank, id;
    const struct buf *text;
};

static int ranked_order(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->text->len != y->text->len)
        return x->text->len > y->text->len ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int is_run(const struct buf *b)
{
    const char *p = b->data;

    utf8_next(&p);
    size_t n = (size_t)(p - b->data);
    for (size_t i = n; i < b->len; i += n)
        if (b->len - i < n || memcmp(b->data, b->data + i, n))
            return 0;
    return 1;
}

static int same_rank_is_run(const struct ranked *a, const struct ranked *b)
{
    size_t n = MIN(a->text->len, b->text->len);

    return is_run(a->text) && is_run(b->text) && !memcmp(a->text->data, b->text->data, n);
}

struct parts { /* of one token's text while it is encoded */
    size_t *start;
    int32_t *rank; /* of the text of this part and the next; -1: no token */
    int64_t n, cap;
};

static int32_t rank_of(const struct map *ids, const int32_t *rank, const char *s, size_t n)
{
    int32_t id = map_get(ids, s, n);

    return id < 0 ? -1 : rank[id];
}

static void parts_init(struct parts *p, const struct buf *text, int chars)
{
    if ((int64_t)text->len + 1 > p->cap) {
        p->cap = 2 * (int64_t)text->len + 1;
        p->start = xrealloc(p->start, (size_t)p->cap * sizeof *p->start);
        p->rank = xrealloc(p->rank, (size_t)p->cap * sizeof *p->rank);
    }
    p->n = 0;
    for (size_t i = 0; i < text->len; i++)
        if (!chars || ((unsigned char)text->data[i] & 0xc0) != 0x80)
            p->start[p->n++] = i;
    p->start[p->n] = text->len;
}

/* Where the last merge that makes text joins; 0: none does. */
static size_t last_join(struct parts *p, const struct buf *text, const struct map *ids,
                        const int32_t *rank, int chars)
{
    parts_init(p, text, chars);
    for (int64_t i = 0; i + 1 < p->n; i++)
        p->rank[i] = rank_of(ids, rank, text->data + p->start[i], p->start[i + 2] - p->start[i]);
    while (p->n > 2) {
        int64_t best = -1;
        for (int64_t i = 0; i + 1 < p->n; i++)
            if (p->rank[i] >= 0 && (best < 0 || p->rank[i] < p->rank[best]))
                best = i;
        if (best < 0)
            return 0;
        p->n--;
        memmove(p->start + best + 1, p->start + best + 2, (size_t)(p->n - best) * sizeof *p->start);
        if (best + 1 < p->n)
            memmove(p->rank + best, p->rank + best + 1,
                    (size_t)(p->n - 1 - best) * sizeof *p->rank);
        for (int64_t i = MAX(best - 1, 0); i <= best && i + 1 < p->n; i++)
            p->rank[i] =
                rank_of(ids, rank, text->data + p->start[i], p->start[i + 2] - p->start[i]);
    }
    return p->n == 2 ? p->start[1] : 0;
}

void tok_ranks_merges(struct tok_file *f, const struct buf *text, const int32_t *rank, int chars,
                      const char *who)
{
    struct ranked *order = xcalloc((size_t)f->size + 1, sizeof *order);
    struct map ids = {0};
    struct parts parts = {0};
    int64_t n = 0;

    for (int64_t i = 0; i < f->size; i++) {
        if (rank[i] < 0)
            continue;
        *map_put(&ids, text[i].data, text[i].len) = (int32_t)i;
        order[n++] = (struct ranked){rank[i], (int32_t)i, &text[i]};
    }
    if (n)
        qsort(order, (size_t)n, sizeof *order, ranked_order);
    for (int64_t i = 0; i < n; i++) {
        const struct buf *b = order[i].text;
        if (i && order[i].rank == order[i - 1].rank && !same_rank_is_run(&order[i], &order[i - 1]))
            die_misused("%s: the tokens \"%s\" and \"%s\" have the same score", who,
                        order[i - 1].text->data, b->data);
        size_t cut = last_join(&parts, b, &ids, rank, chars);
        if (!cut)
            continue;
        int32_t left = map_get(&ids, b->data, cut);
        int32_t right = map_get(&ids, b->data + cut, b->len - cut);
        if (left < 0 || right < 0)
            die_misused("%s: token \"%s\" is made of what are no tokens", who, b->data);
        ids_add(&f->merge, left);
        ids_add(&f->merge, right);
    }
    free(order);
    free(parts.start);
    free(parts.rank);
    map_release(&ids);
}

void tok_ranked_init(struct tok_ranked *v)
{
    *v = (struct tok_ranked){0};
    tok_file_init(&v->file);
}

void tok_ranked_add(struct tok_ranked *v, int64_t id, const struct buf *bytes, const char *who)
{
    struct buf name = {0};

    byte_level_text(&name, bytes->data, bytes->len);
    tok_file_token(&v->file, id, name.data, name.len, who);
    buf_release(&name);
    if (v->file.cap > v->cap) {
        v->text = xrealloc(v->text, (size_t)v->file.cap * sizeof *v->text);
        memset(v->text + v->cap, 0, (size_t)(v->file.cap - v->cap) * sizeof *v->text);
        v->cap = v->file.cap;
    }
    buf_add(&v->text[id], bytes->data, bytes->len);
}

void tok_ranked_finish(struct tok_ranked *v, const char *who)
{
    int32_t *rank = xcalloc((size_t)v->file.size + 1, sizeof *rank);

    for (int64_t i = 0; i < v->file.size; i++)
        rank[i] = v->text[i].data ? (int32_t)i : -1;
    tok_ranks_merges(&v->file, v->text, rank, 0, who);
    v->file.ignore_merges = 1; /* a piece that is a token is not encoded */
    free(rank);
}

void tok_ranked_release(struct tok_ranked *v)
{
    for (int64_t i = 0; i < v->cap; i++)
        buf_release(&v->text[i]);
    free(v->text);
    tok_file_release(&v->file);
}
