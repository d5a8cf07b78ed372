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
    OPT_SEED(&seed, "of the bootstrap"),
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

static char *cell(const struct arm *a, int64_t k)
{
    double x = a->value[k];
    if (isnan(x))
        return xstrdup("-");
    char *s = xasprintf(arm_metrics[k].sign ? "%+.*f" : "%.*f", arm_metrics[k].decimals, x);
    if (!s[strcspn(s, "123456789")] && (*s == '-' || *s == '+')) /* no -0.0000 */
        memmove(s, s + 1, strlen(s));
    return s;
}

static int64_t columns_of(const char *s)
{
    return utf8_count(s, strlen(s));
}

static void table_write(struct out *o, const struct arm *a, int64_t n)
{
    struct buf b = {0};
    int64_t label = 0, width[n];
    int shown[ARM_METRICS] = {0};
    for (int64_t j = 0; j < n; j++)
        width[j] = columns_of(a[j].name);
    for (int64_t k = 0; k < ARM_METRICS; k++)
        for (int64_t j = 0; j < n; j++) {
            char *s = cell(&a[j], k);
            shown[k] |= strcmp(s, "-") != 0; /* a line that applies to no arm is left out */
            width[j] = MAX(width[j], columns_of(s));
            if (shown[k])
                label = MAX(label, columns_of(arm_metrics[k].label));
            free(s);
        }
    for (int64_t k = -1; k < ARM_METRICS; k++) {
        if (k >= 0 && !shown[k])
            continue;
        buf_cell(&b, k < 0 ? "" : arm_metrics[k].label, -label);
        for (int64_t j = 0; j < n; j++) {
            char *s = k < 0 ? xstrdup(a[j].name) : cell(&a[j], k);
            buf_str(&b, "  ");
            buf_cell(&b, s, width[j]);
            free(s);
        }
        buf_char(&b, '\n');
    }
    out_write(o, b.data, b.len);
    buf_release(&b);
}

static void lines_write(struct out *o, const struct arm *a, int64_t n)
{
    struct buf b = {0};
    buf_str(&b, "arm");
    for (int64_t k = 0; k < ARM_METRICS; k++)
        buf_printf(&b, "\t%s", arm_metrics[k].key);
    for (int64_t j = 0; j < n; j++) {
        buf_printf(&b, "\n%s", a[j].name);
        for (int64_t k = 0; k < ARM_METRICS; k++) {
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
        for (int64_t k = 0; k < ARM_METRICS; k++) {
            buf_printf(&b, ",\"%s\":", arm_metrics[k].key);
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
    if (show_rows && json_path)
        die_misused("--json has no meaning for --show");
    if (show_rows) {
        struct out *o = out_open(output);
        for (int64_t j = 0; j < n; j++)
            rows_show(argc > first ? argv[first + j] : NULL, show_rows, o);
        out_close(o);
        return EXIT_DONE;
    }
    struct arm *arms = xcalloc((size_t)n, sizeof(*arms));
    for (int64_t j = 0; j < n; j++) {
        arm_read(&arms[j], argc > first ? argv[first + j] : NULL, field, distinct);
        if (j)
            arm_compare(&arms[j], &arms[0], resamples, seed);
    }
    struct out *o = out_open(output);
    (tsv ? lines_write : table_write)(o, arms, n);
    out_close(o);
    if (json_path)
        report_write(json_path, arms, n);
    for (int64_t j = 0; j < n; j++)
        arm_release(&arms[j]);
    free(arms);
    return EXIT_DONE;
}
