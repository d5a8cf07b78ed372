/* pref-filter.c -- rows -> the rows an offline method trains on.
 *
 * The options make a plan.  Here each row is admitted by what it says itself; a method judges the
 * admitted ones together, and their lines are passed on in their order, byte for byte but for the
 * one member that the method writes.  So nothing is written when the input turns out to be bad. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct pref_plan plan = {
    .field = "reward",
    .min_reward = -INFINITY,
    .quantile = NAN,
    .top_frac = 1,
    .top_share = 1,
    .clip = INFINITY,
    .tag_drop = 0.05,
    .bins = 5,
    .rwr = {.beta = 1, .max_weight = 20},
};
static const char *method_name = "none", *baseline = "prompt", *weight_norm = "mean1",
                  *ca_mode = "bins", *norm_name = "none", *norm_from, *bad_reward = "error";
static const char *which_pairs = "best-worst", *dedup_name = "none";
static double near = 0.7;
static const char *output, *manifest_path, *part_text;
static int64_t digits = 1, min_chars, max_chars;

static const struct opt options[] = {
    OPT_CHOICE(0, "method", &method_name, "none|fa|rwr|ca|pairs|random", "how rows are chosen"),
    OPT_REAL(0, "min-reward", &plan.min_reward, "t", "fa: keep rewards above t"),
    OPT_REAL(0, "quantile-threshold", &plan.quantile, "q",
             "fa: keep rewards above this quantile of all"),
    OPT_FLAG(0, "inclusive", &plan.inclusive, "fa: keep rewards equal to t, too"),
    OPT_INT('k', "top-k", &plan.top_k, "k", "fa, random: keep the k best of each prompt (0: all)"),
    OPT_REAL(0, "top-frac", &plan.top_frac, "f", "fa, random: keep the best ceil(f * rows) of all"),
    OPT_REAL(0, "top-frac-per-prompt", &plan.top_share, "f",
             "fa, random: keep the best ceil(f * rows) of each prompt"),
    OPT_REAL(0, "beta", &plan.rwr.beta, "b",
             "rwr: temperature; weights are exp((r - baseline) / b)"),
    OPT_REAL(0, "max-weight", &plan.rwr.max_weight, "w", "rwr: cap before normalising (inf: none)"),
    OPT_STR(0, "baseline", &baseline, "prompt|global|none|b",
            "rwr: the mean, or the number, that is taken off"),
    OPT_CHOICE(0, "weight-norm", &weight_norm, "mean1|softmax-prompt|none",
               "rwr: weights have mean 1; each prompt's add up to 1"),
    OPT_CHOICE(0, "ca-mode", &ca_mode, "bins|text",
               "ca: the tag is a token by quantile, or a number"),
    OPT_INT(0, "bins", &plan.bins, "k", "ca: how many quantiles"),
    OPT_INT(0, "digits", &digits, "1|2", "ca: decimals of the number"),
    OPT_REAL(0, "clip", &plan.clip, "c", "ca: rewards beyond c or -c count as these"),
    OPT_REAL(0, "ca-drop", &plan.tag_drop, "p", "ca: share of rows left without a tag"),
    OPT_FLAG(0, "allow-control", &plan.allow_control, "ca: accept rows that spell a control token"),
    OPT_CHOICE(0, "pairs", &which_pairs, "best-worst|all", "pairs: which of a prompt's answers"),
    OPT_REAL(0, "min-margin", &plan.pairs.min_margin, "d",
             "pairs: skip those with rewards nearer than d"),
    OPT_CHOICE(0, "norm", &norm_name, "none|global|prompt", "z-scores instead of rewards"),
    OPT_STR(0, "norm-from", &norm_from, "file", "take constants and bins from this manifest"),
    OPT_STR(0, "manifest", &manifest_path, "file", "write constants and figures here, as JSON"),
    OPT_STR(0, "part", &part_text, "a-b/n", "only prompts in parts a to b of n, split by hash"),
    OPT_CHOICE(0, "dedup", &dedup_name, "none|exact|near",
               "drop answers to a prompt that repeat one"),
    OPT_REAL(0, "near", &near, "t", "dedup near: least share of common word 5-grams"),
    OPT_INT(0, "min-chars", &min_chars, "n", "drop rows with a shorter answer"),
    OPT_INT(0, "max-chars", &max_chars, "n", "drop rows with a longer answer (0: none)"),
    OPT_INT(0, "min-group", &plan.min_group, "n", "drop prompts with fewer rows"),
    OPT_REAL(0, "require-spread", &plan.require_spread, "d",
             "drop prompts whose rewards differ by less"),
    OPT_STR(0, "field", &plan.field, "name", "the field that holds the reward"),
    OPT_CHOICE(0, "bad-reward", &bad_reward, "error|drop", "rows without a usable reward"),
    OPT_SEED(&plan.seed, "of --part, --ca-drop and --method random"),
    OPT_STR('o', "output", &output, "file", "write here instead of stdout"),
    ROW_OPTIONS,
    OPT_END,
};

/* An option another method knows and this one does not would be silently without effect. */
static const struct pref_method *method_find(void)
{
    const struct pref_method *m = pref_method_find(method_name);
    for (const struct opt *o = options; o->name; o++)
        for (int64_t i = 0; i < pref_methods_count && opt_given(o->name); i++)
            if (pref_method_uses(&pref_methods[i], o->name) && !pref_method_uses(m, o->name))
                die_misused("--%s has no meaning for --method %s", o->name, m->name);
    return m;
}

