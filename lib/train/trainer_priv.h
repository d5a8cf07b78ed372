/* trainer_priv.h -- what the files of the trainer share: trainer.c, batches.c, step.c. */
#ifndef TRAINER_PRIV_H
#define TRAINER_PRIV_H

#include "train/train.h"

/* ---- batches.c ---- */

enum { FURTHER_DENOM = 3 }; /* in the scalars */

void batches_init(struct trainer *t);
void batches_release(struct trainer *t);
/* The rows of a set from `first` on, and rows of pads past its end. */
void batches_of_set(struct trainer *t, const struct set *set, int64_t first);
/* What is to be known of the rows of all ranks before a step. */
void batches_count(struct trainer *t, struct step_result *r);
/* The rows in t->host to the device, with what the step is divided by and its live tokens. */
void batches_put(struct trainer *t, double denom, double live);

/* ---- trainer.c ---- */

int64_t step_memory(struct trainer *t);             /* bytes of the heaps of a step */
void fix_memory(struct trainer *t, int fixed); /* where fixed, they stay where they are */

/* ---- step.c ---- */

/* What comes back of a step: losses, the optimizer's state, its bad elements. */
enum { REPORT_LOSS = 0, REPORT_STATE = 256, REPORT_BAD = 512, REPORT_BYTES = 768 };
void whole_step(struct trainer *t);

#endif
