/* run_priv.h -- a run as one rank sees it, shared by the files run*.c. */
#ifndef RUN_PRIV_H
#define RUN_PRIV_H

#include "train/train.h"

#include <pthread.h>

/* A checkpoint on its way to the disk. */
struct saving {
    int begun, gathered; /* a thread is at it; rank 0 has had the parts of all ranks */
    pthread_t thread;
    struct ckpt_writer *writer;
    char *tmp, *part; /* the folder; what this rank's files are to the manifest */
    char **parts;     /* (ranks) rank 0's, once gathered */
    struct buf state; /* of the run at that step */
    int64_t step;
    char *copy; /* of what is saved, from alloc_host(): kept for the next one */
    int64_t copy_bytes, copied;
    pthread_mutex_t lock; /* for the next three */
    pthread_cond_t change;
    int written, ready, done; /* this rank's files; parts are there; it is published */
};

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
    struct saving saving;
    struct ckpt_side *side; /* rank 0: what lay beside the weights it began with; NULL: new ones */
    int log_fd;
    int status;
};

/* ---- run_data.c ---- */

/* --data and --valid; dies when sets disagree or lack what the loss needs. */
void run_sets_open(struct run *r);
int64_t run_sequences(const struct mix *x);
const struct buf *run_set_file(const struct run *r, const char *name); /* of the first set that has it */

/* ---- run_start.c ---- */

/* The model of the checkpoint to resume, of --init, or of --model.  Returns how many layers that predict
 * further tokens this run leaves out. */
int64_t run_config(const struct run *r, const char *resume, struct config *c);
/* Dies where the device has less memory than the run will need. */
void run_memory(struct run *r, const char *resume, const struct mesh *m,
                struct trainer_options *t);
void run_start(struct run *r, const char *resume); /* weights, and where the run goes on */
int run_finished(const struct run *r); /* 1 when done.json says that this very run has ended */

/* ---- run_map.c ---- */

/* This rank's place in the mapping that was asked for; micro-batch and threads where they are left
 * to choose.  Dies where the world, the model or the batch does not fit, and says what would. */
void run_map(const struct run *r, const struct config *c, struct trainer_options *t, struct mesh *m);

/* ---- run_save.c ---- */

/* A checkpoint of this step, by every rank.  Where training goes on it is of a copy, and written
 * meanwhile; where not, it is there on return.  One that meets an unfinished one waits for it. */
void run_save(struct run *r, int goes_on);
int run_save_unwritten(struct run *r); /* whether this rank's files are still being written */
/* Every rank, once none has any unwritten: hands what they wrote to rank 0's thread. */
void run_save_gather(struct run *r);
void run_save_finish(struct run *r); /* every rank: waits until there is none on its way */
void run_save_init(struct run *r);
void run_save_release(struct run *r);
void run_status_write(const struct run *r, const char *state, int code);
void run_done_write(const struct run *r);

/* ---- run_log.c: rank 0 ---- */

void run_log_open(struct run *r, int64_t sequence_length);
void run_log_step(struct run *r, const struct step_result *s, double ms, double seconds);
void run_log_save(struct run *r, double ms, int waited, int64_t bytes);
void run_log_valid(struct run *r, double loss, double seconds);
void run_log_sync(const struct run *r); /* so that no checkpoint outlives the lines of its steps */

#endif
