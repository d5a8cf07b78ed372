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

/* ---- log.c: log.jsonl, a header line and then one line a step ---- */

struct log_head {
    char *config;       /* a JSON object: the run's options and model */
    double flops_token; /* causal, documents of full length */
    int64_t params, active;
    double peak_flops; /* of all devices together, 0 when unknown */
    char *data;        /* fingerprint of the training data */
};
struct step_line {
    int64_t step;
    double loss, aux, z;
    double won; /* share of pairs the chosen one wins; NaN, and not in the line, without pairs */
    double lr, grad_norm;
    int64_t tokens; /* real ones, of all ranks */
    double step_ms;
    double tflops;  /* causal, of all devices together */
    int ok;         /* the step committed */
    double seconds; /* since the run was started or resumed */
};
/* Append a line.  What is not finite is written as null and read as NaN. */
void meter_head_write(struct buf *b, const struct log_head *h);
void meter_step_write(struct buf *b, const struct step_line *s);

struct meter_log {
    struct log_head head;
    struct step_line *line; /* (n) */
    int64_t n;
};
/* Reads a whole log ("-": stdin).  A last line without its newline is a write that was cut short
 * and is not there; any other fault dies (4) with file and line.  Unknown fields are skipped. */
void meter_log_read(struct meter_log *m, const char *path);
void meter_log_release(struct meter_log *m);
/* Cuts a log in place behind the last line whose step is at most `step`: what a resumed run appends
 * to. */
void meter_log_cut(const char *path, int64_t step);

#endif
