/* tag.c -- conditional alignment: the tag that tells a model how good the answer to come is.
 *
 * A tag is either one of a few tokens, one for each quantile of the rewards, or the reward itself
 * as text.  Bins are cut between values, never between equal ones, and the edges are numbers that
 * can be saved: other rows are put into the same bins by comparing. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void pref_tags_fit(struct pref_tags *t, struct pref_set *s, int64_t bins)
{
    int64_t edges = 0, same;
    t->bins = bins;
    pref_set_sort_score(s); /* the best first */
    for (int64_t below = 0; below < s->n; below += same) {
        const struct pref_item *it = &s->item[s->n - 1 - below];
        for (same = 1; below + same < s->n && it[-same].score == it->score;)
            same++;
        int64_t best = below + same == s->n;
        int64_t bin = best ? bins - 1 : (2 * below + same) * bins / (2 * s->n);
        while (edges < bin)
            t->edge[edges++] = it->score;
    }
    while (edges < bins - 1)
        t->edge[edges++] = 0;
}

static int64_t unit(const struct pref_tags *t)
{
    return t->digits == 1 ? 10 : 100;
}

int64_t pref_tag_level(const struct pref_tags *t, double score)
{
    if (t->digits) {
        double level = nearbyint(score * (double)unit(t));
        if (fabs(level) > 1e15)
            die("a reward of %g is too large for a tag: see --norm", score);
        return (int64_t)level;
    }
    int64_t bin = 0;
    while (bin < t->bins - 1 && score >= t->edge[bin])
        bin++;
    return bin;
}

void pref_tag_text(const struct pref_tags *t, int64_t level, struct buf *out)
{
    if (t->digits)
        buf_printf(out, " <rm_score>: %s%lld.%0*lld ", level < 0 ? "-" : "",
                   (long long)(llabs(level) / unit(t)), (int)t->digits,
                   (long long)(llabs(level) % unit(t)));
    else
        buf_printf(out, "<|rw_%lld|>", (long long)level);
}

/* <|name|>, where a name is letters, digits and underscores; or <rm_score>. */
static int spells_control(const char *s, size_t len)
{
    static const char mark[] = "<rm_score>";
    for (const char *p = s, *end = s + len; (p = memchr(p, '<', (size_t)(end - p))); p++) {
        if (end - p >= 10 && !memcmp(p, mark, 10))
            return 1;
        if (p + 1 == end || p[1] != '|')
            continue;
        const char *q = p + 2;
        while (q < end && (*q == '_' || (*q >= '0' && *q <= '9') || (*q >= 'a' && *q <= 'z') ||
                           (*q >= 'A' && *q <= 'Z')))
            q++;
        if (q > p + 2 && end - q >= 2 && q[0] == '|' && q[1] == '>')
            return 1;
    }
    return 0;
}

static int value_has_control(struct json v)
{
    size_t len;
    const char *s = json_string(v, &len);
    struct json_iter i;
    if (s)
        return spells_control(s, len);
    for (json_iter_init(&i, v); json_iter_next(&i);)
        if (value_has_control(i.value))
            return 1;
    return 0;
}

int pref_has_control(const struct row *r)
{
    return (r->response && spells_control(r->response, r->response_len)) ||
           (r->text && spells_control(r->text, r->text_len)) ||
           (r->has_prompt && value_has_control(r->prompt));
}
