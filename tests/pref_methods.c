/* pref_methods.c -- normalisation, weights and tags by hand: each figure can be checked on paper.
 */
#include "pref/pref.h"
#include "tap.h"

#include <math.h>
#include <string.h>

/* Groups are letters, interleaved as in "abaab". */
static struct pref_set set_of(const char *group, const double *score)
{
    struct pref_set s = {0};
    for (int64_t i = 0; group[i]; i++)
        pref_set_add(&s, (uint64_t)group[i], score[i]);
    return s;
}

/* The scores in input order are these, to `within`; the set is gone then. */
static void is(struct pref_set *s, const double *want, double within, const char *what)
{
    struct buf got = {0};
    int same = 1;
    pref_set_sort_place(s);
    for (int64_t i = 0; i < s->n; i++) {
        same &= fabs(s->item[i].score - want[i]) <= within;
        buf_printf(&got, " %.17g", s->item[i].score);
    }
    ok(same, "%s:%s", what, got.data);
    buf_release(&got);
    pref_set_release(s);
}

static void test_norm(void)
{
    struct pref_norm n = {.kind = PREF_NORM_GLOBAL};
    struct pref_set s = set_of("abab", (double[]){1, 2, 3, 6});
    pref_norm_fit(&n, &s);
    /* mean 3; squares 4 + 1 + 0 + 9 = 14, over 3 */
    ok(n.mean == 3 && n.n == 4 && fabs(n.sd - sqrt(14.0 / 3)) < 1e-15,
       "mean, deviation with ddof 1, n: %g %g", n.mean, n.sd);
    pref_norm_apply(&n, &s);
    is(&s, (double[]){-2 / n.sd, -1 / n.sd, 0, 3 / n.sd}, 1e-15, "z-scores over all rows");

    s = set_of("a", (double[]){5});
    ok(pref_norm_apply(&n, &s) == 0, "constants that are given need no spread here");
    is(&s, (double[]){2 / n.sd}, 1e-15, "other rows on a known scale");

    n = (struct pref_norm){.kind = PREF_NORM_PROMPT};
    s = set_of("abaabc", (double[]){1, 7, 2, 3, 7, 4});
    ok(pref_norm_apply(&n, &s) == 2, "a prompt of one row and one of equals have no spread");
    is(&s, (double[]){-1, 0, 0, 1, 0, 0}, 1e-15, "z-scores within prompts");

    n = (struct pref_norm){.kind = PREF_NORM_GLOBAL};
    s = set_of("ab", (double[]){0.1, 0.1 + 1e-9});
    pref_norm_fit(&n, &s);
    ok(pref_norm_apply(&n, &s) == 1, "rewards that differ by rounding are flat");
    is(&s, (double[]){0, 0}, 0, "and become 0, not NaN");
}

static struct pref_set weighed(struct pref_rwr p, const char *group, const double *score)
{
    struct pref_set s = set_of(group, score);
    pref_weigh(&p, &s);
    return s;
}

