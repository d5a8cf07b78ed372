/* progress.c -- one line on the terminal that says how far, how fast and how long still.
 *
 * It appears only where a person looks: stderr is a terminal and -q was not given. */
#include "base.h"
#include "internal.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

atomic_int progress_drawn;

double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 950, 9.5k, 12.3M: four characters or so. */
static void human(char out[16], double x)
{
    static const char units[] = "kMGT";
    int u = -1;
    while (x >= 999.5 && units[u + 1]) {
        x /= 1000;
        u++;
    }
    if (u < 0)
        snprintf(out, 16, x < 10 && x != floor(x) ? "%.2g" : "%.0f", x);
    else
        snprintf(out, 16, x < 99.95 ? "%.1f%c" : "%.0f%c", x, units[u]);
}

static void draw(struct progress *p, double now)
{
    char done[16], total[16], rate[16], line[200];
    double elapsed = now - p->start_s, per_s = elapsed > 0 ? (p->done - p->before) / elapsed : 0;
    human(done, p->done);
    human(rate, per_s);
    int n = snprintf(line, sizeof(line), "\r%.30s: %s", p->what, done);
    if (p->total > 0) {
        human(total, p->total);
        n += snprintf(line + n, sizeof(line) - (size_t)n, "/%s", total);
    }
    n += snprintf(line + n, sizeof(line) - (size_t)n, " %.12s, %s/s", p->unit, rate);
    if (p->total > 0 && per_s > 0) {
        int64_t left = (int64_t)fmin(1e9, fmax(0, (p->total - p->done) / per_s));
        n += snprintf(line + n, sizeof(line) - (size_t)n, ", %d:%02d:%02d left", (int)(left / 3600),
                      (int)(left / 60 % 60), (int)(left % 60));
    }
    n += snprintf(line + n, sizeof(line) - (size_t)n, "\033[K");
    atomic_store(&progress_drawn, 1);
    write_all(STDERR_FILENO, line, (size_t)n);
}

void progress_start(struct progress *p, const char *what, const char *unit, double total)
{
    *p = (struct progress){.what = what, .unit = unit, .total = total, .start_s = clock_s()};
    p->shown_s = isatty(STDERR_FILENO) && !opt_quiet ? p->start_s : INFINITY;
}

void progress_resume(struct progress *p, double done)
{
    p->done = p->before = done;
}

void progress_add(struct progress *p, double n)
{
    p->done += n;
    if (isinf(p->shown_s))
        return;
    double now = clock_s();
    if (now - p->shown_s >= 0.2) {
        p->shown_s = now;
        draw(p, now);
    }
}

void progress_end(struct progress *p)
{
    p->shown_s = INFINITY;
    if (atomic_exchange(&progress_drawn, 0))
        write_all(STDERR_FILENO, "\r\033[K", 4);
}
