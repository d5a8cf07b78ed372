/* pref-filter.c -- rows -> the rows an offline method trains on.
 *
 * Two passes.  The first gives each row a group and a score and lets it wait in a spool; then a
 * method judges all of them at once; the second passes the chosen lines through, byte for byte and
 * in their order.  So nothing at all is written when the input turns out to be bad. */
#include "pref/pref.h"

#include <math.h>
#include <string.h>

static const char *output, *method_name = "none", *field = "reward", *bad_reward = "error",
                           *part_text;
static double min_reward = -INFINITY, top_frac = 1;
static int64_t top_k, seed;
static int inclusive;

static const struct opt options[] = {
    OPT_CHOICE(0, "method", &method_name, "none|fa|random", "how rows are chosen"),
    OPT_REAL(0, "min-reward", &min_reward, "t", "fa: keep rewards above t"),
    OPT_FLAG(0, "inclusive", &inclusive, "fa: keep rewards equal to t, too"),
    OPT_INT('k', "top-k", &top_k, "k", "fa, random: keep the k best of each prompt (0: all)"),
    OPT_REAL(0, "top-frac", &top_frac, "f", "fa, random: keep the best ceil(f * rows) of all"),
    OPT_STR(0, "part", &part_text, "a-b/n", "only prompts in parts a to b of n, split by hash"),
    OPT_STR(0, "field", &field, "name", "the field that holds the reward"),
    OPT_CHOICE(0, "bad-reward", &bad_reward, "error|drop", "rows without a usable reward"),
    OPT_INT('s', "seed", &seed, "n", "of --part and of --method random"),
    OPT_STR('o', "output", &output, "file", "write here instead of stdout"),
    ROW_OPTIONS,
    OPT_END,
};

/* ---- methods: what a row scores, and which scores stay ---- */

static const char *score_none(const struct row *r, uint64_t group, double *score)
{
    *score = NAN;
    return NULL;
}

static const char *score_reward(const struct row *r, uint64_t group, double *score)
{
    return pref_reward(r, field, score);
}

/* The bytes of the line decide, not its place: the same rows are drawn from a shuffled file. */
static const char *score_random(const struct row *r, uint64_t group, double *score)
{
    *score = rng_uniform(rng_key((uint64_t)seed, "random"), group, hash_xxh3(r->line, r->len));
    return NULL;
}

static void select_all(struct pref_set *s)
{
}

static void select_top(struct pref_set *s)
{
    if (top_k)
        pref_select_top_k(s, top_k);
    if (top_frac < 1)
        pref_select_top_frac(s, top_frac);
}

static void select_fa(struct pref_set *s)
{
    pref_select_above(s, min_reward, inclusive);
    select_top(s);
}

static const struct method {
    const char *name;
    const char *(*score)(const struct row *r, uint64_t group, double *score);
    void (*select)(struct pref_set *s);
    const char *uses[5]; /* the options that mean something to it */
} methods[] = {
    {"none", score_none, select_all, {0}},
    {"fa", score_reward, select_fa, {"min-reward", "inclusive", "top-k", "top-frac", "bad-reward"}},
    {"random", score_random, select_top, {"top-k", "top-frac"}},
};

static int method_uses(const struct method *m, const char *option)
{
    for (int64_t i = 0; i < ARRAY_LEN(m->uses) && m->uses[i]; i++)
        if (!strcmp(m->uses[i], option))
            return 1;
    return 0;
}

/* An option another method knows and this one does not would be silently without effect. */
static const struct method *method_find(const char *name)
{
    const struct method *m = methods;
    while (strcmp(m->name, name))
        m++;
    for (int64_t i = 0; i < ARRAY_LEN(methods); i++)
        for (int64_t j = 0; j < ARRAY_LEN(m->uses) && methods[i].uses[j]; j++)
            if (opt_given(methods[i].uses[j]) && !method_uses(m, methods[i].uses[j]))
                die_misused("--%s has no meaning for --method %s", methods[i].uses[j], m->name);
    return m;
}

