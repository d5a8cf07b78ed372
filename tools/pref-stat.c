/* pref-stat.c -- rows -> a table: how many, how long, how well rewarded.
 *
 * Several files are arms of an experiment and stand side by side, each held against the first one:
 * the mean reward of every prompt both have, subtracted, and a bootstrap over the prompts. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *field = "reward", *json_path, *output;
static int64_t seed, resamples = 10000, show_rows;
static int distinct, tsv;

static const struct opt options[] = {
    OPT_STR(0, "field", &field, "name", "the field that holds the reward"),
    OPT_INT('s', "seed", &seed, "n", "of the bootstrap"),
    OPT_INT(0, "resamples", &resamples, "n", "of the bootstrap"),
    OPT_FLAG(0, "distinct", &distinct, "count distinct words and pairs of words, too"),
    OPT_INT(0, "show", &show_rows, "n", "print the first n rows of each file instead, for the eye"),
    OPT_FLAG(0, "tsv", &tsv, "print tab-separated values, a line for each file"),
    OPT_STR(0, "json", &json_path, "file", "write the same figures here as JSON"),
    OPT_STR('o', "output", &output, "file", "write the table here instead of stdout"),
    OPT_INT(0, "max-bad", &row_max_bad, "n", "bad rows to tolerate before exit 3"),
    OPT_FLAG(0, "allow-empty", &row_allow_empty, "a file without rows is not an error"),
    OPT_END,
};

enum metric { ROWS, PROMPTS, SCORED, MEAN, SD, LEAST, Q05, Q25, Q50, Q75, Q95, GREATEST, LENGTH,
              LENGTH_Q50, LENGTH_Q95, CORRELATION, WORDS, WORD_PAIRS, PAIRED, DIFFERENCE, LOW, HIGH, PAIRS,
              LONGER, AGREE, AGREE_LOW, AGREE_HIGH, METRICS };
static const struct {
    const char *label, *key;
    int decimals, sign;
    enum { NONE, REWARDS, LENGTHS } of; /* it is the quantile q of these */
    double q;
} metrics[METRICS] = {
    [ROWS] = {"rows", "rows"},
    [PROMPTS] = {"prompts", "prompts"},
    [SCORED] = {"rows with a reward", "scored"},
    [MEAN] = {"mean reward", "reward_mean", 4},
    [SD] = {"  standard deviation", "reward_sd", 4},
    [LEAST] = {"  least", "reward_min", 4, 0, REWARDS, 0},
    [Q05] = {"  5 %", "reward_q05", 4, 0, REWARDS, 0.05},
    [Q25] = {"  25 %", "reward_q25", 4, 0, REWARDS, 0.25},
    [Q50] = {"  median", "reward_q50", 4, 0, REWARDS, 0.5},
    [Q75] = {"  75 %", "reward_q75", 4, 0, REWARDS, 0.75},
    [Q95] = {"  95 %", "reward_q95", 4, 0, REWARDS, 0.95},
    [GREATEST] = {"  greatest", "reward_max", 4, 0, REWARDS, 1},
    [LENGTH] = {"mean length (characters)", "length_mean", 1},
    [LENGTH_Q50] = {"  median", "length_q50", 1, 0, LENGTHS, 0.5},
    [LENGTH_Q95] = {"  95 %", "length_q95", 1, 0, LENGTHS, 0.95},
    [CORRELATION] = {"length-reward correlation", "length_reward_correlation", 3},
    [WORDS] = {"distinct words in 100", "distinct_words", 2},
    [WORD_PAIRS] = {"  pairs of words", "distinct_word_pairs", 2},
    [PAIRED] = {"prompts shared with the first", "paired"},
    [DIFFERENCE] = {"mean difference by prompt", "difference", 4, 1},
    [LOW] = {"  95 % interval from", "difference_low", 4, 1},
    [HIGH] = {"  to", "difference_high", 4, 1},
    [PAIRS] = {"pairs", "pairs"},
    [LONGER] = {"  chosen is longer (%)", "longer", 2},
    [AGREE] = {"  chosen scores higher (%)", "agree", 2},
    [AGREE_LOW] = {"    95 % interval from", "agree_low", 2},
    [AGREE_HIGH] = {"    to", "agree_high", 2},
};

