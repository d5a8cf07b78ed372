/* run.c -- a training run from its command line to done.json, resumed as often as it is stopped.
 *
 * Every rank executes run_rank(); rank 0 alone writes the log, the manifest and the links.  Decisions that
 * must agree (stop at a signal) are summed over the ranks at the end of a step. */
#include "train/train.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;

static void on_signal(int s)
{
    stop_signal = s;
}

struct run { /* one rank's view */
    const struct run_options *o;
    struct world *world;
    struct comm *all;
    struct mix mix;
    struct set *valid;
    struct trainer t;
    struct buf identity;
    int64_t steps;
    int64_t step;    /* done */
    int64_t skipped; /* of these, without an update: there was nothing to learn */
    int64_t samples; /* consumed: the cursor of the data */
    int64_t bad;     /* batches that were not finite and did not count as steps */
    double loss;     /* of the last step */
    double moments[2]; /* mean and sd of a reward model's scores of its training data */
    int log_fd;
    int status;
};

/* ---- data ---- */

/* Whether a comma-separated list has the name. */
static int lists(const char *list, const char *name, size_t len)
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, len) && (at[len] == ',' || !at[len]))
            return 1;
    return 0;
}

static void check_columns(const char *path, const struct set *s, const struct loss *loss)
{
    for (const char *at = loss->columns; at && *at;) {
        size_t len = strcspn(at, ",");
        if (!lists(set_info(s)->columns, at, len))
            die_misused("--loss %s needs the column %.*s, and %s has not got it", loss->name, (int)len, at,
                        path);
        at += len + (at[len] == ',');
    }
}

static void mix_open(struct run *r)
{
    const struct strv *data = &r->o->data;
    struct mix *x = &r->mix;
    x->n = data->n;
    x->seed = r->o->seed;
    x->set = xcalloc(x->n, sizeof *x->set);
    x->weight = xcalloc(x->n, sizeof *x->weight);
    for (int64_t i = 0; i < x->n; i++) {
        char *path = xstrdup(data->v[i]), *eq = strrchr(path, '='), *end = "";
        x->weight[i] = 1;
        if (eq) {
            *eq = 0;
            x->weight[i] = strtoll(eq + 1, &end, 10);
        }
        if (*end || x->weight[i] < 1)
            die_misused("--data %s: the weight after '=' must be a whole number from 1", data->v[i]);
        x->set[i] = set_open(path);
        check_columns(path, x->set[i], loss_find(r->o->train.loss));
        if (!set_sequences(x->set[i]))
            die("%s: the set has no packed sequence", path);
        const struct set_info *a = set_info(x->set[0]), *b = set_info(x->set[i]);
        if (a->seq != b->seq || strcmp(a->tokenizer_hash, b->tokenizer_hash) ||
            strcmp(a->template, b->template))
            die_misused("%s and %s disagree: sequence length %lld and %lld, tokenizer %s and %s, "
                        "template %s and %s",
                        data->v[0], data->v[i], (long long)a->seq, (long long)b->seq, a->tokenizer_hash,
                        b->tokenizer_hash, a->template, b->template);
        free(path);
    }
}

static int64_t count_sequences(const struct mix *x)
{
    int64_t n = 0;
    for (int64_t i = 0; i < x->n; i++)
        n += set_sequences(x->set[i]);
    return n;
}

/* ---- starting ---- */

/* A model that reads ids made by another tokenizer trains on noise: refused. */
static void check_tokenizer(const struct run *r, const struct ckpt *k)
{
    char hash[17], *path = path_join(ckpt_path(k), "tokenizer.json");
    if (path_exists(path)) {
        struct buf text = read_file(path);
        hash_hex(hash, hash_xxh3(text.data, text.len));
        if (strcmp(hash, set_info(r->mix.set[0])->tokenizer_hash))
            die_misused("%s has tokenizer %s, but the data was packed with %s", ckpt_path(k), hash,
                        set_info(r->mix.set[0])->tokenizer_hash);
        buf_release(&text);
    }
    free(path);
}

