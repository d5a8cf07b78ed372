/* pref.c -- the layer that judges rows, by hand-made sets and by figures known in closed form. */
#include "pref/pref.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The verdicts as a string of digits, in input order. */
static const char *verdicts(const struct pref_set *s)
{
    static char text[64];
    for (int64_t i = 0; i < s->n; i++)
        text[i] = (char)('0' + s->verdict[i]);
    text[s->n] = 0;
    return text;
}

/* Groups are letters; "a1 b2 a3" with groups interleaved. */
static struct pref_set set_of(const char *group, const double *score)
{
    struct pref_set s = {0};
    for (int64_t i = 0; group[i]; i++)
        pref_set_add(&s, (uint64_t)group[i], score[i]);
    return s;
}

static void is_verdict(struct pref_set *s, const char *want, const char *what)
{
    ok(!strcmp(verdicts(s), want), "%s: %s, wanted %s", what, verdicts(s), want);
    pref_set_release(s);
}

static void test_select(void)
{
    const double score[] = {1, 2, 3, 2, 3, 1};
    struct pref_set s = set_of("abaaab", score);
    pref_select_above(&s, 2, 0);
    is_verdict(&s, "110101", "above 2");
    s = set_of("abaaab", score);
    pref_select_above(&s, 2, 1);
    is_verdict(&s, "100001", "2 and above");
    s = set_of("abaaab", score);
    pref_select_top_k(&s, 1);
    is_verdict(&s, "200222", "the best of each group; of two equals the first");
    s = set_of("abaaab", score);
    pref_select_top_k(&s, 2);
    is_verdict(&s, "200200", "the two best, groups interleaved");
    s = set_of("abaaab", score);
    pref_select_top_frac(&s, 0.5);
    is_verdict(&s, "300303", "half of all; the tie of the twos goes to the first");
    s = set_of("abaaab", score);
    pref_select_top_frac(&s, 0.01);
    is_verdict(&s, "330333", "a fraction rounds up to one row");
    s = set_of("abaaab", score);
    pref_select_top_share(&s, 0.5);
    is_verdict(&s, "400404", "half of each group");
    s = set_of("abaaab", score);
    double median = pref_select_quantile(&s, 0.5, 0);
    is_verdict(&s, "550505", "above the median");
    ok(median == 2, "which is 2");
    s = set_of("abaaab", score);
    pref_select_above(&s, 1, 0);
    pref_select_top_k(&s, 2);
    pref_select_top_frac(&s, 1.0 / 3);
    is_verdict(&s, "130201", "criteria intersect, the first one gives the reason");

    int64_t wrong = 0; /* 0.07 * 100 is a little more than 7 in binary */
    for (int64_t percent = 1; percent <= 100; percent++) {
        s = (struct pref_set){0};
        for (int64_t i = 0; i < 200; i++)
            pref_set_add(&s, 0, (double)i);
        pref_select_top_frac(&s, (double)percent / 100);
        wrong += pref_set_kept(&s) != 2 * percent;
        pref_set_release(&s);
    }
    ok(!wrong, "1 to 100 per cent of 200 rows are 2 to 200 rows");
}

static void test_groups(void)
{
    struct pref_set s = set_of("cabac", (double[]){5, 1, 7, 2, 6});
    uint64_t *group;
    double *mean;
    int64_t kept;
    pref_select_above(&s, 2, 0);
    ok(pref_set_groups(&s, &kept) == 3 && kept == 2, "three groups, two keep a row");
    ok(pref_set_means(&s, &group, &mean) == 3 && group[0] == 'a' && mean[0] == 1.5 &&
           group[1] == 'b' && mean[1] == 7 && group[2] == 'c' && mean[2] == 5.5,
       "means by group, in ascending order");
    double d[2];
    ok(paired_differences(group, mean, 3, (uint64_t[]){'a', 'c', 'z'}, (double[]){2, 5, 9}, 3, d) ==
               2 &&
           d[0] == 0.5 && d[1] == -0.5,
       "differences are second minus first, of shared groups only");
    free(group);
    free(mean);
    pref_set_release(&s);
}

static void test_part(void)
{
    struct pref_part p, rest;
    static const char *const bad[] = {"",     "1",      "0/10", "3-2/10", "1-11/10", "1/0", "-1/2",
                                      "1/2x", "1- 2/3", "a/b",  "1-/2",   "1/",      "+1/2"};
    int64_t refused = 0;
    for (int64_t i = 0; i < ARRAY_LEN(bad); i++)
        refused += pref_part_parse(&p, bad[i]) != 0;
    ok(refused == ARRAY_LEN(bad), "malformed parts are refused");
    ok(!pref_part_parse(&p, "1-9/10") && p.first == 1 && p.last == 9 && p.of == 10, "1-9/10");
    ok(!pref_part_parse(&rest, "10/10") && rest.first == 10 && rest.last == 10, "10/10");
    int64_t in = 0, both = 0;
    for (uint64_t g = 0; g < 100000; g++) {
        int a = pref_part_has(&p, 7, g), b = pref_part_has(&rest, 7, g);
        in += a;
        both += a == b;
    }
    ok(!both, "a group is in 1-9/10 or in 10/10, never in both or none");
    ok(llabs(in - 90000) < 400, "nine tenths of 100000 groups: %lld (4 sigma: 380)", (long long)in);
}

