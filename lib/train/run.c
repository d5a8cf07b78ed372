/* run.c -- a training run from its command line to done.json, resumed as often as it is stopped.
 *
 * Every rank executes run_rank(); rank 0 alone writes the log, the manifest and the links.
 * Decisions that must agree (stop at a signal, end a save) are taken together at the end of a step.
 */
#include "train/run_priv.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>

enum { THREADS_MAX = 1024 }; /* ranks: each pair of them has a mailbox in each group */

static volatile sig_atomic_t stop_signal;

static void on_signal(int s)
{
    stop_signal = s;
}

static double validate(struct run *r)
{
    double loss = trainer_evaluate(&r->t, &r->valid, 1, NULL);
    if (world_rank(r->world) == 0)
        say("step %lld: validation loss %.4f", (long long)r->step, loss);
    return loss;
}

static void print_loss(const struct run *r, double loss)
{
    struct buf b = {0};
    if (world_rank(r->world) != 0)
        return;
    json_number(&b, loss);
    struct out *o = out_open(NULL);
    out_printf(o, "%s\n", b.data);
    out_close(o);
    buf_release(&b);
}

/* Whether a rank was told to stop.  Where the files of a checkpoint are all written it goes on to
 * be published. */
static int any_signal(struct run *r)
{
    int64_t x[2] = {stop_signal, run_save_unwritten(r)};
    comm_all_reduce(r->all, NULL, x, 2, DT_I64, COMM_MAX);
    if (!x[1])
        run_save_gather(r);
    return x[0] != 0;
}

/* What came of the oldest batch that is queued: an update, or nothing to learn, or something that
 * is not finite, changed nothing and is not tried again on the same rows. */
static int take_step(struct run *r, struct step_result *s)
{
    int rank = world_rank(r->world);
    trainer_take(&r->t, s);
    if (!s->ok && !s->skipped) {
        trainer_blame(&r->t, s, r->step + 1);
        if (r->bad >= r->o->max_bad_steps)
            run_save_finish(r); /* which is good, whatever came after it */
        comm_barrier(r->all);   /* every rank has said what it found */
        if (++r->bad > r->o->max_bad_steps && rank == 0)
            die("step %lld did not commit (loss %g); %lld bad steps, --max-bad-steps %lld",
                (long long)r->step + 1, s->loss, (long long)r->bad, (long long)r->o->max_bad_steps);
        comm_barrier(r->all);
        return 0;
    }
    r->step++;
    r->loss = s->loss;
    r->skipped += s->skipped;
    if (s->skipped && rank == 0)
        warn("step %lld: no token of this batch is learnt (all weights are 0): skipped",
             (long long)r->step);
    return 1;
}

static int is_due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

/* The run's last words, in files and to whoever is there; rank 0. */
static void run_end(const struct run *r)
{
    int done = r->status == EXIT_DONE;
    say("%s: step %lld of %lld, loss %.4f%s", r->o->out, (long long)r->step, (long long)r->steps,
        r->loss, done ? "" : "; saved: run the same command again");
    run_status_write(r, done ? "done" : "saved", r->status);
    if (done)
        run_done_write(r);
}

/* While the device works on one step the next is queued, so that it never waits; the result is then
 * read a step late.  What may follow a step (a save, a validation, the end) is the exception:
 * before it nothing further is queued, so that it finds things as that step left them.  A step that
 * does not commit is not counted, so those queued after it have lower numbers than was thought;
 * none skips a number. */
static void loop(struct run *r)
{
    const struct run_options *o = r->o;
    int rank = world_rank(r->world), stop = 0;
    struct progress progress;
    double begun = clock_s();
    int64_t saved = r->step, queued = 0;
    progress_start(&progress, "train", "step", r->steps);
    progress_resume(&progress, r->step);
    while (r->step < r->steps) {
        struct step_result s;
        int64_t last = r->step + queued; /* its number, if all commit */
        int halt =
            queued && (is_due(last, o->save_every) || (r->valid && is_due(last, o->valid_every)));
        if (queued < ON_THEIR_WAY && last < r->steps && !halt && !stop) {
            trainer_fetch(&r->t, &r->mix, r->samples);
            trainer_queue(&r->t);
            r->samples += r->t.o.batch;
            queued++;
            continue;
        }
        int counts = take_step(r, &s);
        queued--;
        if (rank == 0) {
            run_log_step(r, &s, s.seconds * 1e3, clock_s() - begun);
            progress_add(&progress, counts);
        }
        if (counts && r->valid && is_due(r->step, o->valid_every)) {
            double loss = validate(r);
            if (rank == 0)
                run_log_valid(r, loss, clock_s() - begun);
        }
        stop |= any_signal(r);
        if (queued)
            continue;
        if (saved < r->step && (stop || r->step == r->steps || is_due(r->step, o->save_every))) {
            run_save(r, !stop && r->step < r->steps);
            saved = r->step;
        }
        if (stop && r->step < r->steps) {
            r->status = EXIT_AGAIN;
            break;
        }
    }
    if (rank == 0) {
        progress_end(&progress);
        run_end(r);
    }
}