static void config_from(const struct run *r, const char *resume, struct config *c)
{
    const char *from = resume ? resume : r->o->init;
    if (from) {
        struct ckpt *k = ckpt_open(from);
        ckpt_config(k, c);
        check_tokenizer(r, k);
        ckpt_close(k);
    } else if (r->o->model) {
        struct buf text = read_file(r->o->model);
        config_parse(c, text.data, text.len, r->o->model);
        buf_release(&text);
    } else {
        die_misused("give --model CONFIG for a new model or --init CHECKPOINT to start from one");
    }
    if (loss_find(r->o->train.loss)->reward)
        c->reward = 1;
}

/* Names the first option in which a run differs from what its checkpoint says. */
static void check_identity(const struct run *r, struct json was, const char *path)
{
    struct json_doc *doc = json_doc_new();
    struct json now, old;
    struct json_iter i;
    const char *why;
    if (json_parse(doc, r->identity.data, r->identity.len, &now, &why))
        die("internal error: %s", why);
    for (json_iter_init(&i, now); json_iter_next(&i);) {
        struct buf a = {0}, b = {0};
        char *key = xstrndup(i.key, i.key_len);
        json_write(&a, i.value);
        if (json_get(was, key, &old))
            json_write(&b, old);
        if (!b.data || strcmp(a.data, b.data))
            die_misused("%s was begun with %s %s, and this command says %s: use the same, or another -o",
                        path, key, b.data ? b.data : "(none)", a.data);
        buf_release(&a), buf_release(&b), free(key);
    }
    json_doc_free(doc);
}

static int64_t state_int(const struct ckpt *k, const char *key)
{
    struct json v;
    int64_t x;
    if (!json_get(ckpt_state(k), key, &v) || json_int(v, &x))
        die_damaged("%s/manifest.json: the state has no integer \"%s\"", ckpt_path(k), key);
    return x;
}

static void resume_from(struct run *r, const char *dir)
{
    struct ckpt *k = ckpt_open(dir);
    struct json was;
    if (!json_get(ckpt_state(k), "run", &was))
        die_damaged("%s/manifest.json: the state has no \"run\"", dir);
    check_identity(r, was, r->o->out);
    r->step = state_int(k, "step");
    r->samples = state_int(k, "samples");
    r->skipped = state_int(k, "skipped_steps");
    r->bad = state_int(k, "bad_steps");
    if (json_get(ckpt_state(k), "loss", &was))
        json_real(was, &r->loss);
    model_load(&r->t.model, k, -1);
    optim_load(&r->t.optim, k);
    optim_set_count(&r->t.optim, r->step - r->skipped);
    ckpt_close(k);
}

static void start_model(struct run *r, const char *resume)
{
    if (resume) {
        resume_from(r, resume);
    } else if (r->o->init) {
        struct ckpt *k = ckpt_open(r->o->init);
        if (r->t.model.cfg.reward)
            model_random(&r->t.model, r->o->seed); /* for the score, should it be new */
        model_load(&r->t.model, k, P_SCORE);
        ckpt_close(k);
    } else {
        model_random(&r->t.model, r->o->seed);
    }
}

/* Micro-batch and threads where they are left to choose: each rank's whole share of rows; the machine's
 * cores shared among its processes, unless the launcher has already bound each to its own. */
static void choose_defaults(const struct run *r, const struct mesh *m, struct trainer_options *t)
{
    int64_t processes = world_local(r->world) / r->o->ranks, threads = opt_threads();
    if (t->micro == 0)
        t->micro = t->batch % m->dp ? 1 : t->batch / m->dp;
    if (processes > 1)
        threads = MIN(threads, sysconf(_SC_NPROCESSORS_ONLN) / processes);
    if (t->threads == 0)
        t->threads = MAX(threads / r->o->ranks, 1);
}

/* ---- saving ---- */

