/* train.h -- the step: which rows, in which order the segments run, the optimizer, and runs on
 * disk.
 *
 * Mapping is not a hyperparameter: initial weights, the order of data and every denominator are
 * functions of (seed, step, logical coordinate), never of a rank, so the same run under any mapping
 * gives the same losses to rounding, and a resume at the same mapping the same bits. */
#ifndef TRAIN_H
#define TRAIN_H

#include "ckpt/ckpt.h"
#include "loss/loss.h"
#include "meter/meter.h"
#include "model/model.h"
#include "shard/shard.h"

#include <string.h>

/* ---- schedule.c: a step as a list ---- */

enum lane_name {
    LANE_COMPUTE,
    LANE_TOKENS, /* to their experts and back */
    LANE_SHARDS, /* of gradients and weights, between the ranks that share them */
    LANES
};
struct task {
    enum segment segment;
    enum pass pass;
    enum lane_name lane;
    int layer;         /* an index of model.at */
    int micro;         /* micro-batch */
    int after;         /* task of the other lane whose event this one waits for, -1 for none */
    int awaited;       /* a task of the other lane waits for this one */
    int last_of_micro; /* its saved state and batch are free after this task */
};
struct schedule {
    struct task *task;
    int64_t n;
    int64_t in_flight; /* micro-batches whose saved state is alive at once, at most */
};
/* One forward, one backward (Narayanan et al. 2021) for this stage: warm-up forwards, then pairs,
 * then the rest of the backwards; with one stage it is F0 B0 F1 B1 ...  Several chunks a stage are
 * interleaved, and the micro-batches must then be a multiple of the stages.  head is SEG_HEAD or
 * SEG_SCORE; head_forward: the loss needs its output before its gradient. */
void schedule_1f1b(struct schedule *s, const struct model *m, int64_t micros, enum segment head,
                   int head_forward);
/* Forward passes only, for evaluation. */
void schedule_forward(struct schedule *s, const struct model *m, int64_t micros, enum segment head);
void schedule_release(struct schedule *s);

/* ---- optim.c, optim_save.c: ZeRO-1 shards of the optimizer ---- */

struct optim_def { /* an optimizer: its name and its state, under checkpoint names */
    const char *name;
    const char *moment[2];
    int moments;
};
struct optim_piece {
    const struct param *p;
    struct rect r;
    int64_t at; /* in the shard, elements */
    int writes; /* this rank stores it: the first of the tensor's replicas over TP */
};
struct optim_bucket {
    const struct bucket *in; /* the model's buffers: where */
    int64_t layer; /* an index of model.at; one past the last for the embedding's */
    struct stretches stretches; /* of this rank's part, for the device */
    struct event there; /* the weights have come */
};
struct optim_options {
    const char *name; /* of an optim_def */
    const char *moments; /* their type, "bf16"; "f32" or NULL: S */
    const char *master;  /* "none": bf16 weights are their own; "f32" or NULL: a copy in S */
    double decay;
    double balance; /* what a step moves the bias of an expert by, for even loads; 0: nothing */
    int64_t seed; /* of what bf16 values are rounded by */
    struct step_plan plan;
};
struct optim {
    const struct optim_def *def;
    struct step_plan plan;
    struct model *m;
    double balance;
    struct lane *side; /* where gradients and weights travel while others are computed; or the model's */
    struct event forked, joined;
    struct optim_bucket *bucket; /* (the layout's buckets) */
    enum dtype moment_type;
    int own; /* weights are their own masters: R is S, or there shall be no others */
    struct optim_shard {
        void *master;    /* (shard) S, or the weights themselves */
        void *moment[2]; /* (shard) of moment_type each */
        struct optim_piece *piece; /* (pieces) the shard as rectangles of tensors */
        int64_t pieces;
    } shard[BUFFERS_LEARNT];
    void *state;  /* S (STEP_STATE) */
    void *sum;    /* S (1) of squared gradients */
    int64_t *bad; /* (BUFFERS_LEARNT) the first gradient in each buffer that is not finite, or -1 */
};
static inline int choice_is(const char *choice, const char *what)
{
    return choice && !strcmp(choice, what);
}
/* micros: micro-batches of a step. */
void optim_init(struct optim *o, struct model *m, const struct optim_options *options,
                int64_t micros);
void optim_release(struct optim *o);
/* Before the first gradient of a step.  Weights of experts may then still be on their way, until a
 * layer's are awaited. */
void optim_begin(struct optim *o);
void optim_await(struct optim *o, int64_t layer);
/* Begins to sum gradients that are done over the ranks that share each tensor: those in a buffer of
 * what stands there in model.at. */
