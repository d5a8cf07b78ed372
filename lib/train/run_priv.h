/* run_priv.h -- a run as one rank sees it, shared by the files run*.c. */
#ifndef RUN_PRIV_H
#define RUN_PRIV_H

#include "train/train.h"

struct run { /* one rank's view */
    const struct run_options *o;
    struct world *world;
    struct comm *all;
    struct mix mix;
    struct set *valid;
    struct trainer t;
    struct buf identity;
    int64_t steps;
    int64_t step;      /* done */
    int64_t skipped;   /* of these, without an update: there was nothing to learn */
    int64_t samples;   /* consumed: the cursor of the data */
    int64_t bad;       /* batches that were not finite and did not count as steps */
    double loss;       /* of the last step */
    double moments[2]; /* mean and sd of a reward model's scores of its training data */
    int64_t memory;    /* bytes of the device that it needs, 0 where nobody counts */
    int log_fd;
    int status;
};

/* ---- run_data.c ---- */

void run_mix_open(struct run *r); /* --data; dies when sets disagree or lack what the loss needs */
int64_t run_sequences(const struct mix *x);

/* ---- run_start.c ---- */

/* The model of the checkpoint to resume, of --init, or of --model. */
void run_config(const struct run *r, const char *resume, struct config *c);
/* Micro-batch and threads where they are left to choose. */
void run_defaults(const struct run *r, const struct mesh *m, struct trainer_options *t);
/* Dies where the device has less memory than the run will need. */
void run_memory(struct run *r, const char *resume, const struct mesh *m,
                struct trainer_options *t);
void run_start(struct run *r, const char *resume); /* weights, and where the run goes on */
int run_finished(const struct run *r); /* 1 when done.json says that this very run has ended */

/* ---- run_save.c ---- */

void run_save(struct run *r); /* every rank; a checkpoint of this step */
void run_status_write(const struct run *r, const char *state, int code);
void run_done_write(const struct run *r);

/* ---- run_log.c: rank 0 ---- */

void run_log_open(struct run *r, int64_t sequence_length);
void run_log_step(struct run *r, const struct step_result *s, double ms, double seconds);
void run_log_valid(struct run *r, double loss, double seconds);

#endif
