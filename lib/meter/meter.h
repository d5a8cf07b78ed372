/* meter.h -- what a step costs and what it did: FLOPs, parameter counts, and the step log.
 *
 * Work is counted as Megatron-LM counts it, so that figures can be set side by side: 6 FLOPs
 * (forward, data gradient, weight gradient; a multiply and an add each) for every matrix element
 * that a token meets, the head included, the embedding look-up and the router not; and attention
 * over the pairs of positions that see each other.  Recomputation, padding and dropped tokens
 * change nothing: this is the work of the mathematics, not of an implementation. */
#ifndef METER_H
#define METER_H

#include "arch/arch.h"
#include "base/base.h"

/* ---- flops.c ---- */

struct work {
    double token;  /* FLOPs a token, attention over positions apart */
    double square; /* and for each unit of sum(length^2) over documents; causal: half the square */
};
enum attn_count { COUNT_CAUSAL, COUNT_FULL /* the masked half too, as was once usual */ };

struct work meter_work(const struct config *c);
/* FLOPs of a step over `tokens` real tokens in documents whose squared lengths sum to `squares`. */
double meter_flops(const struct work *w, double tokens, double squares, enum attn_count count);
/* sum(length^2) of a packed sequence; document (n) is the number of each token's, -1 for pads. */
double meter_squares(const int32_t *document, int64_t n);

struct param_counts {
    int64_t total, active; /* active: with k of the experts; embedding and router in both */
};
struct param_counts meter_params(const struct config *c);

/* ---- log.c: log.jsonl, a header line, then one line a step, a validation and a save ---- */

struct log_head {
    char *config;        /* a JSON object: the run's options and model */
    double flops_token;  /* causal, documents of full length */
    double flops_square; /* struct work's square; NaN in logs that do not say */
    int64_t params, active;
    double peak_flops; /* of all devices together, 0 when unknown */
    char *data;        /* fingerprint of the training data */
    double memory;     /* bytes of a device that a rank needs; NaN in logs that do not say */
};
struct step_line {
    int64_t step;
    double loss, aux, z;
    double dropped; /* share of the router's choices; NaN, and not in the line, where none may be */
    double mtp_loss; /* of further tokens; NaN, and not in the line, where none are predicted */
    double won; /* share of pairs the chosen one wins; NaN, and not in the line, without pairs */
    double lr, grad_norm;
    int64_t tokens; /* real ones, of all ranks */
    double step_ms;
    double tflops;  /* causal, of all devices together */
    int ok;         /* the step committed */
    double seconds; /* since the run was started or resumed */
    double squares; /* sum(length^2) over documents; NaN in logs that do not say */
};
struct valid_line {
    int64_t step; /* that it was taken after */
    double loss;  /* mean over the validation set */
    double seconds;
};
struct save_line {
    int64_t step;   /* that is saved */
    double save_ms; /* that training stood still */
    int waited;     /* for the save before this one */
    int64_t bytes;  /* of rank 0 */
};
/* Append a line.  What is not finite is written as null and read as NaN. */
void meter_head_write(struct buf *b, const struct log_head *h);
void meter_step_write(struct buf *b, const struct step_line *s);
void meter_valid_write(struct buf *b, const struct valid_line *v);
void meter_save_write(struct buf *b, const struct save_line *s);

struct meter_log {
    struct log_head head;
    struct step_line *line; /* (n) */
    int64_t n;
    struct valid_line *valid; /* (valids) */
    int64_t valids;
};
/* Reads a whole log ("-": stdin).  A last line without its newline is a write that was cut short
 * and is not there; any other fault dies (4) with file and line.  Unknown fields are skipped. */
void meter_log_read(struct meter_log *m, const char *path);
void meter_log_release(struct meter_log *m);
/* The log of a run's folder, else the operand itself; and the done.json beside a log.  Caller
 * frees. */
char *meter_log_path(const char *operand);
char *meter_done_path(const char *log);
/* Cuts a log in place behind the last line whose step is at most `step`: what a resumed run appends
 * to. */
void meter_log_cut(const char *path, int64_t step);

/* ---- summary.c: a run in one row; every report is made from the same table of columns ---- */

enum { METER_COLUMNS = 15 };
struct meter_run {
    char *name; /* as it was given, without slashes at its end */
    char *path; /* of the log; "-" is stdin */
    struct meter_log log;
    double peak_tflops;          /* of all devices together; NaN when unknown */
    int done;                    /* done.json is there; -1 when that cannot be known (stdin) */
    double changed_s;            /* when the log last grew, since 1970; NaN of stdin */
    double value[METER_COLUMNS]; /* in the table's units; NaN when unknown */
};
struct meter_column {
    const char *name, *format; /* of the table */
    const char *key;           /* of JSON and, after "moeutils_", of metrics */
    double base;               /* what turns the table's unit into the base unit key names */
    int optional;              /* the table leaves it out when no run has it */
    double (*of)(const struct meter_run *r, const struct step_line *s); /* NULL: of validations */
    double (*fold)(double *v, int64_t n);
    const char *help;
};
extern const struct meter_column meter_columns[METER_COLUMNS];

/* operand: a run's folder, its log, or "-".  peak_tflops 0: what the log names.  Dies as
 * meter_log_read() does. */
void meter_run_read(struct meter_run *r, const char *operand, double peak_tflops);
void meter_run_release(struct meter_run *r);
/* FLOPs a second of a step with the masked half of attention counted too, in units of 10^12. */
double meter_full_tflops(const struct log_head *h, const struct step_line *s);
/* Folds: they get at least one figure, all finite, and may reorder them. */
double meter_mean(double *v, int64_t n);
double meter_median(double *v, int64_t n);

/* ---- report.c ---- */

/* A text table; heading 0: rows alone.  width, (METER_COLUMNS + 1), is widened to hold what is
 * printed, so that rows printed later stand under the same heading; a column that no run has is
 * left out while its width is 0. */
void meter_table(struct buf *b, const struct meter_run *r, int64_t n, int heading, int *width);
void meter_tsv(struct buf *b, const struct meter_run *r, int64_t n, int heading);
void meter_json(struct buf *b, const struct meter_run *r, int64_t n);
/* The text format of Prometheus; names of the runs must differ. */
void meter_prometheus(struct buf *b, const struct meter_run *r, int64_t n);

/* ---- plot.c ---- */

/* Curves of all runs over steps or tokens, as SVG drawn by gnuplot.  Dies (1) without gnuplot and
 * when no run has a step. */
void meter_plot(const char *path, const struct meter_run *r, int64_t n, int over_tokens);

#endif
