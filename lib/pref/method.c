/* method.c -- the methods: what a row scores, which scores stay, what is written into their rows.
 *
 * A method is a line of a table.  All of them see the same rows: whatever a rule about groups has
 * dropped is gone before a mean, a quantile or a fraction is taken. */
#include "pref/pref.h"

#include <math.h>
#include <string.h>

static const char *score_none(const struct pref_plan *p, const struct row *r, uint64_t group,
                              double *score)
{
    *score = 0;
    return NULL;
}

static const char *score_reward(const struct pref_plan *p, const struct row *r, uint64_t group,
                                double *score)
{
    return pref_reward(r, p->field, score);
}

static const char *fit_ca(const struct pref_plan *p, const struct row *r)
{
    return !p->allow_control && pref_has_control(r)
               ? "the row spells a control token, and --allow-control was not given"
               : NULL;
}

static const char *fit_pairs(const struct pref_plan *p, const struct row *r)
{
    return r->response && r->has_prompt ? NULL : "no prompt and response to make a pair of";
}

/* The bytes of the line decide, not its place: the same rows are drawn from a shuffled file. */
static const char *score_random(const struct pref_plan *p, const struct row *r, uint64_t group,
                                double *score)
{
    *score = rng_uniform(rng_key((uint64_t)p->seed, "random"), group, hash_xxh3(r->line, r->len));
    return NULL;
}

static void judge_none(struct pref_plan *p, struct pref_set *s)
{
}

static void judge_top(struct pref_plan *p, struct pref_set *s)
{
    if (p->top_k)
        pref_select_top_k(s, p->top_k);
    if (p->top_frac < 1)
        pref_select_top_frac(s, p->top_frac);
    if (p->top_share < 1)
        pref_select_top_share(s, p->top_share);
}

static void judge_fa(struct pref_plan *p, struct pref_set *s)
{
    pref_select_above(s, p->min_reward, p->inclusive);
    if (!isnan(p->quantile))
        p->threshold = pref_select_quantile(s, p->quantile, p->inclusive);
    judge_top(p, s);
}

static void judge_rwr(struct pref_plan *p, struct pref_set *s)
{
    pref_weigh(&p->rwr, s);
    if (!isfinite(p->rwr.largest))
        die_with(EXIT_BAD_DATA, "a weight overflows: see --beta, --max-weight and --weight-norm");
}

static void judge_ca(struct pref_plan *p, struct pref_set *s)
{
    for (int64_t i = 0; i < s->n; i++)
        s->item[i].score = fmax(-p->clip, fmin(s->item[i].score, p->clip));
    if (!p->tags.digits && !p->tags.bins)
        pref_tags_fit(&p->tags, s, p->bins);
}

static int value_weight(const struct pref_plan *p, const struct pref_item *it, uint64_t line_hash,
                        struct buf *out)
{
    json_number(out, it->score);
    return 1;
}

static int value_tag(const struct pref_plan *p, const struct pref_item *it, uint64_t line_hash,
                     struct buf *out)
{
    struct buf text = {0};
    uint64_t key = rng_key((uint64_t)p->seed, "ca-drop");
    if (rng_uniform(key, it->group, line_hash) < p->tag_drop)
        return 0;
    pref_tag_text(&p->tags, pref_tag_level(&p->tags, it->score), &text);
    json_quote(out, text.data, text.len);
    buf_release(&text);
    return 1;
}

#define TOP   " top-k top-frac top-frac-per-prompt "
#define SCALE " norm norm-from require-spread bad-reward "
const struct pref_method pref_methods[] = {
    {"none", NULL, score_none, judge_none, .streams = 1, .uses = ""},
    {"fa", NULL, score_reward, judge_fa,
     .uses = " min-reward quantile-threshold inclusive" TOP SCALE},
    {"rwr", NULL, score_reward, judge_rwr, "weight", value_weight,
     .uses = " beta max-weight baseline weight-norm" SCALE},
    {"ca", fit_ca, score_reward, judge_ca, "tag", value_tag,
     .uses = " ca-mode bins digits clip ca-drop allow-control" SCALE},
    {"pairs", fit_pairs, score_reward, judge_none, .pairs = 1,
     .uses = " pairs min-margin require-spread bad-reward "},
    {"random", NULL, score_random, judge_top, .uses = TOP},
};
const int64_t pref_methods_count = ARRAY_LEN(pref_methods);

const struct pref_method *pref_method_find(const char *name)
{
    for (int64_t i = 0; i < pref_methods_count; i++)
        if (!strcmp(pref_methods[i].name, name))
            return &pref_methods[i];
    return NULL;
}

int pref_method_uses(const struct pref_method *m, const char *option)
{
    char word[64];
    snprintf(word, sizeof(word), " %s ", option);
    return strstr(m->uses, word) != NULL;
}

int64_t pref_judge(struct pref_plan *p, const struct pref_method *m, struct pref_set *s)
{
    int64_t flat = 0;
    if (p->min_group) {
        pref_select_groups(s, p->min_group);
        pref_set_settle(s);
    }
    if (p->require_spread > 0) {
        pref_select_spread(s, p->require_spread);
        pref_set_settle(s);
    }
    if (p->norm.kind != PREF_NORM_NONE) {
        if (!p->norm_known)
            pref_norm_fit(&p->norm, s);
        flat = pref_norm_apply(&p->norm, s);
    }
    m->judge(p, s);
    pref_set_settle(s);
    pref_set_sort_place(s);
    return flat;
}
