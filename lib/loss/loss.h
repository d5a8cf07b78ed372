/* loss.h -- objectives, as functions of per-token log-probabilities.
 *
 * The head yields logp[t] = log p(label[t]); a loss returns dL/dlogp[t].  The denominator is a sum over
 * the whole global batch, taken from the data's columns before the first forward pass, so that nothing
 * depends on micro-batches, packing or mapping.  To add a loss: one file, one line in loss_list.h. */
#ifndef LOSS_H
#define LOSS_H

#include "comm/comm.h"
#include "mesh/mesh.h"
#include "op/op.h"

struct loss_rows { /* one micro-batch, on the device; shapes as in struct batch */
    const void *weight; /* S (T) */
    const void *logp;   /* S (T) */
    void *dlogp;        /* S (T) */
    const void *denom;  /* S (1) of the global batch */
    void *sum;          /* S (1) += this micro-batch's share of the numerator */
    int64_t t;
};
struct loss {
    const char *name, *about;
    /* 1: dlogp does not depend on logp, so the head's backward pass is the only one needed. */
    int known_beforehand;
    void (*dgrad)(struct lane *l, const struct op *op, struct loss_rows *r);
    void (*value)(struct lane *l, const struct op *op, struct loss_rows *r);
};

const struct loss *loss_find(const char *name); /* dies (2) listing the names */

#endif
