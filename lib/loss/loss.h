/* loss.h -- objectives, as functions of per-token log-probabilities.
 *
 * The head yields logp[t] = log p(label[t]); a loss returns dL/dlogp[t].  The denominator is a sum
 * over the whole global batch, taken from the data's columns before the first forward pass, so that
 * nothing depends on micro-batches, packing or mapping.  To add a loss: one file, one line in
 * loss_list.h. */
#ifndef LOSS_H
#define LOSS_H

#include "comm/comm.h"
#include "mesh/mesh.h"
#include "op/op.h"

struct loss_rows {      /* one micro-batch, on the device; shapes as in struct batch */
    const void *weight; /* S (T) */
    const void *logp;  /* S (T) what the head gave: log-probabilities, or a reward model's scores */
    void *dlogp;       /* S (T) */
    const void *denom; /* S (1) of the global batch */
    void *sum;         /* S (2) += this micro-batch's share of the numerator, and pairs won */
    int64_t t, spans;
    const int32_t *q_at, *chosen; /* (spans+1), (spans): span i is the chosen one of a pair */
    const void *base, *margin;    /* S (spans): log-probability under the reference; margin */
    double beta;
};
/* Which tokens of a document count, and with what weight. */
enum loss_tokens {
    TOKENS_WEIGHTED, /* the learnt ones, with the document's weight */
    TOKENS_LEARNT,   /* the learnt ones, each 1 */
    TOKENS_LAST,     /* the last one, 1 */
};
struct loss {
    const char *name, *about;
    /* 1: dlogp does not depend on logp, so the head's backward pass is the only one needed. */
    int known_beforehand;
    enum loss_tokens tokens;
    int pairs;           /* documents come in pairs, and the denominator is their number */
    const char *columns; /* of the set that it needs beyond the weights, comma separated, or NULL */
    int reward;          /* needs a reward model's head */
    void (*dgrad)(struct lane *l, const struct op *op, struct loss_rows *r);
    void (*value)(struct lane *l, const struct op *op, struct loss_rows *r);
};

const struct loss *loss_find(const char *name); /* dies (2) listing the names */

#endif
