/* summary.c -- a run in one row: each column is a figure of a step and a way to fold a run's
 * figures into one.
 *
 * Rates are medians, so that a first step that warms up or a save in between does not show. */
#include "meter/meter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

double meter_full_tflops(const struct log_head *h, const struct step_line *s)
{
    return s->tflops + h->flops_square * s->squares / s->step_ms / 1e9;
}

/* ---- figures of a step ---- */

static double one(const struct meter_run *r, const struct step_line *s)
{
    return 1;
}
static double bad(const struct meter_run *r, const struct step_line *s)
{
    return !s->ok;
}
static double tokens(const struct meter_run *r, const struct step_line *s)
{
    return s->tokens;
}
static double loss(const struct meter_run *r, const struct step_line *s)
{
    return s->loss;
}
static double won(const struct meter_run *r, const struct step_line *s)
{
    return 100 * s->won;
}
static double grad_norm(const struct meter_run *r, const struct step_line *s)
{
    return s->grad_norm;
}
static double step_ms(const struct meter_run *r, const struct step_line *s)
{
    return s->step_ms;
}
static double rate(const struct meter_run *r, const struct step_line *s)
{
    return s->tokens / s->step_ms * 1000;
}
static double causal(const struct meter_run *r, const struct step_line *s)
{
    return s->tflops;
}
static double causal_mfu(const struct meter_run *r, const struct step_line *s)
{
    return 100 * s->tflops / r->peak_tflops;
}
static double full(const struct meter_run *r, const struct step_line *s)
{
    return meter_full_tflops(&r->log.head, s);
}
static double full_mfu(const struct meter_run *r, const struct step_line *s)
{
    return 100 * full(r, s) / r->peak_tflops;
}

static double memory(const struct meter_run *r, const struct step_line *s)
{
    return r->log.head.memory / 0x1p30;
}

/* ---- folds; only a sum has a value for none ---- */

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
double meter_mean(double *v, int64_t n)
{
    return sum(v, n) / n;
}
/* A share of the few pairs of one step is mostly noise. */
static double last_tenth(double *v, int64_t n)
{
    int64_t m = MAX(n / 10, 1);
    return meter_mean(v + n - m, m);
}
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
double meter_median(double *v, int64_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

const struct meter_column meter_columns[METER_COLUMNS] = {
    {"steps", "%.0f", "steps", 1, 0, one, sum, "Steps in the log."},
    {"bad", "%.0f", "bad_steps", 1, 0, bad, sum, "Steps that did not commit."},
    {"tokens", "%.0f", "tokens", 1, 0, tokens, sum, "Tokens trained on, padding left out."},
    {"loss_first", "%.4f", "loss_first", 1, 0, loss, first, "Loss of the first step."},
    {"loss_last", "%.4f", "loss_last", 1, 0, loss, last, "Loss of the last step."},
    {"valid_loss", "%.4f", "valid_loss", 1, 1, NULL, last, "Loss of the last validation."},
    {"won_%", "%.1f", "won_ratio", .01, 1, won, last_tenth,
     "Share of pairs that the chosen one wins, mean of the last tenth of the steps."},
    {"grad_norm", "%.4g", "grad_norm", 1, 0, grad_norm, meter_median,
     "Norm of the gradient before clipping, median."},
    {"step_ms", "%.4g", "step_seconds", 1e-3, 0, step_ms, meter_median, "Time of a step, median."},
    {"tokens/s", "%.0f", "tokens_per_second", 1, 0, rate, meter_median,
     "Tokens a second of all devices together, median."},
    {"tflop/s", "%.4g", "flops_per_second", 1e12, 0, causal, meter_median,
     "Model FLOPs a second of all devices together, causal attention, median."},
    {"mfu_%", "%.1f", "mfu_ratio", .01, 0, causal_mfu, meter_median,
     "Model FLOPs a second as a share of the peak, causal attention, median."},
    {"full_tflop/s", "%.4g", "full_flops_per_second", 1e12, 1, full, meter_median,
     "Model FLOPs a second, the masked half of attention counted too, median."},
    {"full_mfu_%", "%.1f", "full_mfu_ratio", .01, 1, full_mfu, meter_median,
     "Model FLOPs a second as a share of the peak, masked half counted too, median."},
    {"memory_gib", "%.1f", "memory_bytes", 0x1p30, 1, memory, last,
     "Memory that a rank needs of its device."},
};

static void fold_columns(struct meter_run *r)
{
    const struct meter_log *m = &r->log;
    double *v = xmalloc((MAX(m->n, m->valids) + 1) * sizeof *v);
    for (int c = 0; c < METER_COLUMNS; c++) {
        const struct meter_column *k = &meter_columns[c];
        int64_t n = 0, of = k->of ? m->n : m->valids;
        for (int64_t i = 0; i < of; i++)
            if (isfinite(v[n] = k->of ? k->of(r, &m->line[i]) : m->valid[i].loss))
                n++;
        r->value[c] = n || k->fold == sum ? k->fold(v, n) : NAN;
    }
    free(v);
}

/* What the files around a log say: whether the run is done, and when the log last grew. */
static void look_around(struct meter_run *r)
{
    struct stat st;
    r->done = -1;
    r->changed_s = NAN;
    if (!strcmp(r->path, "-") || stat(r->path, &st))
        return;
    char *done = meter_done_path(r->path);
    r->done = path_exists(done);
    r->changed_s = st.st_mtim.tv_sec;
    free(done);
}

void meter_run_read(struct meter_run *r, const char *operand, double peak_tflops)
{
    r->name = xstrdup(strcmp(operand, "-") ? operand : "stdin");
    for (size_t n = strlen(r->name); n > 1 && r->name[n - 1] == '/';)
        r->name[--n] = 0;
    r->path = meter_log_path(operand);
    look_around(r); /* first: of a run that is done, the log that is read next is whole */
    meter_log_read(&r->log, r->path);
    double logged = r->log.head.peak_flops > 0 ? r->log.head.peak_flops / 1e12 : NAN;
    r->peak_tflops = peak_tflops > 0 ? peak_tflops : logged;
    fold_columns(r);
}

void meter_run_release(struct meter_run *r)
{
    free(r->name);
    free(r->path);
    meter_log_release(&r->log);
    *r = (struct meter_run){0};
}
