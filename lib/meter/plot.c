/* plot.c -- the curves of runs as one SVG figure, drawn by gnuplot.
 *
 * A figure is a grid of panels over one x axis; a run has the same colour in all of them.  What a
 * step measures is noisy, so the figures themselves are drawn pale and a running mean or median
 * over a twentieth of the run on top.  gnuplot reads a script from an unlinked file and its output
 * is taken from a pipe, so that the figure appears whole or not at all. */
#include "meter/plot.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static double loss(const struct step_line *s)
{
    return s->loss;
}
static double grad_norm(const struct step_line *s)
{
    return s->grad_norm;
}
static double won(const struct step_line *s)
{
    return 100 * s->won;
}
static double rate(const struct step_line *s)
{
    return s->tokens / s->step_ms * 1000;
}
static double tflops(const struct step_line *s)
{
    return s->tflops;
}

static const struct panel panels[] = {
    {"loss", loss, meter_mean, 0, 1, 0},
    {"gradient norm", grad_norm, meter_median, 1, 0, 0},
    {"pairs won, %", won, meter_mean, 0, 0, 0},
    {"tokens/s", rate, meter_median, 0, 0, 1},
    {"TFLOP/s (model, causal)", tflops, meter_median, 0, 0, 1},
};
enum { PANELS = sizeof panels / sizeof *panels };

/* Colours that the colour-blind can tell apart (Okabe and Ito); the next seven are dashed. */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                      "#E69F00", "#56B4E9", "#555555"};
enum { COLOURS = sizeof colours / sizeof *colours };

/* A twentieth of air above and below; gnuplot complains of an empty range. */
static struct range with_air(struct range r, int log)
{
    double by = pow(r.high / r.low, .05), add = .05 * (r.high - r.low);
    if (log)
        return (struct range){r.low / by, r.high * by};
    if (add <= 1e-9 * fabs(r.high))
        add = fmax(.05 * fabs(r.high), 1e-6);
    return (struct range){r.low == 0 ? 0 : r.low - add, r.high + add};
}

/* A tic and its number, short: 25k, 1.5M. */
static void add_tic(struct buf *b, double x)
{
    static const struct unit {
        double one;
        const char *letter;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}};
    int i = 0;
    while (i + 1 < ARRAY_LEN(units) && fabs(x) < units[i].one)
        i++;
    buf_printf(b, "'%.6g%s' %.12g, ", x / units[i].one, units[i].letter, x);
}

/* The range of an axis, and a handful of tics at 1, 2 and 5: gnuplot's own run into each other
 * where numbers are long, and are too few on a short logarithmic axis. */
static void set_axis(struct buf *b, const char *axis, struct range r, int log)
{
    int whole = *axis == 'x'; /* steps and tokens */
    static const double steps[] = {1, 2, 5, 10};
    buf_printf(b, "%s logscale %s\nset %srange [%.12g:%.12g]\nset %stics (", log ? "set" : "unset",
               axis, axis, r.low, r.high, axis);
    if (log) {
        int all = r.high / r.low < 1e3;
        for (int e = floor(log10(r.low)); e <= log10(r.high); e++)
            for (int i = 0; i < (all ? 3 : 1); i++)
                add_tic(b, steps[i] * pow(10, e));
    } else {
        double ten = pow(10, floor(log10((r.high - r.low) / 6))), step = 0;
        for (int i = 0; step < (r.high - r.low) / 6; i++)
            step = ten * steps[i];
        step = whole ? fmax(step, 1) : step;
        for (double k = ceil(r.low / step); k * step <= r.high; k++)
            add_tic(b, k * step + 0.0); /* not -0 */
    }
    b->len -= 2; /* the last comma */
    buf_str(b, ")\n");
}

/* Single quotes are doubled and nothing else means anything; the name of a file may hold any byte.
 */
static void quote(struct buf *b, const char *s)
{
    buf_char(b, '\'');
    for (; *s; s++)
        buf_printf(b, "%s%c", *s == '\'' ? "'" : "",
                   (unsigned char)*s < ' ' || *s == 127 ? '?' : *s);
    buf_char(b, '\'');
}