void optim_reduce_layer(struct optim *o, int64_t layer, enum mesh_buffer buffer);
/* Sums the rest, the embedding's; each rank then holds its shard of all sums, and the sum of the
 * shard's squares. */
void optim_reduce(struct optim *o);
/* Norm, verdict, update, and the new weights to everybody, but for those that come in the next
 * step, or by optim_whole(), which every rank calls before weights are used otherwise.  A step whose
 * norm or losses (the model's, summed over all ranks) are not finite changes nothing. */
void optim_step(struct optim *o);
void optim_whole(struct optim *o);
/* Where weights are of a coarser type than their masters: the masters become what the weights are.
 */
void optim_fill_master(struct optim *o);
void optim_set_count(struct optim *o, double committed);
/* Puts what lies on the device: ckpt_move() brings it to the host. */
void optim_save(const struct optim *o, struct ckpt_writer *w);
void optim_load(struct optim *o, struct ckpt *k);

/* ---- trainer.c, batches.c, step.c: one step ---- */

struct trainer_options {
    const char *device, *type, *loss; /* "cpu", "cuda"; "f32", "f64", "bf16" */
    const char *grads;                /* their type, "bf16"; "f32" or NULL: S */
    struct optim_options optim;
    int64_t batch, micro; /* packed rows: of a step over all ranks, of a micro-batch */
    int64_t seq;          /* tokens of a row */
    double aux, z;
    double further;  /* weight of the loss of layers that predict further tokens; 0: they are left out */
    double capacity; /* of experts, as the model's; 0: no choice is dropped */
    int64_t group;   /* packed rows of an accounting group; 0: 1 */
    double beta;     /* of dpo */
    const char *dispatch; /* as model_dispatch() takes it; NULL: "auto" */
    int64_t threads;
    int deterministic; /* the same bits again on this machine, also of libraries' kernels */
    int64_t step_bytes; /* what a step needs besides, as trainer_bytes() found; 0: not known */
};
/* One line of the log. */
struct step_result {
    double seconds; /* from when the step could begin to its end */
    double loss, aux, z, norm, lr, weight; /* weight: the denominator */
    double further;  /* mean loss of further tokens, of as many as the loss; NaN where none are predicted */
    double routed;   /* tokens that all routers saw, over all ranks */
    double dropped;  /* share of the router's choices; NaN where none may be */
    double won;      /* share of pairs in which the chosen one scores higher */
    double squares;  /* sum of squared document lengths, over all ranks */
    int64_t tokens;  /* live, over all ranks */
    int ok, skipped; /* committed; nothing to learn from (denominator 0) */
    int64_t bad[BUFFERS_LEARNT]; /* where not ok: the optimizer's, on this rank */
};
enum { ON_THEIR_WAY = 2 }; /* steps queued, at most, whose results have not been taken */
struct trainer {
    struct trainer_options o;
    struct world *world;
    struct mesh mesh;
    const struct loss *loss;
    struct lane lane;      /* of all that is computed */
    struct lane beside[LANES]; /* on a GPU that is not alone: of what travels meanwhile */
    struct lane *lanes[LANES]; /* these, or the one above */
    struct model model;
    struct optim optim;
    struct schedule schedule, eval;
    int64_t micros;          /* micro-batches of a step on this rank */
    struct batch_host *host; /* (micros) whole rows */
    struct batch *batch;     /* (micros) what this rank holds of them, on the device */
    struct batch_host part;  /* on the way there when CP > 1; and then, for losses on documents: */
    struct batch *further;   /* (micros, model.further) these as layers that predict further tokens see them */
    struct batch_host shift; /* on the way there */
    struct batch *whole;     /* (micros) the whole rows on the device */
    struct context context;
    struct heap kept; /* of slots where tokens travel on a lane of their own, else the lane's is */
    struct saved *saved; /* (in_flight, model_slots()) */
    struct event *reached; /* (schedule.n) tasks that the other lane waits for */
    int64_t spans;         /* of the fullest micro-batch of all ranks, rounded up */
    int rows_whole;        /* all rows of all ranks are whole (struct batch) */
    void *scalars;       /* S (4): denominator, coefficients of the router's losses, denominator of further
                          * tokens */
    struct stage {       /* scalars and batches, of alloc_host(), for the device to read */
        char *p;
        struct event read;
    } stage[2]; /* in turn, so that one is filled while the other is read */
    int64_t staged;
    struct step_on_its_way {
        struct step_result r;
        char *report; /* of alloc_host(): losses, the optimizer's state, its bad elements */
        struct event begun, done;
    } way[ON_THEIR_WAY];
    int64_t queued, taken;
    struct shape_capture { /* a step's work, kept by what its launches depend on */
        int64_t spans;
        int whole, ready; /* ready: all it needs is there */
        struct capture work;
    } *capture;
    int64_t captures;
    double scores[3]; /* of an evaluation: documents, sum of their scores, sum of squares */
};
/* Why the model, the batch or the sequences do not fit a mapping, or NULL; good until asked again. */
const char *trainer_fault(const struct mesh *m, const struct config *c,
                          const struct trainer_options *o);
