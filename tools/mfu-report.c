/* mfu-report.c -- what runs did, side by side: a table with one row a run, from their step logs.
 *
 * A column is a figure of a step and a way to fold a run's figures into one.  Rates are medians, so
 * that a first step that warms up or a save in between does not show. */
#include "base/base.h"
#include "meter/meter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double peak_tflops;
static int tsv;
static const char *output;

static const struct opt options[] = {
    OPT_STR('o', "output", &output, "file", "write the table here instead of to stdout"),
    OPT_REAL('p', "peak", &peak_tflops, "tflops", "peak of all devices together; 0: as logged"),
    OPT_FLAG(0, "tsv", &tsv, "tab-separated, at full precision"),
    OPT_END,
};

static double peak; /* of the run at hand, TFLOP/s; NaN when unknown */

static double one(const struct step_line *s)
{
    return 1;
}
static double bad(const struct step_line *s)
{
    return !s->ok;
}
static double tokens(const struct step_line *s)
{
    return s->tokens;
}
static double loss(const struct step_line *s)
{
    return s->loss;
}
static double grad_norm(const struct step_line *s)
{
    return s->grad_norm;
}
static double step_ms(const struct step_line *s)
{
    return s->step_ms;
}
static double rate(const struct step_line *s)
{
    return s->tokens / s->step_ms * 1000;
}
static double tflops(const struct step_line *s)
{
    return s->tflops;
}
static double mfu(const struct step_line *s)
{
    return 100 * s->tflops / peak;
}

/* Folds get the finite figures of a run in order and may reorder them; only a sum has a value for
 * none. */
static double sum(double *v, int64_t n)
{
    double x = 0;
    for (int64_t i = 0; i < n; i++)
        x += v[i];
    return x;
}
static double first(double *v, int64_t n)
{
    return v[0];
}
static double last(double *v, int64_t n)
{
    return v[n - 1];
}
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, int64_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

static const struct column {
    const char *name, *format; /* the format is the table's; --tsv prints all digits */
    double (*of)(const struct step_line *s);
    double (*fold)(double *v, int64_t n);
} columns[] = {
    {"steps", "%.0f", one, sum},          {"bad", "%.0f", bad, sum},
    {"tokens", "%.0f", tokens, sum},      {"loss_first", "%.4f", loss, first},
    {"loss_last", "%.4f", loss, last},    {"grad_norm", "%.4g", grad_norm, median},
    {"step_ms", "%.4g", step_ms, median}, {"tokens/s", "%.0f", rate, median},
    {"tflop/s", "%.4g", tflops, median},  {"mfu_%", "%.1f", mfu, median},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

struct summary { /* a row of the table */
    char *run;
    double value[COLUMNS]; /* NaN: unknown */
};

static struct summary summarise(const char *path)
{
    struct summary s = {.run = xstrdup(strcmp(path, "-") ? path : "stdin")};
    for (size_t n = strlen(s.run); n > 1 && s.run[n - 1] == '/';)
        s.run[--n] = 0;
    char *file = path_is_dir(path) ? path_join(path, "log.jsonl") : xstrdup(path);
    struct meter_log m;
    meter_log_read(&m, file);
    double logged = m.head.peak_flops > 0 ? m.head.peak_flops / 1e12 : NAN;
    peak = peak_tflops > 0 ? peak_tflops : logged;
    double *v = xmalloc((m.n + 1) * sizeof *v);
    for (int c = 0; c < COLUMNS; c++) {
        int64_t n = 0;
        for (int64_t i = 0; i < m.n; i++)
            if (isfinite(v[n] = columns[c].of(&m.line[i])))
                n++;
        s.value[c] = n || columns[c].fold == sum ? columns[c].fold(v, n) : NAN;
    }
    free(v);
    meter_log_release(&m);
    free(file);
    return s;
}

/* The text of column c of a row; c -1 is the run, row NULL the heading. */
static void cell(struct buf *b, const struct summary *row, int c)
{
    buf_reset(b);
    if (c < 0)
        buf_str(b, row ? row->run : "run");
    else if (!row)
        buf_str(b, columns[c].name);
    else if (isnan(row->value[c]))
        buf_str(b, tsv ? "" : "-");
    else if (tsv)
        json_number(b, row->value[c]);
    else
        buf_printf(b, columns[c].format, row->value[c]);
}

static void print_table(struct out *o, const struct summary *rows, int64_t n)
{
    struct buf b = {0};
    int width[COLUMNS + 1] = {0}; /* stays 0 with --tsv */
    for (int64_t i = -1; i < n && !tsv; i++)
        for (int c = -1; c < COLUMNS; c++) {
            cell(&b, i < 0 ? NULL : &rows[i], c);
            width[c + 1] = MAX(width[c + 1], (int)b.len);
        }
    for (int64_t i = -1; i < n; i++)
        for (int c = -1; c < COLUMNS; c++) {
            cell(&b, i < 0 ? NULL : &rows[i], c);
            out_printf(o, "%*s%s", c < 0 ? -width[0] : width[c + 1], b.len ? b.data : "",
                       c + 1 == COLUMNS ? "\n"
                       : tsv            ? "\t"
                                        : "  ");
        }
    buf_release(&b);
}

int main(int argc, char **argv)
{
    int i = opt_parse(argc, argv, options, "mfu-report [options] [run/ | log.jsonl ...]",
                      "Prints losses, rates and model FLOPs utilisation of training runs.");
    char *in[] = {"-"};
    char **path = i < argc ? argv + i : in;
    int64_t n = i < argc ? argc - i : 1;
    if (!(peak_tflops >= 0))
        die_misused("--peak %g: not a rate", peak_tflops);
    struct summary *rows = xcalloc(n, sizeof *rows);
    for (int64_t r = 0; r < n; r++)
        rows[r] = summarise(path[r]);
    struct out *o = out_open(output);
    print_table(o, rows, n);
    out_close(o);
    for (int64_t r = 0; r < n; r++)
        free(rows[r].run);
    free(rows);
    return EXIT_DONE;
}
