/* overlong.c -- a document, or the two of a pair, that is longer than a packed sequence.
 *
 * Cut at its end, an answer loses its last words and the token that says it is over.  Cut at its
 * front, it stays whole and the prompt loses its oldest words; both documents of a pair then lose
 * as many, so that they still answer the same. */
#include "text/text.h"

#include <string.h>

int64_t rendered_learnt(const struct rendered *d, int64_t from, int64_t n)
{
    int64_t sum = 0;

    for (int64_t i = from; i < from + n; i++)
        sum += d->target.data[i];
    return sum;
}

int rendered_equal(const struct rendered *a, const struct rendered *b)
{
    return a->token.n == b->token.n &&
           !memcmp(a->token.id, b->token.id, (size_t)a->token.n * sizeof *a->token.id);
}

void rendered_release(struct rendered *d)
{
    ids_release(&d->token);
    buf_release(&d->target);
}

static void cut_end(struct rendered *d, int64_t n)
{
    d->token.n = n;
    d->target.len = (size_t)n;
}

static const char *cut_ends(struct rendered *d, int64_t docs, int64_t seq)
{
    int64_t second = docs > 1 ? d[1].token.n : 0;
    int64_t first = MIN(d[0].token.n, MAX(seq - second, docs > 1 ? seq / 2 : seq));

    cut_end(&d[0], first);
    if (docs > 1)
        cut_end(&d[1], MIN(second, seq - first));
    for (int64_t i = 0; i < docs; i++)
        if (!rendered_learnt(&d[i], 0, d[i].token.n))
            return "nothing learnt is left within --seq";
    return NULL;
}

static const char *cut_fronts(struct rendered *d, int64_t docs, int64_t seq)
{
    int64_t over = d[0].token.n + (docs > 1 ? d[1].token.n : 0) - seq, n = (over + docs - 1) / docs;

    for (int64_t i = 0; i < docs; i++)
        if (d[i].tight - d[i].loose < n)
            return docs > 1 ? "the answers are longer than --seq"
                            : "the answer is longer than --seq";
    for (int64_t i = 0; i < docs; i++) {
        int32_t *id = d[i].token.id;
        char *target = d[i].target.data;
        int64_t to = d[i].loose, rest = d[i].token.n - to - n;
        memmove(id + to, id + to + n, (size_t)rest * sizeof *id);
        memmove(target + to, target + to + n, (size_t)rest);
        cut_end(&d[i], to + rest);
        d[i].tight -= n;
    }
    return NULL;
}

const char *overlong_cut(struct rendered *d, int64_t docs, int64_t seq, const char *policy)
{
    const char *why;

    if (!strcmp(policy, "drop"))
        return docs > 1 ? "the pair is longer than --seq" : "longer than --seq";
    why = (strcmp(policy, "left") ? cut_ends : cut_fronts)(d, docs, seq);
    if (!why && docs > 1 && rendered_equal(&d[0], &d[1]))
        return "within --seq chosen and rejected are the same";
    return why;
}