static void test_rwr(void)
{
    const double four[] = {log(2), log(8), 0, 5};
    struct pref_rwr p = {
        .beta = 1, .max_weight = INFINITY, .norm = PREF_RAW, .baseline = PREF_BASE_NONE};
    struct pref_set s = weighed(p, "abc", four);
    is(&s, (double[]){2, 8, 1}, 1e-14, "exp(r)");
    p.beta = 2;
    s = weighed(p, "abc", four);
    is(&s, (double[]){sqrt(2), sqrt(8), 1}, 1e-14, "exp(r / 2)");
    p.beta = 1, p.max_weight = 4;
    s = weighed(p, "abc", four);
    is(&s, (double[]){2, 4, 1}, 1e-14, "capped");
    p.norm = PREF_MEAN1;
    s = weighed(p, "abc", four);
    is(&s, (double[]){6.0 / 7, 12.0 / 7, 3.0 / 7}, 1e-14, "capped first, then divided by the mean");

    /* Prompt a: 1 and 3, mean 2; b alone: the mean of all, 3. */
    p = (struct pref_rwr){.beta = 1, .max_weight = INFINITY, .norm = PREF_RAW};
    s = weighed(p, "aba", (double[]){1, 5, 3});
    is(&s, (double[]){exp(-1), exp(2), exp(1)}, 1e-14,
       "the prompt's mean, and of one row the mean of all");
    p.baseline = PREF_BASE_GLOBAL;
    s = weighed(p, "aba", (double[]){1, 5, 3});
    is(&s, (double[]){exp(-2), exp(2), 1}, 1e-14, "the mean of all");

    p = (struct pref_rwr){
        .beta = 1, .max_weight = 4, .norm = PREF_MEAN1, .baseline = PREF_BASE_NONE};
    s = set_of("abc", four);
    pref_weigh(&p, &s); /* 2, 4, 1: 49 / 21 */
    ok(fabs(p.effective - 49.0 / 21) < 1e-14 && p.clipped == 1 &&
           fabs(p.largest - 12.0 / 7) < 1e-14,
       "effective sample size 49 / 21, one row capped: %g, %lld", p.effective,
       (long long)p.clipped);
    pref_set_release(&s);
}

static void test_limits(void)
{
    const double r[] = {1, -4, 2, 2, 0.5, 1e3, -7};
    const double ones[] = {1, 1, 1, 1, 1, 1, 1};
    struct pref_rwr p = {.beta = INFINITY, .max_weight = 20};
    for (int b = 0; b < PREF_BASES; b++) {
        p.baseline = (enum pref_baseline)b;
        p.norm = PREF_MEAN1;
        struct pref_set s = weighed(p, "abaabcb", r);
        is(&s, ones, 0, "beta -> infinity is plain fine-tuning: every weight is exactly 1");
    }
    p.norm = PREF_RAW;
    p.beta = 1e300;
    struct pref_set s = weighed(p, "abaabcb", r);
    is(&s, ones, 0, "so it is at a beta of 1e300, not normalised");

    /* Prompt a: 1 2 2; b: -4 0.5 -7; c: 1000. */
    p = (struct pref_rwr){.beta = 1e-3, .max_weight = INFINITY, .norm = PREF_SOFTMAX_PROMPT};
    s = weighed(p, "abaabcb", r);
    is(&s, (double[]){0, 0, 0.5, 0.5, 1, 1, 0}, 0,
       "beta -> 0, softmax over the prompt, no cap: best-of-n, equals share");
    p.beta = 1e-320;
    s = weighed(p, "abaabcb", (double[]){1e9, 1, 1e9, -1e9, 1, 0, 0});
    is(&s, (double[]){0.5, 0.5, 0.5, 0, 0.5, 1, 0}, 0, "no beta overflows");
    p.beta = INFINITY;
    s = weighed(p, "abaabcb", r);
    is(&s, (double[]){1.0 / 3, 1.0 / 3, 1.0 / 3, 1.0 / 3, 1.0 / 3, 1, 1.0 / 3}, 1e-16,
       "softmax at beta -> infinity: a prompt's rows share equally");
    p = (struct pref_rwr){.beta = 1, .max_weight = 20, .norm = PREF_MEAN1};
    s = weighed(p, "abaabcb", (double[]){3, 3, 3, 3, 3, 3, 3});
    is(&s, ones, 0, "a constant reward gives 1");
    p.beta = 1e-3;
    p.max_weight = INFINITY;
    s = weighed(p, "aa", (double[]){-1e3, 1e3});
    is(&s, (double[]){0, 2}, 0, "mean 1 does not overflow without a cap");
}

static const char *bins_of(const double *r, int64_t n, int64_t bins)
{
    static char got[64];
    struct pref_set s = {0};
    struct pref_tags t = {0};
    for (int64_t i = 0; i < n; i++)
        pref_set_add(&s, 0, r[i]);
    pref_tags_fit(&t, &s, bins);
    for (int64_t i = 0; i < n; i++)
        got[i] = (char)('0' + pref_tag_level(&t, r[i]));
    got[n] = 0;
    pref_set_release(&s);
    return got;
}