struct arm {
    char *name;
    const char *path;
    double value[METRICS]; /* NaN: does not apply */
    uint64_t *group;       /* (groups) ascending, of the scored rows */
    double *mean;          /* (groups) */
    int64_t groups;
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
    a->value[PAIRS] = t->pairs ? (double)t->pairs : NAN;
    a->value[LONGER] = 100 * t->longer / (double)t->pairs;
    a->value[AGREE] = 100 * i.mean;
    a->value[AGREE_LOW] = 100 * i.low;
    a->value[AGREE_HIGH] = 100 * i.high;
}

/* One set of 25 bytes a row serves the groups, the means and the quantiles. */
static void arm_read(struct arm *a, char *path)
{
    struct row_reader r;
    struct pref_set set = {0};
    struct numbers lengths = {0};
    struct moments reward = {0}, length = {0}, both = {0};
    struct pref_agree agree = {0};
    struct distinct words = {.total = 0}, pairs = {.total = 0};
    struct buf scratch = {0};
    char *chosen = xasprintf("%s_chosen", field), *rejected = xasprintf("%s_rejected", field);
    row_reader_init(&r, &path, path ? 1 : 0);
    while (row_next(&r)) {
        uint64_t group;
        size_t len;
        double x;
        int64_t n = pref_length(&r.row);
        const char *why = pref_group(&r.row, &scratch, &group);
        if (why) {
            row_bad(&r, why);
            continue;
        }
        if (r.row.chosen && r.row.rejected)
            pref_agree_add(&agree, &r.row, chosen, rejected);
        if (n >= 0) {
            numbers_add(&lengths, (double)n);
            moments_add(&length, (double)n, 0);
        }
        const char *answer = pref_answer(&r.row, &len);
        if (answer && distinct)
            distinct_words(answer, len, &words, &pairs);
        if (pref_reward(&r.row, field, &x))
            x = NAN;
        pref_set_add(&set, group, x);
        if (isnan(x))
            continue;
        moments_add(&reward, x, 0);
        if (n >= 0)
            moments_add(&both, x, (double)n);
    }
    int64_t kept;
    a->value[PROMPTS] = (double)pref_set_groups(&set, &kept);
    a->groups = pref_set_means(&set, &a->group, &a->mean);
    sort_doubles(lengths.v, lengths.n);
    pref_set_sort_score(&set);
    for (int64_t k = 0; k < METRICS; k++)
        if (metrics[k].of != NONE)
            a->value[k] = metrics[k].of == LENGTHS
                              ? sorted_quantile(lengths.v, lengths.n, metrics[k].q)
                              : pref_set_quantile(&set, reward.n, metrics[k].q);
    a->value[ROWS] = (double)set.n;
    a->value[SCORED] = (double)reward.n;
    a->value[MEAN] = reward.n ? reward.mean_x : NAN;
    a->value[SD] = moments_sd(&reward);
    a->value[LENGTH] = length.n ? length.mean_x : NAN;
    a->value[WORDS] = distinct_percent(&words);
    a->value[WORD_PAIRS] = distinct_percent(&pairs);
    a->value[CORRELATION] = moments_correlation(&both);
    arm_agree(a, &agree);
    row_reader_close(&r, set.n);
    pref_set_release(&set);
    free(lengths.v);
    free(chosen);
    free(rejected);
    buf_release(&scratch);
}

static void arm_compare(struct arm *a, const struct arm *first)
{
    double *d = xcalloc((size_t)MIN(a->groups, first->groups), sizeof(*d));
    int64_t n = paired_differences(first->group, first->mean, first->groups, a->group, a->mean,
                                   a->groups, d);
    uint64_t key = rng_key((uint64_t)seed, "bootstrap");
    struct interval i = bootstrap_mean(d, n, resamples, key, opt_threads());
    a->value[PAIRED] = (double)n;
    a->value[DIFFERENCE] = i.mean;
    a->value[LOW] = i.low;
    a->value[HIGH] = i.high;
    if (!n && a->groups && first->groups)
        warn("%s and %s have no prompt with rewards in common", a->path, first->path);
    free(d);
}

static char *cell(const struct arm *a, int64_t k)
{
    double x = a->value[k];
    if (isnan(x))
        return xstrdup("-");
    char *s = xasprintf(metrics[k].sign ? "%+.*f" : "%.*f", metrics[k].decimals, x);
    if (!s[strcspn(s, "123456789")] && (*s == '-' || *s == '+')) /* no -0.0000 */
        memmove(s, s + 1, strlen(s));
    return s;
}