struct figure {
    const struct meter_run *run;
    int64_t n;
    int over_tokens;
    struct curve *curve; /* (PANELS + 1, n): the last are validation losses */
    struct range x, y[PANELS];
    int shown[PANELS]; /* panels with a curve, in order */
    int shows, has_valid;
};
static struct curve *curve_at(const struct figure *f, int64_t panel, int64_t run)
{
    return &f->curve[panel * f->n + run];
}

static void figure_init(struct figure *f)
{
    f->curve = xcalloc((PANELS + 1) * f->n, sizeof *f->curve);
    f->x = (struct range){INFINITY, -INFINITY};
    for (int p = 0; p < PANELS; p++)
        f->y[p] = f->x;
    for (int64_t i = 0; i < f->n; i++) {
        struct curve *v = curve_at(f, PANELS, i);
        *v = curve_of_valid(&f->run[i].log, f->over_tokens);
        f->has_valid |= v->n > 0;
        for (int p = 0; p < PANELS; p++) {
            struct curve *c = curve_at(f, p, i);
            *c = curve_of(&f->run[i].log, &panels[p], f->over_tokens);
            range_add(&f->x, c->x, c->n);
            range_add(&f->y[p], c->y, c->n);
            if (panels[p].valid) {
                range_add(&f->x, v->x, v->n);
                range_add(&f->y[p], v->y, v->n);
            }
        }
    }
    for (int p = 0; p < PANELS; p++)
        if (f->y[p].low <= f->y[p].high)
            f->shown[f->shows++] = p;
}

static void write_data(struct buf *b, const struct figure *f)
{
    for (int64_t p = 0; p <= PANELS; p++)
        for (int64_t i = 0; i < f->n; i++) {
            struct curve *c = curve_at(f, p, i);
            if (!c->n)
                continue;
            buf_printf(b, "$p%lldr%lld << E\n", (long long)p, (long long)i);
            for (int64_t k = 0; k < c->n; k++)
                buf_printf(b, "%.8g %.6g %.6g\n", c->x[k], c->y[k], c->mid ? c->mid[k] : c->y[k]);
            buf_str(b, "E\n");
        }
}

/* A run has a title where it has a curve; the legend is the first panel's, in the strip on top. */
static void write_panel(struct buf *b, const struct figure *f, int p, int first)
{
    const char *sep = "plot ";
    struct range y = f->y[p];
    y.low = panels[p].level ? 0 : y.low;
    int log = panels[p].log && y.high / y.low > 4;
    set_axis(b, "y", with_air(y, log), log);
    buf_str(b, "set label 1 ");
    quote(b, panels[p].title);
    buf_str(b, " at graph 0,1 offset 0,0.8 font ',13'\n");
    for (int64_t i = 0; i < f->n; i++) {
        const char *c = colours[i % COLOURS];
        int dash = i / COLOURS % 4 + 1;
        struct curve *raw = curve_at(f, p, i), *valid = curve_at(f, PANELS, i);
        if (raw->n) {
            const char *with = raw->n < 40 ? "linespoints pt 7 ps 0.35" : "lines";
            buf_printf(b,
                       "%s$p%dr%lld using 1:2 with lines lw 1 dt %d lc rgb '#B0%s' notitle, \\\n",
                       sep, p, (long long)i, dash, c + 1);
            buf_printf(b, "$p%dr%lld using 1:3 with %s lw 2 dt %d lc rgb '%s' title ", p,
                       (long long)i, with, dash, c);
            quote(b, f->run[i].name);
            sep = ", \\\n";
        }
        if (panels[p].valid && valid->n) {
            buf_printf(b,
                       "%s$p%dr%lld using 1:2 with linespoints lw 1.5 dt 3 pt 6 ps 0.6 lc rgb '%s' "
                       "notitle",
                       sep, PANELS, (long long)i, c);
            sep = ", \\\n";
        }
    }
    if (panels[p].valid && f->has_valid)
        buf_printf(b,
                   "%skeyentry with linespoints lw 1.5 dt 3 pt 6 ps 0.6 lc rgb '#333333' "
                   "title 'validation'",
                   sep);
    buf_str(b, first ? "\nunset key\n" : "\n");
}