/* What the options change in a model's configuration. */
void trainer_config(struct config *c, const struct trainer_options *o);
/* cfg is taken over.  Weights are zero until model_random(), model_load(). */
void trainer_init(struct trainer *t, struct world *w, const struct mesh *mesh, struct config *cfg,
                  const struct trainer_options *o);
void trainer_release(struct trainer *t);
/* Bytes of a GPU's memory that a trainer takes; cfg is taken over.  One rank alone that is given the
 * options after this takes all of them at once, else it takes more until its first steps are done.
 */
int64_t trainer_bytes(const struct mesh *mesh, struct config *cfg, struct trainer_options *o);
/* The rows of samples first .. first + batch of the mix, for the next step. */
void trainer_fetch(struct trainer *t, const struct mix *mix, int64_t first);
void trainer_gradients(struct trainer *t, struct step_result *r); /* forward, backward, reduction */
/* Queues a step and does not wait for it; results come in order.  At most ON_THEIR_WAY steps may be
 * queued and not taken. */
void trainer_queue(struct trainer *t);
void trainer_take(struct trainer *t, struct step_result *r);
void trainer_step(struct trainer *t, struct step_result *r); /* both at once */
/* Warns with this rank and the first tensor whose gradient was not finite. */
void trainer_blame(const struct trainer *t, const struct step_result *r, int64_t step);
/* Mean loss over every sequence of n sets; of a reward model also the mean and standard deviation of
 * its scores of whole documents, where moments is not NULL. */
double trainer_evaluate(struct trainer *t, struct set *const *set, int64_t n, double moments[2]);

/* ---- run.c, run_files.c: a run on disk (formats/ckpt.md) ---- */

struct run_options {
    struct trainer_options train;
    const char *out;          /* RUN/ */
    const char *model, *init; /* config.json, or a checkpoint to start from */
    struct strv data;         /* SET or SET=WEIGHT */
    const char *valid;
    int64_t steps, seed, save_every, keep, valid_every, max_bad_steps;
    double epochs;
    double deadline_s; /* of a collective between processes */
    int64_t ranks, tp, cp, pp, etp, ep;
    const char *pp_layout; /* as mesh_place() takes it; NULL: even */
    int eval_only;
    int status; /* set by run_train */
};
/* Trains to the end, or until a signal; returns the exit status.  The ranks are the processes of an
 * MPI job, or with ranks > 1 threads.  A micro or threads of 0 in train is chosen here. */
int run_train(struct run_options *o);

/* ---- agree.c ---- */

/* Rank 0's string, on every rank; caller frees.  What a file system shows may differ from rank to
 * rank. */
char *of_rank_0(struct comm *all, const char *s);
/* Dies (2) where a rank has another text than rank 0. */
void agree(struct comm *all, const char *what, const char *mine);
/* The program, what decides the run's results (run_identity()), the mapping, and when to save and
 * validate. */
void agree_setting(struct comm *all, const struct run_options *o, const char *identity);
/* The first member of the object `now` that `was` has otherwise or not at all: its name (caller
 * frees), or NULL; both values as text. */
char *identity_differs(struct json now, struct json was, struct buf *is, struct buf *other);

/* The files of a run; all paths are within it. */
char *run_step_dir(const char *run, int64_t step);
/* Publishes tmp (from dir_begin) as step-N, points `last` at it, removes all but the newest `keep`
 * (0 keeps all). */
void run_publish(const char *run, const char *tmp, int64_t step, int64_t keep);
/* The checkpoint folder RUN/last names, or NULL.  Caller frees. */
char *run_last(const char *run);

/* What decides a run's results, as JSON: two runs with the same are the same run.  Mapping,
 * threads, micro-batch and how often it saves are not in it. */
void run_identity(struct buf *out, const struct run_options *o, const struct config *c,
                  const struct mix *mix, int64_t steps);

#endif
