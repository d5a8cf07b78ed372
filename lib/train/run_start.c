/* run_start.c -- where a run begins: a new model, the weights of another, or its own last
 * checkpoint, which must be of the very run that the command line describes. */
#include "train/run_priv.h"

#include <stdlib.h>
#include <string.h>

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

int64_t run_config(const struct run *r, const char *resume, struct config *c)
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
    int64_t further = c->further;
    trainer_config(c, &r->o->train);
    return further - c->further;
}

void run_memory(struct run *r, const char *resume, const struct mesh *m, struct trainer_options *t)
{
    struct config c;
    struct dev_memory there;
    if (dev_missing(t->device))
        return;
    dev_open(t->device)->memory(&there);
    if (there.left < 0)
        return;
    run_config(r, resume, &c);
    r->memory = trainer_bytes(m, &c, t);
    if (r->memory > there.left)
        die("the run needs %.1f GiB of memory on the device, and %.1f GiB are free: a smaller "
            "--micro, --moments bf16, --grads bf16 or --master none take less",
            (double)r->memory / (1 << 30), (double)there.left / (1 << 30));
}

/* Names the first option in which a run differs from what its checkpoint says. */
static void check_identity(const struct run *r, struct json was, const char *path)
{
    struct json_doc *doc = json_doc_new();
    struct json now;
    struct buf a = {0}, b = {0};
    const char *why;
    if (json_parse(doc, r->identity.data, r->identity.len, &now, &why))
        die("internal error: %s", why);
    char *key = identity_differs(now, was, &a, &b);
    if (key)
        die_misused(
            "%s was begun with %s %s, and this command says %s: use the same, or another -o", path,
            key, b.data, a.data);
    buf_release(&a), buf_release(&b);
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

/* The data's tokenizer is that of the weights, so its other files, and those of generation, go on
 * too; tags are the data's own. */
static void take_side(struct run *r, const struct ckpt *k)
{
    if (world_rank(r->world) == 0)
        r->side = ckpt_side_read(ckpt_path(k), "tags.json");
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
    take_side(r, k);
    ckpt_close(k);
}

void run_start(struct run *r, const char *resume)
{
    if (resume) {
        resume_from(r, resume);
    } else if (r->o->init) {
        struct ckpt *k = ckpt_open(r->o->init);
        if (r->t.model.cfg.reward)
            model_random(&r->t.model, r->o->seed); /* for the score, should it be new */
        model_load(&r->t.model, k, P_SCORE);
        take_side(r, k);
        ckpt_close(k);
    } else {
        model_random(&r->t.model, r->o->seed);
    }
    if (!resume)
        optim_fill_master(&r->t.optim);
}

/* 1 when RUN/done.json says that this very run has ended. */
int run_finished(const struct run *r)
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