static void is_bins(const char *what, const double *r, int64_t n, int64_t bins, const char *want)
{
    const char *got = bins_of(r, n, bins);
    ok(!strcmp(got, want), "%s: %s", what, got);
}

static const char *tag_of(int64_t digits, double x)
{
    static struct buf b;
    struct pref_tags t = {.digits = digits};
    buf_reset(&b);
    pref_tag_text(&t, pref_tag_level(&t, x), &b);
    return b.data;
}

static void test_tags(void)
{
    is_bins("ten rows in five bins", (double[]){9, 0, 8, 1, 7, 2, 6, 3, 5, 4}, 10, 5, "4040313122");
    is_bins("ten rows in four bins", (double[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 10, 4, "0011122333");
    /* Middles of the zeros, ones, ...: 1.5, 5, 7.5, 8.5, 9.5 of 10. */
    is_bins("equals are in one bin", (double[]){0, 0, 0, 1, 1, 1, 1, 2, 3, 4}, 10, 5, "0002222344");
    is_bins("right and wrong, mostly wrong", (double[]){0, 1, 0, 0, 0, 0, 0, 0}, 8, 2, "01000000");
    is_bins("right and wrong, mostly right", (double[]){1, 1, 1, 1, 0, 1, 1, 1}, 8, 2, "11110111");
    is_bins("mostly neither", (double[]){0, 0, -1, 0, 0, 1, 0, 0}, 8, 3, "11011211");
    is_bins("all equal: the top bin", (double[]){2, 2, 2, 2, 2, 2}, 6, 3, "222222");
    is_bins("fewer rows than bins", (double[]){1, 2}, 2, 5, "14");

    struct {
        int64_t digits;
        double x;
        const char *want;
    } texts[] = {
        {1, 1.26, " <rm_score>: 1.3 "},   {2, 1.257, " <rm_score>: 1.26 "},
        {1, -0.04, " <rm_score>: 0.0 "},  {2, -0.004, " <rm_score>: 0.00 "},
        {1, -0.06, " <rm_score>: -0.1 "}, {2, -12.5, " <rm_score>: -12.50 "},
        {1, 0, " <rm_score>: 0.0 "},      {2, 5, " <rm_score>: 5.00 "},
        {2, 0.05, " <rm_score>: 0.05 "},  {1, 1234567.8, " <rm_score>: 1234567.8 "},
    };
    for (int64_t i = 0; i < ARRAY_LEN(texts); i++)
        ok(!strcmp(tag_of(texts[i].digits, texts[i].x), texts[i].want), "%g as text:%s", texts[i].x,
           tag_of(texts[i].digits, texts[i].x));
}

static void test_groups(void)
{
    struct pref_set s = set_of("abbaccb", (double[]){1, 0, 3, 1.5, 2, 2, 1});
    pref_select_groups(&s, 3);
    ok(pref_set_kept(&s) == 3 && s.verdict[1] == PREF_KEPT && s.verdict[0] == PREF_SMALL_GROUP,
       "--min-group 3 keeps b");
    pref_set_settle(&s);
    ok(s.n == 3 && s.rows == 7, "what was dropped is not judged again");
    pref_set_release(&s);
    s = set_of("abbaccb", (double[]){1, 0, 3, 1.5, 2, 2, 1});
    pref_select_spread(&s, 0.5);
    ok(s.verdict[0] == PREF_KEPT && s.verdict[1] == PREF_KEPT && s.verdict[4] == PREF_FLAT_GROUP,
       "--require-spread 0.5 keeps a, which has just that, and b");
    pref_set_release(&s);
}

int main(void)
{
    tool_name = "pref_methods";
    test_norm();
    test_rwr();
    test_limits();
    test_tags();
    test_groups();
    return finish();
}