/* ---- the two passes ---- */

/* Gives the row to set and spool; returns whether it was fit for that. */
static int admit(struct row_reader *r, const struct method *m, const struct pref_part *part,
                 struct pref_set *set, struct spool *spool)
{
    static struct buf scratch;
    uint64_t group;
    double score, reward;
    const char *why = pref_group(&r->row, &scratch, &group);
    if (why) {
        row_bad(r, why);
        return 0;
    }
    if (part->of && !pref_part_has(part, rng_key((uint64_t)seed, "part"), group)) {
        row_drop(r, "outside --part");
        return 0;
    }
    why = m->score(&r->row, group, &score);
    if (why && !strcmp(bad_reward, "drop")) {
        row_drop(r, why);
        return 0;
    }
    if (why) {
        row_bad(r, why);
        return 0;
    }
    if (pref_reward(&r->row, field, &reward))
        reward = NAN;
    pref_set_add(set, group, score);
    spool_add(spool, &r->row, reward, pref_length(&r->row));
    return 1;
}

/* Selection by reward favours easy prompts and long answers: say what it did to both. */
static void report(struct pref_set *set, const struct moments *in, const struct moments *kept)
{
    int64_t left, groups = pref_set_groups(set, &left);
    struct buf b = {0};
    buf_printf(&b, "prompts %lld -> %lld", (long long)groups, (long long)left);
    if (kept->n) {
        buf_printf(&b, ", mean reward %.4g -> %.4g", in->mean_x, kept->mean_x);
        buf_printf(&b, ", mean length %.4g -> %.4g", in->mean_y, kept->mean_y);
        if (isfinite(moments_correlation(in)))
            buf_printf(&b, ", length-reward correlation %.3f", moments_correlation(in));
    }
    say("%s", b.data);
    buf_release(&b);
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options, "pref-filter [options] [rows ...]",
                          "Keeps the rows an offline alignment method trains on.");
    const struct method *m = method_find(method_name);
    struct pref_part part = {0};
    if (part_text && pref_part_parse(&part, part_text))
        die_misused("--part %s: wanted a/n or a-b/n with 1 <= a <= b <= n", part_text);
    if (top_k < 0)
        die_misused("--top-k %lld is negative", (long long)top_k);
    if (!(top_frac > 0 && top_frac <= 1))
        die_misused("--top-frac %g is not in (0, 1]", top_frac);
    if (isnan(min_reward))
        die_misused("--min-reward is NaN");

    struct row_reader r;
    struct pref_set set = {0};
    struct spool *spool = spool_new();
    struct progress p;
    row_reader_init(&r, argv + first, argc - first);
    progress_start(&p, "reading", "rows", 0);
    while (row_next(&r)) {
        admit(&r, m, &part, &set, spool);
        progress_add(&p, 1);
    }
    progress_end(&p);
    m->select(&set);

    struct out *out = out_open(output);
    struct moments in = {0}, kept = {0};
    struct spool_row row;
    spool_rewind(spool);
    for (int64_t i = 0; spool_next(spool, &row); i++) {
        if (isfinite(row.reward) && row.length >= 0)
            moments_add(&in, row.reward, (double)row.length);
        if (set.verdict[i] != PREF_KEPT) {
            r.row = (struct row){
                .line = row.line, .len = row.len, .file = row.file, .number = row.number};
            row_drop(&r, pref_verdict_name[set.verdict[i]]);
            continue;
        }
        if (isfinite(row.reward) && row.length >= 0)
            moments_add(&kept, row.reward, (double)row.length);
        row.line[row.len] = '\n';
        out_write(out, row.line, row.len + 1);
    }
    report(&set, &in, &kept);
    row_reader_close(&r, pref_set_kept(&set)); /* exits 3 when nothing is left */
    out_close(out);
    spool_free(spool);
    pref_set_release(&set);
    return EXIT_DONE;
}