static void write_loss(struct buf *b, double loss)
{
    if (isfinite(loss))
        json_number(b, loss);
    else
        buf_str(b, "null");
}

static void save_state(const struct run *r, struct buf *b)
{
    const char *template = set_info(r->mix.set[0])->template;
    buf_printf(b, "{\"step\":%lld,\"skipped_steps\":%lld,\"bad_steps\":%lld,\"samples\":%lld,\"loss\":",
               (long long)r->step, (long long)r->skipped, (long long)r->bad, (long long)r->samples);
    write_loss(b, r->loss);
    buf_str(b, ",\"template\":");
    json_quote(b, template, strlen(template));
    if (r->t.loss->reward) { /* what a score is normalised by when it is used */
        buf_str(b, ",\"reward_mean\":");
        json_number(b, r->moments[0]);
        buf_str(b, ",\"reward_sd\":");
        json_number(b, r->moments[1]);
    }
    buf_printf(b, ",\"run\":%s}", r->identity.data);
}

static void copy_set_files(const struct run *r, const char *dir)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "tags.json"};
    for (int64_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct buf *text = set_file(r->mix.set[0], names[i]);
        if (!text)
            continue;
        char *path = path_join(dir, names[i]);
        write_file(path, text->data, text->len);
        free(path);
    }
}

static void save(struct run *r)
{
    int n = world_size(r->world), rank = world_rank(r->world);
    char *dir = run_step_dir(r->o->out, r->step), *begun = rank == 0 ? dir_begin(dir) : xstrdup("");
    char *tmp = of_rank_0(r->all, begun);
    int64_t *len = xmalloc(n * sizeof *len);
    char **part = xmalloc(n * sizeof *part);

    if (r->t.loss->reward)
        trainer_evaluate(&r->t, r->mix.set[0], r->moments);
    struct ckpt_writer *w = ckpt_writer_open(tmp, rank, n);
    struct model *m = &r->t.model;
    enum dtype type = m->op->real;
    for (int64_t i = 0; i < m->layout.n; i++)
        if (m->layout.local[i].writes)
            ckpt_put(w, "model", m->layout.local[i].p, m->layout.local[i].r,
                     model_weight(m, &m->layout.local[i]), type, type);
    optim_save(&r->t.optim, w);
    char *mine = ckpt_writer_close(w);
    comm_gather_bytes(r->all, mine, strlen(mine) + 1, part, len);
    if (rank == 0) {
        struct buf state = {0};
        save_state(r, &state);
        copy_set_files(r, tmp);
        ckpt_manifest_write(tmp, part, n, state.data, &m->cfg, type);
        run_publish(r->o->out, tmp, r->step, r->o->keep);
        buf_release(&state);
    }
    comm_barrier(r->all);
    for (int i = 0; i < n; i++)
        free(part[i]);
    free(dir), free(begun), free(tmp), free(len), free(part), free(mine);
}

static void write_status(const struct run *r, const char *state, int code)
{
    struct buf b = {0};
    char *path = path_join(r->o->out, "status.json");
    buf_printf(&b, "{\"state\":\"%s\",\"exit\":%d,\"step\":%lld}\n", state, code, (long long)r->step);
    write_file(path, b.data, b.len);
    buf_release(&b), free(path);
}

static void write_done(const struct run *r)
{
    struct buf b = {0};
    char *path = path_join(r->o->out, "done.json");
    buf_printf(&b, "{\"step\":%lld,\"loss\":", (long long)r->step);
    write_loss(&b, r->loss);
    buf_printf(&b, ",\"checkpoint\":\"step-%06lld\",\"run\":%s}\n", (long long)r->step, r->identity.data);
    write_file(path, b.data, b.len);
    buf_release(&b), free(path);
}

/* ---- the log ---- */

static void append(int fd, const struct buf *b, const char *path)
{
    if (write_all(fd, b->data, b->len))
        die("write %s:", path);
}