static int choice(const char *const *names, const char *name)
{
    int i = 0;
    while (strcmp(names[i], name))
        i++;
    return i;
}

static enum pref_baseline baseline_find(const char *name)
{
    char *end;
    for (int i = 0; i < PREF_BASES; i++)
        if (!strcmp(pref_baseline_name[i], name))
            return (enum pref_baseline)i;
    plan.rwr.base = strtod(name, &end);
    if (end == name || *end || !isfinite(plan.rwr.base))
        die_misused("--baseline: \"%s\" is none of prompt, global, none, and no number", name);
    return PREF_BASE_VALUE;
}

/* Strings become what the plan says in its own terms. */
static void plan_finish(struct pref_part *part)
{
    int text = !strcmp(ca_mode, "text");
    if (opt_given("near") && strcmp(dedup_name, "near"))
        die_misused("--near has no meaning for --dedup %s", dedup_name);
    if (part_text && pref_part_parse(part, part_text))
        die_misused("--part %s: wanted a/n or a-b/n with 1 <= a <= b <= n", part_text);
    if (norm_from && opt_given("norm"))
        die_misused("--norm and --norm-from: only one of them");
    if (opt_given(text ? "bins" : "digits"))
        die_misused("--%s has no meaning for --ca-mode %s", text ? "bins" : "digits", ca_mode);
    plan.rwr.baseline = baseline_find(baseline);
    plan.rwr.norm = (enum pref_weight_norm)choice(pref_weight_norm_name, weight_norm);
    plan.norm.kind = (enum pref_norm_kind)choice(pref_norm_name, norm_name);
    plan.pairs.all = !strcmp(which_pairs, "all");
    if (norm_from)
        pref_manifest_read(norm_from, &plan.norm, &plan.tags);
    plan.norm_known = norm_from != NULL;
    if (plan.tags.bins && opt_given("bins") && plan.tags.bins != plan.bins)
        die_misused("--bins %lld: %s has %lld", (long long)plan.bins, norm_from,
                    (long long)plan.tags.bins);
    if (text)
        plan.tags = (struct pref_tags){.digits = digits};
}