static void table_write(struct out *o, const struct arm *a, int64_t n)
{
    int label = 0, width[n];
    for (int64_t j = 0; j < n; j++)
        width[j] = (int)strlen(a[j].name);
    int shown[METRICS] = {0};
    for (int64_t k = 0; k < METRICS; k++)
        for (int64_t j = 0; j < n; j++) {
            char *s = cell(&a[j], k);
            shown[k] |= strcmp(s, "-") != 0; /* a line that applies to no arm is left out */
            width[j] = MAX(width[j], (int)strlen(s));
            if (shown[k])
                label = MAX(label, (int)strlen(metrics[k].label));
            free(s);
        }
    out_printf(o, "%-*s", label, "");
    for (int64_t j = 0; j < n; j++)
        out_printf(o, "  %*s", width[j], a[j].name);
    for (int64_t k = 0; k < METRICS; k++) {
        if (!shown[k])
            continue;
        out_printf(o, "\n%-*s", label, metrics[k].label);
        for (int64_t j = 0; j < n; j++) {
            char *s = cell(&a[j], k);
            out_printf(o, "  %*s", width[j], s);
            free(s);
        }
    }
    out_printf(o, "\n");
}

static void lines_write(struct out *o, const struct arm *a, int64_t n)
{
    struct buf b = {0};
    buf_str(&b, "arm");
    for (int64_t k = 0; k < METRICS; k++)
        buf_printf(&b, "\t%s", metrics[k].key);
    for (int64_t j = 0; j < n; j++) {
        buf_printf(&b, "\n%s", a[j].name);
        for (int64_t k = 0; k < METRICS; k++) {
            buf_char(&b, '\t');
            if (!isnan(a[j].value[k]))
                json_number(&b, a[j].value[k]);
        }
    }
    buf_char(&b, '\n');
    out_write(o, b.data, b.len);
    buf_release(&b);
}

static void report_write(const char *path, const struct arm *a, int64_t n)
{
    struct buf b = {0};
    buf_str(&b, "{\"field\":");
    json_quote(&b, field, strlen(field));
    buf_printf(&b, ",\"seed\":%lld,\"resamples\":%lld,\"arms\":[", (long long)seed,
               (long long)resamples);
    for (int64_t j = 0; j < n; j++) {
        buf_str(&b, j ? ",\n{\"file\":" : "\n{\"file\":");
        json_quote(&b, a[j].path, strlen(a[j].path));
        for (int64_t k = 0; k < METRICS; k++) {
            buf_printf(&b, ",\"%s\":", metrics[k].key);
            if (isnan(a[j].value[k]))
                buf_str(&b, "null");
            else
                json_number(&b, a[j].value[k]);
        }
        buf_char(&b, '}');
    }
    buf_str(&b, "]}\n");
    write_file(path, b.data, b.len);
    buf_release(&b);
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options, "pref-stat [options] [rows ...]",
                          "Tabulates counts, lengths and rewards; compares files by prompt.");
    if (resamples < 1)
        die_misused("--resamples %lld is not positive", (long long)resamples);
    int64_t n = MAX(argc - first, 1);
    if (show_rows < 0 || (show_rows && json_path))
        die_misused(json_path ? "--json has no meaning for --show" : "--show is negative");
    if (show_rows) {
        struct out *o = out_open(output);
        for (int64_t j = 0; j < n; j++)
            rows_show(argc > first ? argv[first + j] : NULL, show_rows, o);
        out_close(o);
        return EXIT_DONE;
    }
    struct arm *arms = xcalloc((size_t)n, sizeof(*arms));
    for (int64_t k = 0; k < METRICS * n; k++) /* what is not set below does not apply */
        arms[k / METRICS].value[k % METRICS] = NAN;
    for (int64_t j = 0; j < n; j++) {
        char *path = argc > first ? argv[first + j] : NULL;
        arms[j].path = path ? path : "-";
        arms[j].name = arm_name(path && strcmp(path, "-") ? path : "stdin");
        arm_read(&arms[j], path);
        if (j)
            arm_compare(&arms[j], &arms[0]);
    }
    struct out *o = out_open(output);
    (tsv ? lines_write : table_write)(o, arms, n);
    out_close(o);
    if (json_path)
        report_write(json_path, arms, n);
    for (int64_t j = 0; j < n; j++) {
        free(arms[j].name);
        free(arms[j].group);
        free(arms[j].mean);
    }
    free(arms);
    return EXIT_DONE;
}