static void test_lexicon(void)
{
    static const char file[] = "# a comment\ngood\t2\t0.5\tmore\nBAD\t-3.5\r\n\ndon't\t-1\n"
                               "good\t3\n\xc3\x84rger\t-2\n:)\t2\n";
    char path[] = "/tmp/pref-lexicon.XXXXXX";
    close(mkstemp(path));
    write_file(path, file, sizeof(file) - 1);
    struct lexicon *x = lexicon_open(path);
    static const struct {
        const char *text;
        double sum;
        int words;
    } cases[] = {
        {"good", 3, 1},
        {"Good, BAD; good.", 2.5, 3},
        {"the cat sat", 0, 3},
        {"", 0, 1},
        {"42 :) --", 0, 1},
        {"'good' goods", 3, 2},
        {"don't don\xe2\x80\x99t", -2, 2},
        {"\xc3\xa4rger und \xc3\x84RGER", -4, 3},
        {"good\ngood\tgood1good", 12, 4},
        {"good\xff"
         "bad",
         -0.5, 2},
    };
    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        double got = lexicon_score(x, cases[i].text, strlen(cases[i].text));
        double want = cases[i].sum / sqrt(cases[i].words);
        ok(got == want, "lexicon case %lld: %g, wanted %g", (long long)i, got, want);
    }
    lexicon_free(x);
    unlink(path);
}

static void test_moments(void)
{
    struct moments m = {0};
    for (int i = 0; i < 5; i++)
        moments_add(&m, 1e9 + i, -2.0 * i);
    ok(m.mean_x == 1e9 + 2 && fabs(moments_sd(&m) - sqrt(2.5)) < 1e-12, "mean and deviation");
    ok(fabs(moments_correlation(&m) + 1) < 1e-12, "a falling line correlates by -1");
    struct moments flat = {0};
    moments_add(&flat, 1, 1);
    ok(isnan(moments_sd(&flat)) && isnan(moments_correlation(&flat)), "one point: neither");
    const double v[] = {1, 2, 4, 8};
    ok(sorted_quantile(v, 4, 0) == 1 && sorted_quantile(v, 4, 1) == 8 &&
           sorted_quantile(v, 4, 0.5) == 3 && fabs(sorted_quantile(v, 4, 0.9) - 6.8) < 1e-12,
       "quantiles as numpy's");
    ok(isnan(sorted_quantile(NULL, 0, 0.5)), "no quantile of nothing");
}

/* The resampled mean of n numbers has variance var / n: for n in the hundreds it is as good as
 * normal, so the interval is known. */
static void test_bootstrap(void)
{
    enum { N = 400 };
    double v[N], sum = 0, ss = 0;
    for (int i = 0; i < N; i++)
        sum += v[i] = rng_normal(1, 2, (uint64_t)i) + 0.25;
    for (int i = 0; i < N; i++)
        ss += (v[i] - sum / N) * (v[i] - sum / N);
    double mean = sum / N, half = 1.959964 * sqrt(ss / N / N);
    struct interval a = bootstrap_mean(v, N, 10000, 5, 1), b = bootstrap_mean(v, N, 10000, 5, 2);
    ok(a.mean == mean, "the mean is the sample's own");
    ok(fabs(a.low - (mean - half)) < 0.05 * half && fabs(a.high - (mean + half)) < 0.05 * half,
       "the interval is the normal one: %g %g, wanted %g %g", a.low, a.high, mean - half,
       mean + half);
    ok(!memcmp(&a, &b, sizeof(a)), "two threads give the same bits as one");
    struct interval c = bootstrap_mean(v, N, 10000, 6, 1);
    ok(c.low != a.low, "another key draws others");

    /* Two numbers: a resample's mean is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4. */
    struct interval two = bootstrap_mean((double[]){0, 1}, 2, 1000, 1, 1);
    ok(two.mean == 0.5 && two.low == 0 && two.high == 1, "two numbers");
    struct interval none = bootstrap_mean(NULL, 0, 1000, 1, 1);
    ok(isnan(none.mean) && isnan(none.low), "nothing to draw from");
}

static void test_spool(void)
{
    struct spool *s = spool_new();
    char *line = xmalloc(1 << 20);
    for (int i = 0; i < 50; i++) {
        size_t len = (size_t)i * (i % 7 ? 1 : 20000) + 1;
        memset(line, 'a' + i % 26, len);
        struct row r = {.line = line, .len = len, .file = i < 20 ? "one" : "two", .number = i + 1};
        spool_add(s, &r, i * 0.5, -i);
    }
    struct spool_row got;
    int right = 0, i = 0;
    for (spool_rewind(s); spool_next(s, &got); i++)
        right += got.len == (size_t)i * (i % 7 ? 1 : 20000) + 1 &&
                 got.line[got.len - 1] == 'a' + i % 26 && !got.line[got.len] &&
                 got.reward == i * 0.5 && got.length == -i && got.number == i + 1 &&
                 !strcmp(got.file, i < 20 ? "one" : "two");
    ok(i == 50 && right == 50 && spool_count(s) == 50, "a spool gives back what it got: %d", right);
    char *where = spool_where(s, 30);
    ok(!strcmp(where, "two:31"), "and says where it was");
    free(where);
    free(line);
    spool_free(s);
}

int main(void)
{
    tool_name = "pref";
    test_select();
    test_groups();
    test_part();
    test_lexicon();
    test_moments();
    test_bootstrap();
    test_spool();
    return finish();
}