static void run_close(struct run *r)
{
    if (r->log_fd >= 0)
        close(r->log_fd);
    run_save_release(r);
    if (r->side)
        ckpt_side_free(r->side);
    trainer_release(&r->t);
    for (int64_t i = 0; i < r->mix.n; i++)
        set_close(r->mix.set[i]);
    if (r->valid)
        set_close(r->valid);
    free(r->mix.set), free(r->mix.weight);
    buf_release(&r->identity);
    comm_free(r->all);
}

static void run_rank(struct world *world, void *arg)
{
    struct run_options *o = arg;
    struct run r = {.o = o, .world = world, .log_fd = -1, .loss = NAN};
    run_save_init(&r);
    struct mesh mesh;
    struct config cfg;
    int n = world_size(world), *ranks = xmalloc(n * sizeof *ranks);

    for (int i = 0; i < n; i++)
        ranks[i] = i;
    r.all = comm_new(world, "run", ranks, n);
    free(ranks);

    run_sets_open(&r);
    char *last = o->out ? run_last(o->out) : NULL, *resume = of_rank_0(r.all, last ? last : "");
    free(last);
    if (!*resume)
        free(resume), resume = NULL;
    int64_t left_out = run_config(&r, resume, &cfg);
    if (left_out && world_rank(world) == 0)
        warn("this run leaves out the layers that predict further tokens (%lld)",
             (long long)left_out);
    struct trainer_options t = o->train;
    t.seq = set_info(r.mix.set[0])->seq;
    r.steps = o->steps > 0 ? o->steps : ceil(o->epochs * run_sequences(&r.mix) / t.batch);
    t.optim.plan.steps = r.steps;
    t.optim.seed = o->seed;
    run_identity(&r.identity, o, &cfg, &r.mix, r.steps);
    agree_setting(r.all, o, r.identity.data);
    run_map(&r, &cfg, &t, &mesh);
    run_memory(&r, resume, &mesh, &t);
    trainer_init(&r.t, world, &mesh, &cfg, &t);
    if (opt_verbose && world_rank(world) == 0 && comm_size(r.t.model.comm[GROUP_ETP_EP]) > 1)
        say("tokens reach the ranks of their experts by --dispatch %s",
            model_dispatch_name(&r.t.model));

    if (o->eval_only) {
        run_start(&r, NULL);
        print_loss(&r, validate(&r));
    } else if (run_finished(&r)) {
        if (world_rank(world) == 0)
            say("%s is finished", o->out);
    } else {
        run_start(&r, resume);
        if (resume && world_rank(world) == 0)
            say("%s: resumed at step %lld", o->out, (long long)r.step);
        if (world_rank(world) == 0)
            run_log_open(&r, t.seq);
        loop(&r);
    }

    __atomic_store_n(&o->status, r.status, __ATOMIC_RELAXED); /* every rank has the same */
    free(resume);
    run_close(&r);
}

int run_train(struct run_options *o)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM), sigaddset(&ours, SIGUSR1);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    sigprocmask(SIG_UNBLOCK, &ours, NULL); /* whoever started this may have blocked them */
    struct world *w = world_open(o->deadline_s);
    if (o->ranks < 1 || o->ranks > THREADS_MAX || (o->ranks > 1 && world_size(w) > 1))
        die_misused("--ranks %lld: ranks as threads are 1 to %d, and 1 where %d processes are the "
                    "ranks",
                    (long long)o->ranks, THREADS_MAX, world_size(w));
    if (o->out && world_rank(w) == 0) {
        make_dirs(o->out);
        char *lock = path_join(o->out, ".lock");
        lock_take(lock);
        free(lock);
    }
    if (o->ranks == 1)
        run_rank(w, o);
    world_free(w);
    if (o->ranks > 1)
        world_threads(o->ranks, run_rank, o);
    return o->status;
}