static void check_numbers(void)
{
    const struct {
        const char *option, *what;
        double value;
        int good;
    } numbers[] = {
        {"top-frac", "in (0, 1]", plan.top_frac, plan.top_frac > 0 && plan.top_frac <= 1},
        {"top-frac-per-prompt", "in (0, 1]", plan.top_share,
         plan.top_share > 0 && plan.top_share <= 1},
        {"quantile-threshold", "in [0, 1]", plan.quantile,
         isnan(plan.quantile) || (plan.quantile >= 0 && plan.quantile <= 1)},
        {"clip", "above 0", plan.clip, plan.clip > 0},
        {"beta", "above 0", plan.rwr.beta, plan.rwr.beta > 0},
        {"max-weight", "above 0", plan.rwr.max_weight, plan.rwr.max_weight > 0},
        {"bins", "from 2 to 10", (double)plan.bins, plan.bins >= 2 && plan.bins <= PREF_BINS_MAX},
        {"digits", "1 or 2", (double)digits, digits == 1 || digits == 2},
        {"ca-drop", "in [0, 1]", plan.tag_drop, plan.tag_drop >= 0 && plan.tag_drop <= 1},
        {"min-margin", "0 or more", plan.pairs.min_margin, plan.pairs.min_margin >= 0},
        {"near", "in (0, 1]", near, near > 0 && near <= 1},
        {"require-spread", "0 or more", plan.require_spread, plan.require_spread >= 0},
    };
    for (int64_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (!numbers[i].good)
            die_misused("--%s %g: must be %s", numbers[i].option, numbers[i].value,
                        numbers[i].what);
}

/* Why a row is not wanted whatever the others are, or NULL. */
static const char *unwanted(const struct row *r, const struct pref_part *part, uint64_t group)
{
    int64_t least, most;
    if (part->of && !pref_part_has(part, rng_key((uint64_t)plan.seed, "part"), group))
        return "outside --part";
    if (!min_chars && !max_chars)
        return NULL;
    pref_lengths(r, &least, &most);
    if (least < min_chars)
        return "shorter than --min-chars";
    return max_chars && most > max_chars ? "longer than --max-chars" : NULL;
}

/* Takes the reader's row, or accounts for it. */
static void admit(struct pref_run *run, const struct pref_part *part)
{
    static struct buf scratch;
    const struct row *row = &run->reader->row;
    uint64_t group;
    double score;
    const char *bad = pref_group(row, &scratch, &group), *drop = NULL, *unscored = NULL;
    if (!bad)
        drop = unwanted(row, part, group);
    if (!bad && !drop && run->method->fit)
        bad = run->method->fit(&plan, row);
    if (!bad && !drop)
        unscored = run->method->score(&plan, row, group, &score);
    if (unscored && !strcmp(bad_reward, "drop"))
        drop = unscored;
    else if (unscored)
        bad = unscored;
    if (bad)
        row_bad(run->reader, bad);
    else if (drop)
        row_drop(run->reader, drop);
    else
        pref_run_take(run, row, group, score);
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options, "pref-filter [options] [rows ...]",
                          "Keeps the rows an offline alignment method trains on.");
    struct row_reader r;
    struct pref_run run = {
        .plan = &plan, .method = method_find(), .reader = &r, .full = manifest_path != NULL};
    struct pref_part part = {0};
    struct progress p;
    check_numbers();
    plan_finish(&part);
    if (strcmp(dedup_name, "none"))
        run.dedup = dedup_new(strcmp(dedup_name, "near") ? 2 : near);

    row_reader_init(&r, argv + first, argc - first);
    pref_run_start(&run, output);
    progress_start(&p, "reading", "rows", 0);
    while (row_next(&r)) {
        admit(&run, &part);
        progress_add(&p, 1);
    }
    progress_end(&p);
    pref_run_judge(&run);
    int64_t in = r.in;
    row_reader_close(&r, run.kept); /* exits 3 when nothing is left */
    if (manifest_path)
        pref_manifest_write(manifest_path, &plan, run.method, &run.tally, in, run.kept);
    out_close(run.out);
    pref_run_release(&run);
    return EXIT_DONE;
}