static void log_open(struct run *r, int64_t sequence_length)
{
    const struct config *c = &r->t.model.cfg;
    struct work work = meter_work(c);
    struct param_counts n = meter_params(c);
    double s = sequence_length;
    char *path = path_join(r->o->out, "log.jsonl");
    /* before its first checkpoint a run has nothing to go on from, and its log begins anew */
    int fresh = r->step == 0 || !path_exists(path);
    if (!fresh)
        meter_log_cut(path, r->step);
    r->log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0666);
    if (r->log_fd < 0)
        die("open %s:", path);
    if (fresh) {
        struct buf b = {0};
        struct log_head h = {.config = r->identity.data,
                             .flops_token = meter_flops(&work, s, s * s, COUNT_CAUSAL) / s,
                             .flops_square = work.square, .params = n.total, .active = n.active,
                             .data = (char *)set_hash(r->mix.set[0])};
        meter_head_write(&b, &h);
        append(r->log_fd, &b, path);
        buf_release(&b);
    }
    free(path);
}

static void log_step(struct run *r, const struct step_result *s, double ms, double seconds)
{
    struct work work = meter_work(&r->t.model.cfg);
    double flops = meter_flops(&work, s->tokens, s->squares, COUNT_CAUSAL);
    struct step_line line = {.step = r->step, .loss = s->loss, .aux = s->aux, .z = s->z, .lr = s->lr,
                             .grad_norm = s->norm, .tokens = s->tokens, .step_ms = ms,
                             .tflops = flops / ms / 1e9, .ok = s->ok, .seconds = seconds,
                             .won = r->t.loss->pairs ? s->won : NAN, .squares = s->squares};
    struct buf b = {0};
    meter_step_write(&b, &line);
    append(r->log_fd, &b, "log.jsonl");
    buf_release(&b);
}

static void log_valid(struct run *r, double loss, double seconds)
{
    struct valid_line line = {.step = r->step, .loss = loss, .seconds = seconds};
    struct buf b = {0};
    meter_valid_write(&b, &line);
    append(r->log_fd, &b, "log.jsonl");
    buf_release(&b);
}

/* ---- the loop ---- */

static double validate(struct run *r)
{
    double loss = trainer_evaluate(&r->t, r->valid, NULL);
    if (world_rank(r->world) == 0)
        say("step %lld: validation loss %.4f", (long long)r->step, loss);
    return loss;
}

static int any_signal(struct run *r)
{
    int64_t s = stop_signal;
    comm_all_reduce(r->all, NULL, &s, 1, DT_I64, COMM_MAX);
    return s != 0;
}

