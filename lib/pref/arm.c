/* arm.c -- what a file of rows amounts to: an arm of an experiment, and how it differs from
 * another.
 *
 * All figures come of one pass.  One set of 25 bytes a row serves the groups, the means and the
 * quantiles. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct arm_metric arm_metrics[ARM_METRICS] = {
    [ARM_ROWS] = {"rows", "rows"},
    [ARM_PROMPTS] = {"prompts", "prompts"},
    [ARM_SCORED] = {"rows with a reward", "scored"},
    [ARM_MEAN] = {"mean reward", "reward_mean", 4},
    [ARM_SD] = {"  standard deviation", "reward_sd", 4},
    [ARM_LEAST] = {"  least", "reward_min", 4, 0, ARM_OF_REWARDS, 0},
    [ARM_Q05] = {"  5 %", "reward_q05", 4, 0, ARM_OF_REWARDS, 0.05},
    [ARM_Q25] = {"  25 %", "reward_q25", 4, 0, ARM_OF_REWARDS, 0.25},
    [ARM_Q50] = {"  median", "reward_q50", 4, 0, ARM_OF_REWARDS, 0.5},
    [ARM_Q75] = {"  75 %", "reward_q75", 4, 0, ARM_OF_REWARDS, 0.75},
    [ARM_Q95] = {"  95 %", "reward_q95", 4, 0, ARM_OF_REWARDS, 0.95},
    [ARM_GREATEST] = {"  greatest", "reward_max", 4, 0, ARM_OF_REWARDS, 1},
    [ARM_LENGTH] = {"mean length (characters)", "length_mean", 1},
    [ARM_LENGTH_Q50] = {"  median", "length_q50", 1, 0, ARM_OF_LENGTHS, 0.5},
    [ARM_LENGTH_Q95] = {"  95 %", "length_q95", 1, 0, ARM_OF_LENGTHS, 0.95},
    [ARM_CORRELATION] = {"length-reward correlation", "length_reward_correlation", 3},
    [ARM_WORDS] = {"distinct words in 100", "distinct_words", 2},
    [ARM_WORD_PAIRS] = {"  pairs of words", "distinct_word_pairs", 2},
    [ARM_PAIRED] = {"prompts shared with the first", "paired"},
    [ARM_DIFFERENCE] = {"mean difference by prompt", "difference", 4, 1},
    [ARM_LOW] = {"  95 % interval from", "difference_low", 4, 1},
    [ARM_HIGH] = {"  to", "difference_high", 4, 1},
    [ARM_PAIRS] = {"pairs", "pairs"},
    [ARM_LONGER] = {"  chosen is longer (%)", "longer", 2},
    [ARM_AGREE] = {"  chosen scores higher (%)", "agree", 2},
    [ARM_AGREE_LOW] = {"    95 % interval from", "agree_low", 2},
    [ARM_AGREE_HIGH] = {"    to", "agree_high", 2},
};

/* "runs/fa.jsonl.gz" is the arm "fa". */
static char *arm_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash && slash[1] ? slash + 1 : path;
    const char *dot = strstr(base, ".jsonl");
    return dot && dot > base ? xstrndup(base, (size_t)(dot - base)) : xstrdup(base);
}

/* In per cent. */
static void arm_agree(struct arm *a, const struct pref_agree *t)
{
    struct interval i = share_interval(t->agree / (double)t->scored, t->scored);
    a->value[ARM_PAIRS] = t->pairs ? (double)t->pairs : NAN;
    a->value[ARM_LONGER] = 100 * t->longer / (double)t->pairs;
    a->value[ARM_AGREE] = 100 * i.mean;
    a->value[ARM_AGREE_LOW] = 100 * i.low;
    a->value[ARM_AGREE_HIGH] = 100 * i.high;
}

struct count { /* what one pass over the rows leaves */
    struct pref_set set;
    struct numbers lengths;
    struct moments reward, length, both;
    struct pref_agree agree;
    struct distinct words, pairs;
    struct buf group; /* scratch */
};

