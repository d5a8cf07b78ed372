/* report.c -- runs as an aligned table, as TSV, as JSON and as Prometheus metrics, all written from
 * the columns of summary.c, so that a column added there is in every report. */
#include "meter/meter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_VERSION = 1 };

/* ---- for eyes ---- */

/* The text of column c; c -1 is the run, r NULL the heading. */
static void cell(struct buf *b, const struct meter_run *r, int c)
{
    buf_reset(b);
    if (c < 0)
        buf_str(b, r ? r->name : "run");
    else if (!r)
        buf_str(b, meter_columns[c].name);
    else if (isnan(r->value[c]))
        buf_str(b, "-");
    else
        buf_printf(b, meter_columns[c].format, r->value[c]);
}

static int is_shown(const struct meter_run *r, int64_t n, int c)
{
    int known = c < 0 || !meter_columns[c].optional;
    for (int64_t i = 0; i < n && !known; i++)
        known = !isnan(r[i].value[c]);
    return known;
}

void meter_table(struct buf *b, const struct meter_run *r, int64_t n, int heading, int *width)
{
    struct buf text = {0};
    for (int c = -1; c < METER_COLUMNS; c++)
        for (int64_t i = -1; i < n && (is_shown(r, n, c) || width[c + 1]); i++) {
            cell(&text, i < 0 ? NULL : &r[i], c);
            width[c + 1] = MAX(width[c + 1], (int)utf8_count(text.data, text.len));
        }
    for (int64_t i = heading ? -1 : 0; i < n; i++) {
        for (int c = -1; c < METER_COLUMNS; c++) {
            cell(&text, i < 0 ? NULL : &r[i], c);
            if (!width[c + 1])
                continue;
            buf_str(b, c < 0 ? "" : "  ");
            buf_cell(b, text.data, c < 0 ? -width[0] : width[c + 1]);
        }
        buf_char(b, '\n');
    }
    buf_release(&text);
}

/* ---- for programs ---- */

void meter_tsv(struct buf *b, const struct meter_run *r, int64_t n, int heading)
{
    for (int64_t i = heading ? -1 : 0; i < n; i++) {
        buf_str(b, i < 0 ? "run" : r[i].name);
        for (int c = 0; c < METER_COLUMNS; c++) {
            buf_char(b, '\t');
            if (i < 0)
                buf_str(b, meter_columns[c].name);
            else if (!isnan(r[i].value[c]))
                json_number(b, r[i].value[c]);
        }
        buf_char(b, '\n');
    }
}

static double in_base(const struct meter_run *r, int c)
{
    double base = meter_columns[c].base; /* small factors are divided by, so that 1 % is 0.01 */
    return base < 1 ? r->value[c] / round(1 / base) : r->value[c] * base;
}

static void add_text(struct buf *b, const char *key, const char *s)
{
    buf_printf(b, "\"%s\":", key);
    json_quote(b, s, strlen(s));
}

static void add_run(struct buf *b, const struct meter_run *r)
{
    static const char *const truth[] = {"null", "false", "true"};
    const struct meter_log *m = &r->log;
    add_text(b, "run", r->name);
    buf_printf(b, ",\"done\":%s,\"step\":%lld,\"params\":%lld,\"active\":%lld", truth[r->done + 1],
               m->n ? (long long)m->line[m->n - 1].step : 0LL, (long long)m->head.params,
               (long long)m->head.active);
    buf_str(b, ",\"flops_token\":");
    json_number(b, m->head.flops_token);
    buf_str(b, ",\"flops_square\":");
    json_number(b, m->head.flops_square);
    buf_str(b, ",\"peak_flops\":");
    json_number(b, r->peak_tflops * 1e12);
    buf_char(b, ',');
    add_text(b, "data", m->head.data);
    buf_printf(b, ",\"config\":%s,\"summary\":{", m->head.config);
    for (int c = 0; c < METER_COLUMNS; c++) {
        buf_printf(b, "%s\"%s\":", c ? "," : "", meter_columns[c].key);
        json_number(b, in_base(r, c));
    }
    buf_str(b, "},\"valid\":[");
    for (int64_t i = 0; i < m->valids; i++) {
        buf_printf(b, "%s{\"step\":%lld,\"loss\":", i ? "," : "", (long long)m->valid[i].step);
        json_number(b, m->valid[i].loss);
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

void meter_json(struct buf *b, const struct meter_run *r, int64_t n)
{
    buf_printf(b, "{\"report\":\"mfu-report\",\"version\":%d,\"runs\":[", REPORT_VERSION);
    for (int64_t i = 0; i < n; i++) {
        buf_str(b, i ? ",\n{" : "\n{");
        add_run(b, &r[i]);
        buf_char(b, '}');
    }
    buf_str(b, "\n]}\n");
}

static void add_sample(struct buf *b, const char *key, const char *run, double x)
{
    if (isnan(x))
        return;
    buf_printf(b, "moeutils_%s{run=\"", key);
    for (const char *s = run; *s; s++)
        if (*s == '\n')
            buf_str(b, "\\n");
        else
            buf_printf(b, "%s%c", *s == '"' || *s == '\\' ? "\\" : "", *s);
    buf_str(b, "\"} ");
    json_number(b, x);
    buf_char(b, '\n');
}

static void add_metric(struct buf *b, const char *key, const char *help)
{
    /* Gauges all: a run that is resumed goes back to its last checkpoint, a counter never does. */
    buf_printf(b, "# HELP moeutils_%s %s\n# TYPE moeutils_%s gauge\n", key, help, key);
}

void meter_prometheus(struct buf *b, const struct meter_run *r, int64_t n)
{
    for (int c = 0; c < METER_COLUMNS; c++) {
        if (!is_shown(r, n, c))
            continue;
        add_metric(b, meter_columns[c].key, meter_columns[c].help);
        for (int64_t i = 0; i < n; i++)
            add_sample(b, meter_columns[c].key, r[i].name, in_base(&r[i], c));
    }
    add_metric(b, "step", "Number of the last step in the log.");
    for (int64_t i = 0; i < n; i++)
        if (r[i].log.n)
            add_sample(b, "step", r[i].name, r[i].log.line[r[i].log.n - 1].step);
    add_metric(b, "done", "1 when the run has ended, 0 when it has not.");
    for (int64_t i = 0; i < n; i++)
        add_sample(b, "done", r[i].name, r[i].done < 0 ? NAN : r[i].done);
    add_metric(b, "log_changed_timestamp_seconds", "When the log last grew.");
    for (int64_t i = 0; i < n; i++)
        add_sample(b, "log_changed_timestamp_seconds", r[i].name, r[i].changed_s);
}