static void write_script(struct buf *b, const struct figure *f)
{
    enum { WIDTH = 1000, PANEL = 300, ENTRY = 18 }; /* pixels */
    int rows = (f->shows + 1) / 2, columns = MIN(f->shows, 2);
    size_t longest = strlen("validation");
    for (int64_t i = 0; i < f->n; i++)
        longest = MAX(longest, strlen(f->run[i].name));
    int lists = MAX(WIDTH * 9 / 10 / (longest * 11 + 60), 1); /* of the legend, side by side */
    int entries = (f->n + f->has_valid + lists - 1) / lists;  /* in each */
    int legend = entries * ENTRY + 16, height = rows * PANEL + legend;
    double top = 1 - (double)legend / height;
    write_data(b, f);
    buf_printf(b,
               "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,12' "
               "background rgb 'white'\n",
               WIDTH, height);
    buf_printf(b, "set multiplot\nset border 3 lc rgb '#666666'\nset tics nomirror out scale 0.5\n"
                  "set grid lc rgb '#E4E4E4' lw 1 lt 1\n");
    buf_printf(b,
               "set key at screen 0.06,%.4f left top Left reverse vertical maxrows %d samplen 2 "
               "width 2 textcolor rgb '#222222'\n",
               1 - 10.0 / height, entries);
    set_axis(b, "x", (struct range){0, fmax(f->x.high, 1)}, 0);
    for (int i = 0; i < f->shows; i++) {
        int row = i / 2, column = i % 2;
        double left = column / (double)columns, right = (column + 1) / (double)columns;
        double up = top * (rows - row) / rows, down = top * (rows - row - 1) / rows;
        buf_printf(b, "set lmargin at screen %.4f\nset rmargin at screen %.4f\n", left + .065,
                   right - .02);
        buf_printf(b, "set tmargin at screen %.4f\nset bmargin at screen %.4f\n",
                   up - 30.0 / height, down + 56.0 / height);
        buf_printf(b, "set xlabel '%s' offset 0,0.4\n",
                   i + 2 < f->shows ? ""
                   : f->over_tokens ? "tokens"
                                    : "step");
        write_panel(b, f, f->shown[i], i == 0);
    }
    buf_str(b, "unset multiplot\n");
}

static int file_of(const struct buf *script)
{
    int fd = memfd_create("script", MFD_CLOEXEC);
    if (fd < 0 || write_all(fd, script->data, script->len) || lseek(fd, 0, SEEK_SET))
        die("script for gnuplot:");
    return fd;
}

/* Runs gnuplot on the script and returns what it wrote. */
static struct buf draw(const struct buf *script)
{
    char *argv[] = {"gnuplot", "-d", "-", NULL}; /* -d: nobody's ~/.gnuplot */
    struct buf svg = {0};
    int in = file_of(script), out[2], status;
    posix_spawn_file_actions_t a;
    pid_t pid;
    if (pipe2(out, O_CLOEXEC))
        die("pipe:");
    posix_spawn_file_actions_init(&a);
    posix_spawn_file_actions_adddup2(&a, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&a, out[1], STDOUT_FILENO);
    errno = posix_spawnp(&pid, "gnuplot", &a, NULL, argv, environ);
    if (errno)
        die("--plot needs gnuplot (Debian: gnuplot-nox):");
    posix_spawn_file_actions_destroy(&a);
    close(in), close(out[1]);
    for (ssize_t n = 1; n > 0; svg.len += n) {
        buf_reserve(&svg, 1 << 16);
        n = read(out[0], svg.data + svg.len, 1 << 16);
        if (n < 0)
            die("read from gnuplot:");
    }
    close(out[0]);
    if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) || !svg.len)
        die("gnuplot failed");
    return svg;
}

void meter_plot(const char *path, const struct meter_run *r, int64_t n, int over_tokens)
{
    struct figure f = {.run = r, .n = n, .over_tokens = over_tokens};
    struct buf script = {0};
    figure_init(&f);
    if (!f.shows)
        die("%s: no run has a step to plot", path);
    write_script(&script, &f);
    struct buf svg = draw(&script);
    write_file(path, svg.data, svg.len);
    for (int64_t i = 0; i < (PANELS + 1) * n; i++)
        curve_release(&f.curve[i]);
    free(f.curve);
    buf_release(&script);
    buf_release(&svg);
}
