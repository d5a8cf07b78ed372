/* mfu-report.c -- what runs did, side by side: a table with one row a run, from their step logs,
 * and the same figures as JSON, as metrics and as curves.
 *
 * The table comes first, so that a plot that cannot be drawn costs nothing else.  A run that is
 * followed is read again whenever its log has grown; the log is the only channel. */
#include "base/base.h"
#include "meter/meter.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double peak_tflops;
static int tsv, follow;
static const char *output, *json, *plot, *over = "steps", *prometheus;

static const struct opt options[] = {
    OPT_STR('o', "output", &output, "file", "write the table here instead of to stdout"),
    OPT_REAL('p', "peak", &peak_tflops, "tflops", "peak of all devices together; 0: as logged"),
    OPT_FLAG(0, "tsv", &tsv, "tab-separated, every column, at full precision"),
    OPT_STR(0, "json", &json, "file", "also write everything as JSON"),
    OPT_STR(0, "prometheus", &prometheus, "file", "also write metrics for a textfile collector"),
    OPT_STR(0, "plot", &plot, "file.svg", "also draw the curves (needs gnuplot)"),
    OPT_CHOICE(0, "over", &over, "steps|tokens", "what the curves are drawn over"),
    OPT_FLAG('f', "follow", &follow, "keep up with the logs until the runs are done"),
    OPT_END,
};

static volatile sig_atomic_t stopped;

static void on_signal(int s)
{
    stopped = s;
}

struct table { /* the table on its way out */
    struct out *out;
    int width[METER_COLUMNS + 1];
    int64_t drawn; /* lines on the screen that the next drawing replaces */
};

static void print_rows(struct table *t, const struct meter_run *r, int64_t n, int heading)
{
    struct buf b = {0};
    if (tsv)
        meter_tsv(&b, r, n, heading);
    else
        meter_table(&b, r, n, heading, t->width);
    out_write(t->out, b.data, b.len);
    buf_release(&b);
}

/* On a terminal a table replaces the last one: up, then each line erased before it is written anew.
 * Lines are not wrapped meanwhile, as that would make them more than were counted. */
static void redraw(struct table *t, const struct meter_run *r, int64_t n)
{
    struct buf b = {0};
    meter_table(&b, r, n, 1, t->width);
    out_printf(t->out, "\033[?7l");
    if (t->drawn)
        out_printf(t->out, "\033[%lldA", (long long)t->drawn);
    for (char *line = b.data, *end; (end = strchr(line, '\n')); line = end + 1)
        out_printf(t->out, "\r\033[K%.*s\n", (int)(end - line), line);
    out_printf(t->out, "\033[?7h");
    t->drawn = n + 1;
    buf_release(&b);
}

static void write_report(const char *path, const struct meter_run *r, int64_t n,
                         void (*report)(struct buf *b, const struct meter_run *r, int64_t n))
{
    struct buf b = {0};
    if (!path)
        return;
    report(&b, r, n);
    write_file(path, b.data, b.len);
    buf_release(&b);
}

static void write_reports(const struct meter_run *r, int64_t n)
{
    write_report(json, r, n, meter_json);
    write_report(prometheus, r, n, meter_prometheus);
}

/* ---- following ---- */

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
}

/* A run that has just been started may have no log, or one without its first line. */
static int has_header(const char *log)
{
    FILE *f = path_is_dir(log) ? NULL : fopen(log, "re");
    int c = 0;
    if (!f)
        return 0;
    while (c != EOF && c != '\n')
        c = getc(f);
    fclose(f);
    return c == '\n';
}

/* Whether there is news of a run since it was looked at last. */
static int has_news(const char *log, int was_done, struct stat *seen)
{
    struct stat now;
    char *done = meter_done_path(log);
    int news = path_exists(done) != was_done;
    free(done);
    if (stat(log, &now) || !has_header(log))
        return 0;
    news |= now.st_size != seen->st_size || now.st_mtim.tv_sec != seen->st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != seen->st_mtim.tv_nsec;
    *seen = now;
    return news;
}

static void await_logs(char **operand, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        char *log = meter_log_path(operand[i]);
        for (int said = 0; !has_header(log); said = 1) {
            if (stopped)
                die("%s: stopped before it had a log", operand[i]);
            if (!said)
                say("waiting for the log of %s", operand[i]);
            nap();
            free(log);
            log = meter_log_path(operand[i]); /* the folder may have come */
        }
        free(log);
    }
}

static void follow_runs(struct table *t, char **operand, struct meter_run *r, int64_t n)
{
    int screen = out_is_tty(t->out) && !tsv, heading = 1;
    struct stat *seen = xcalloc(n, sizeof *seen);
    for (int c = 0; c <= METER_COLUMNS && !screen; c++)
        t->width[c] = 1; /* rows are added to a table whose columns are fixed: all of them */
    await_logs(operand, n);
    for (int64_t done = 0; done < n;) {
        int stop = stopped, news = 0;
        done = 0;
        for (int64_t i = 0; i < n; i++) {
            char *log = meter_log_path(operand[i]);
            if (has_news(log, r[i].done, &seen[i])) {
                meter_run_release(&r[i]);
                meter_run_read(&r[i], operand[i], peak_tflops);
                if (!screen)
                    print_rows(t, &r[i], 1, heading);
                news = 1;
                heading = 0;
            }
            free(log);
            done += r[i].done;
        }
        if (news) {
            if (screen)
                redraw(t, r, n);
            out_flush(t->out);
            write_reports(r, n);
        }
        if (stop)
            break;
        if (done < n)
            nap();
    }
    free(seen);
}

static void read_runs(struct table *t, char **operand, struct meter_run *r, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        meter_run_read(&r[i], operand[i], peak_tflops);
    print_rows(t, r, n, 1);
}

static int same_name(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    while (n > 1 && a[n - 1] == '/')
        n--;
    while (m > 1 && b[m - 1] == '/')
        m--;
    return n == m && !memcmp(a, b, n);
}

static void check_options(char **operand, int64_t n)
{
    if (!(peak_tflops >= 0))
        die_misused("--peak %g: not a rate", peak_tflops);
    for (int64_t i = 0; i < n; i++) {
        if (follow && !strcmp(operand[i], "-"))
            die_misused("--follow needs the name of a run or a log");
        for (int64_t j = 0; j < i && prometheus; j++)
            if (same_name(operand[i], operand[j]))
                die_misused("%s is given twice: metrics need a name for each run", operand[i]);
    }
}

int main(int argc, char **argv)
{
    int i = opt_parse(argc, argv, options, "mfu-report [options] [run/ | log.jsonl ...]",
                      "Prints losses, rates and model FLOPs utilisation of training runs.");
    char *in[] = {"-"};
    char **operand = i < argc ? argv + i : in;
    int64_t n = i < argc ? argc - i : 1;
    check_options(operand, n);
    struct table t = {.out = out_open(output)};
    struct meter_run *r = xcalloc(n, sizeof *r);
    if (follow) {
        sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART},
                  NULL);
        sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART},
                  NULL);
        follow_runs(&t, operand, r, n);
    } else {
        read_runs(&t, operand, r, n);
    }
    out_close(t.out);
    write_reports(r, n);
    if (plot)
        meter_plot(plot, r, n, !strcmp(over, "tokens"));
    for (int64_t k = 0; k < n; k++)
        meter_run_release(&r[k]);
    free(r);
    return EXIT_DONE;
}