/* NULL, or why the row is bad. */
static const char *count_row(struct count *c, const struct row *r, const char *const field[3],
                             int distinct)
{
    uint64_t group;
    size_t len;
    double x;
    int64_t n = pref_length(r);
    const char *why = pref_group(r, &c->group, &group), *answer = pref_answer(r, &len);
    if (why)
        return why;
    if (r->chosen && r->rejected)
        pref_agree_add(&c->agree, r, field[1], field[2]);
    if (n >= 0) {
        numbers_add(&c->lengths, (double)n);
        moments_add(&c->length, (double)n, 0);
    }
    if (answer && distinct)
        distinct_words(answer, len, &c->words, &c->pairs);
    if (pref_reward(r, field[0], &x))
        x = NAN;
    pref_set_add(&c->set, group, x);
    if (isnan(x))
        return NULL;
    moments_add(&c->reward, x, 0);
    if (n >= 0)
        moments_add(&c->both, x, (double)n);
    return NULL;
}

static void arm_fill(struct arm *a, struct count *c)
{
    int64_t kept;
    for (int64_t k = 0; k < ARM_METRICS; k++)
        a->value[k] = NAN; /* what is not set below does not apply */
    a->value[ARM_PROMPTS] = (double)pref_set_groups(&c->set, &kept);
    a->groups = pref_set_means(&c->set, &a->group, &a->mean);
    sort_doubles(c->lengths.v, c->lengths.n);
    pref_set_sort_score(&c->set);
    for (int64_t k = 0; k < ARM_METRICS; k++)
        if (arm_metrics[k].of != ARM_OF_NONE)
            a->value[k] = arm_metrics[k].of == ARM_OF_LENGTHS
                              ? sorted_quantile(c->lengths.v, c->lengths.n, arm_metrics[k].q)
                              : pref_set_quantile(&c->set, c->reward.n, arm_metrics[k].q);
    a->value[ARM_ROWS] = (double)c->set.n;
    a->value[ARM_SCORED] = (double)c->reward.n;
    a->value[ARM_MEAN] = c->reward.n ? c->reward.mean_x : NAN;
    a->value[ARM_SD] = moments_sd(&c->reward);
    a->value[ARM_LENGTH] = c->length.n ? c->length.mean_x : NAN;
    a->value[ARM_WORDS] = distinct_percent(&c->words);
    a->value[ARM_WORD_PAIRS] = distinct_percent(&c->pairs);
    a->value[ARM_CORRELATION] = moments_correlation(&c->both);
    arm_agree(a, &c->agree);
}

void arm_read(struct arm *a, char *path, const char *field, int distinct)
{
    char *chosen = xasprintf("%s_chosen", field), *rejected = xasprintf("%s_rejected", field);
    const char *const fields[] = {field, chosen, rejected};
    struct count *c = xcalloc(1, sizeof(*c));
    struct row_reader r;
    a->path = path ? path : "-";
    a->name = arm_name(path && strcmp(path, "-") ? path : "stdin");
    row_reader_init(&r, &path, path ? 1 : 0);
    while (row_next(&r)) {
        const char *why = count_row(c, &r.row, fields, distinct);
        if (why)
            row_bad(&r, why);
    }
    arm_fill(a, c);
    row_reader_close(&r, c->set.n);
    pref_set_release(&c->set);
    buf_release(&c->group);
    free(c->lengths.v);
    free(c);
    free(chosen);
    free(rejected);
}

void arm_compare(struct arm *a, const struct arm *first, int64_t resamples, int64_t seed)
{
    double *d = xcalloc((size_t)MIN(a->groups, first->groups), sizeof(*d));
    int64_t n = paired_differences(first->group, first->mean, first->groups, a->group, a->mean,
                                   a->groups, d);
    uint64_t key = rng_key((uint64_t)seed, "bootstrap");
    struct interval i = bootstrap_mean(d, n, resamples, key, opt_threads());
    a->value[ARM_PAIRED] = (double)n;
    a->value[ARM_DIFFERENCE] = i.mean;
    a->value[ARM_LOW] = i.low;
    a->value[ARM_HIGH] = i.high;
    if (!n && a->groups && first->groups)
        warn("%s and %s have no prompt with rewards in common", a->path, first->path);
    free(d);
}

void arm_release(struct arm *a)
{
    free(a->name);
    free(a->group);
    free(a->mean);
}