/* One batch: an update, or nothing to learn, or something that is not finite and changes nothing. */
static int train_batch(struct run *r, struct step_result *s)
{
    int rank = world_rank(r->world);
    trainer_step(&r->t, &r->mix, r->samples, s);
    r->samples += r->t.o.batch; /* what is not finite is not tried again on the same rows */
    if (!s->ok && !s->skipped) {
        trainer_blame(&r->t, r->step + 1);
        comm_barrier(r->all); /* every rank has said what it found */
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

static void loop(struct run *r)
{
    const struct run_options *o = r->o;
    int rank = world_rank(r->world);
    struct progress progress;
    double begun = clock_s();
    int64_t saved = r->step;
    progress_start(&progress, "train", "step", r->steps);
    progress.done = r->step;
    while (r->step < r->steps) {
        struct step_result s;
        double start = clock_s();
        int counts = train_batch(r, &s);
        if (rank == 0) {
            log_step(r, &s, (clock_s() - start) * 1e3, clock_s() - begun);
            progress_add(&progress, counts);
        }
        if (counts && r->valid && o->valid_every > 0 && r->step % o->valid_every == 0) {
            double loss = validate(r);
            if (rank == 0)
                log_valid(r, loss, clock_s() - begun);
        }
        int stop = any_signal(r);
        if (saved < r->step && (stop || r->step == r->steps ||
                                (o->save_every > 0 && r->step % o->save_every == 0))) {
            save(r);
            saved = r->step;
        }
        if (stop && r->step < r->steps) {
            if (rank == 0)
                write_status(r, "saved", EXIT_AGAIN);
            r->status = EXIT_AGAIN;
            return;
        }
    }
    if (rank == 0) {
        progress_end(&progress);
        write_status(r, "done", EXIT_DONE);
        write_done(r);
    }
}

/* 1 when RUN/done.json says that this very run has ended. */
static int finished(const struct run *r)
{
    char *path = path_join(r->o->out, "done.json");
    int there = path_exists(path);
    comm_broadcast(r->all, NULL, &there, sizeof there, 0);
    if (there) {
        struct buf text = read_file(path);
        struct json_doc *doc = json_doc_new();
        struct json root, run;
        const char *why;
        if (json_parse(doc, text.data, text.len, &root, &why) || !json_get(root, "run", &run))
            die_damaged("%s: not a done.json of moe-train", path);
        check_identity(r, run, r->o->out);
        json_doc_free(doc);
        buf_release(&text);
    }
    free(path);
    return there;
}

static void run_rank(struct world *world, void *arg)
{
    struct run_options *o = arg;
    struct run r = {.o = o, .world = world, .log_fd = -1, .loss = NAN};
    struct mesh mesh;
    struct config cfg;
    int n = world_size(world), *ranks = xmalloc(n * sizeof *ranks);

    const char *why = mesh_init(&mesh, n, world_rank(world), o->tp, o->cp, o->pp, o->etp, o->ep);
    if (!why && o->pp_layout)
        why = mesh_place(&mesh, o->pp_layout);
    if (why)
        die_misused("this mapping does not fit %d ranks: %s", n, why);
    for (int i = 0; i < n; i++)
        ranks[i] = i;
    r.all = comm_new(world, "run", ranks, n);
    free(ranks);

    mix_open(&r);
    if (o->valid)
        r.valid = set_open(o->valid);
    char *last = o->out ? run_last(o->out) : NULL, *resume = of_rank_0(r.all, last ? last : "");
    free(last);
    if (!*resume)
        free(resume), resume = NULL;
    config_from(&r, resume, &cfg);
    struct trainer_options t = o->train;
    t.seq = set_info(r.mix.set[0])->seq;
    r.steps = o->steps > 0 ? o->steps : ceil(o->epochs * count_sequences(&r.mix) / t.batch);
    t.plan.steps = r.steps;
    choose_defaults(&r, &mesh, &t);
    agree_setting(r.all, o, &mesh, &t);
    trainer_init(&r.t, world, &mesh, &cfg, &t);
    run_identity(&r.identity, o, &r.t.model.cfg, &r.mix, r.steps);
    agree(r.all, "run", r.identity.data);

    if (o->eval_only) {
        start_model(&r, NULL);
        validate(&r);
    } else if (finished(&r)) {
        if (world_rank(world) == 0)
            say("%s is finished", o->out);
    } else {
        start_model(&r, resume);
        if (resume && world_rank(world) == 0)
            say("%s: resumed at step %lld", o->out, (long long)r.step);
        if (world_rank(world) == 0)
            log_open(&r, t.seq);
        loop(&r);
    }

    __atomic_store_n(&o->status, r.status, __ATOMIC_RELAXED); /* every rank has the same */
    if (r.log_fd >= 0)
        close(r.log_fd);
    trainer_release(&r.t);
    for (int64_t i = 0; i < r.mix.n; i++)
        set_close(r.mix.set[i]);
    if (r.valid)
        set_close(r.valid);
    free(r.mix.set), free(r.mix.weight), free(resume);
    buf_release(&r.identity);
    comm_free(r.all);
}

int run_train(struct run_options *o)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    struct world *w = world_open(o->deadline_s);
    if (o->ranks < 1 || (o->ranks > 1 && world_size(w) > 1))
        die_misused("--ranks %lld: ranks as threads are at least 1, and 1 where %d processes are the ranks",
                    (long long)o->ranks, world_size(w));
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
