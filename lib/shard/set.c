/* set.c -- the packed sequences and rows of an open set, in any order. */
#include "shard/shard_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const struct set_info *set_info(const struct set *s)
{
    return &s->info;
}

int64_t set_sequences(const struct set *s)
{
    return s->sequences;
}

int64_t set_rows(const struct set *s)
{
    return s->rows;
}

int64_t set_tokens(const struct set *s)
{
    return s->tokens;
}

const char *set_hash(const struct set *s)
{
    return s->hash;
}

const struct buf *set_file(const struct set *s, const char *name)
{
    for (int64_t i = 0; i < s->files; i++)
        if (!strcmp(s->file[i].name, name) && !s->file[i].torn)
            return &s->file[i].bytes;
    return NULL;
}

void set_close(struct set *s)
{
    for (int64_t i = 0; i < s->groups; i++)
        munmap(s->group[i].map, s->group[i].bytes);
    for (int64_t i = 0; i < s->files; i++) {
        free(s->file[i].name);
        buf_release(&s->file[i].bytes);
    }
    set_info_release(&s->info);
    free(s->group);
    free(s->file);
    free(s->path);
    free(s);
}

void set_forget(const struct set *s)
{
    for (int64_t i = 0; i < s->groups; i++)
        madvise(s->group[i].map, s->group[i].bytes, MADV_DONTNEED);
}

/* The last group that begins at or before sequence i, or before row i. */
static const struct group *group_of(const struct set *s, int64_t i, int by_row)
{
    int64_t lo = 0, hi = s->groups;
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if ((by_row ? s->group[mid].first_row : s->group[mid].first) <= i)
            lo = mid;
        else
            hi = mid;
    }
    return &s->group[lo];
}

int64_t set_row(const struct set *s, int64_t i, struct doc *out)
{
    if (i < 0 || i >= s->rows)
        die("%s: row %lld of %lld", s->path, (long long)i, (long long)s->rows);
    const struct group *g = group_of(s, i, 1);
    const struct rows *r = &g->rows;
    int64_t row = i - g->first_row, lo = 0, hi = r->sequences;
    *out = (struct doc){
        .token = r->token + r->offset[row],
        .target = r->target + r->offset[row],
        .n = r->offset[row + 1] - r->offset[row],
        .weight = r->weight[row],
        .reward = r->reward ? r->reward[row] : NAN,
        .pair = r->pair ? r->pair[row] : -1,
        .margin = r->margin ? r->margin[row] : 0,
        .ref_logp = r->ref_logp ? r->ref_logp[row] : 0,
    };
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (r->pack[mid] <= row)
            lo = mid;
        else
            hi = mid;
    }
    return g->first + lo;
}

/* Packed sequence i is rows [*from, *to) of the group that is returned. */
static const struct rows *rows_of(const struct set *s, int64_t i, int64_t *from, int64_t *to)
{
    if (i < 0 || i >= s->sequences)
        die("%s: sequence %lld of %lld", s->path, (long long)i, (long long)s->sequences);
    const struct group *g = group_of(s, i, 0);
    const struct rows *r = &g->rows;
    int64_t p = i - g->first;
    *from = r->pack[p];
    *to = p + 1 < r->sequences ? r->pack[p + 1] : r->rows;
    return r;
}

int64_t set_documents(const struct set *s, int64_t i, struct set_doc *out)
{
    int64_t from, to;
    const struct rows *r = rows_of(s, i, &from, &to);
    for (int64_t row = from; row < to; row++)
        out[row - from] = (struct set_doc){
            .weight = r->weight[row],
            .reward = r->reward ? r->reward[row] : NAN,
            .margin = r->margin ? r->margin[row] : 0,
            .ref_logp = r->ref_logp ? r->ref_logp[row] : 0,
            .pair = r->pair ? r->pair[row] : -1,
        };
    return to - from;
}

void set_sequence(const struct set *s, int64_t i, int32_t *token, uint8_t *target,
                  int32_t *document, float *weight)
{
    int64_t from, to, seq = s->info.seq, at = 0;
    const struct rows *r = rows_of(s, i, &from, &to);
    for (int64_t row = from; row < to; row++)
        for (int64_t t = r->offset[row]; t < r->offset[row + 1]; t++, at++) {
            token[at] = r->token[t];
            target[at] = r->target[t];
            document[at] = (int32_t)(row - from);
            weight[at] = r->weight[row];
        }
    for (; at < seq; at++) {
        token[at] = 0;
        target[at] = 0;
        document[at] = -1;
        weight[at] = 0;
    }
}
