/* group.c -- what a row says about itself: its group, its reward, its length.
 *
 * A group is 64 bits of hash, never a position in the file: shuffling, merging or cutting the input
 * cannot move an answer to another prompt. */
#include "pref/pref.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

const char *pref_group(const struct row *r, struct buf *scratch, uint64_t *group)
{
    buf_reset(scratch);
    row_group(r, scratch);
    if (scratch->len)
        *group = hash_xxh3(scratch->data, scratch->len);
    else if (r->text)
        *group = hash_xxh3(r->text, r->text_len);
    else
        return "no prompt, prompt_id or text to group by";
    return NULL;
}

const char *pref_reward(const struct row *r, const char *field, double *reward)
{
    struct json v;
    if (!json_get(r->json, field, &v) || json_type(v) == JSON_NULL)
        return "no reward";
    if (json_real(v, reward))
        return "the reward is no number";
    if (!(fabs(*reward) <= FLT_MAX)) /* shards hold rewards in F32 */
        return "the reward is too large";
    return NULL;
}

const char *pref_answer(const struct row *r, size_t *len)
{
    *len = r->response ? r->response_len : r->text ? r->text_len : 0;
    return r->response ? r->response : r->text;
}

int64_t pref_length(const struct row *r)
{
    size_t len;
    const char *s = pref_answer(r, &len);
    return s ? utf8_count(s, len) : -1;
}

void pref_lengths(const struct row *r, int64_t *least, int64_t *most)
{
    *least = *most = MAX(pref_length(r), 0);
    if (!r->chosen || !r->rejected)
        return;
    int64_t a = utf8_count(r->chosen, r->chosen_len);
    int64_t b = utf8_count(r->rejected, r->rejected_len);
    *least = MIN(a, b);
    *most = MAX(a, b);
}

static const char *number_parse(const char *s, int64_t *out)
{
    if (*s < '0' || *s > '9') /* strtoll would take blanks and signs */
        return NULL;
    char *end;
    *out = strtoll(s, &end, 10);
    return end;
}

int pref_part_parse(struct pref_part *p, const char *s)
{
    s = number_parse(s, &p->first);
    p->last = p->first;
    if (s && *s == '-')
        s = number_parse(s + 1, &p->last);
    if (s && *s == '/')
        s = number_parse(s + 1, &p->of);
    else
        return -1;
    return s && !*s && 1 <= p->first && p->first <= p->last && p->last <= p->of ? 0 : -1;
}

int pref_part_has(const struct pref_part *p, uint64_t key, uint64_t group)
{
    int64_t i = 1 + MIN((int64_t)(rng_uniform(key, group, 0) * (double)p->of), p->of - 1);
    return p->first <= i && i <= p->last;
}
