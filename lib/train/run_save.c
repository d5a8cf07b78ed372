/* run_save.c -- checkpoints of a run, and the small files that say how it stands.
 *
 * A save stops training for as long as it takes to copy what is saved; a thread of each rank then
 * writes the copy.  Threads send no messages: the ranks, which agree on when to stop at the end of
 * every step, agree there also that all files are written, and hand rank 0 what its thread needs to
 * write the manifest and to publish. */
#include "train/run_priv.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    buf_printf(
        b, "{\"step\":%lld,\"skipped_steps\":%lld,\"bad_steps\":%lld,\"samples\":%lld,\"loss\":",
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

static void write_side(const struct run *r, const char *dir)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "tags.json"};
    if (r->side)
        ckpt_side_write(r->side, dir);
    for (int64_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct buf *text = run_set_file(r, names[i]);
        if (!text)
            continue;
        char *path = path_join(dir, names[i]);
        write_file(path, text->data, text->len);
        free(path);
    }
}

/* ---- a checkpoint, written beside the training ---- */

static void set_flag(struct saving *s, int *flag)
{
    pthread_mutex_lock(&s->lock);
    *flag = 1;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
}

static int get_flag(struct saving *s, const int *flag)
{
    pthread_mutex_lock(&s->lock);
    int x = *flag;
    pthread_mutex_unlock(&s->lock);
    return x;
}

static void wait_flag(struct saving *s, const int *flag)
{
    pthread_mutex_lock(&s->lock);
    while (!*flag)
        pthread_cond_wait(&s->change, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* The thread of every rank writes its files; rank 0's then waits for the others' and publishes. */
static void *write_main(void *arg)
{
    struct run *r = arg;
    struct saving *s = &r->saving;
    int n = world_size(r->world);
    s->part = ckpt_writer_close(s->writer);
    set_flag(s, &s->written);
    if (world_rank(r->world) > 0)
        return NULL;
    wait_flag(s, &s->ready);
    write_side(r, s->tmp);
    run_log_sync(r);
    ckpt_manifest_write(s->tmp, s->parts, n, s->state.data, &r->t.model.cfg, r->t.model.op->real);
    run_publish(r->o->out, s->tmp, s->step, r->o->keep);
    set_flag(s, &s->done);
    return NULL;
}

int run_save_unwritten(struct run *r)
{
    return r->saving.begun && !r->saving.gathered && !get_flag(&r->saving, &r->saving.written);
}

void run_save_gather(struct run *r)
{
    struct saving *s = &r->saving;
    int n = world_size(r->world), rank = world_rank(r->world);
    if (!s->begun || s->gathered)
        return;
    int64_t *len = xmalloc(n * sizeof *len);
    s->parts = xmalloc(n * sizeof *s->parts);
    comm_gather_bytes(r->all, s->part, strlen(s->part) + 1, s->parts, len);
    s->gathered = 1;
    if (rank == 0)
        set_flag(s, &s->ready);
    free(len);
}

void run_save_finish(struct run *r)
{
    struct saving *s = &r->saving;
    if (!s->begun)
        return;
    wait_flag(s, &s->written);
    run_save_gather(r);
    if ((errno = pthread_join(s->thread, NULL)))
        die("the thread that saves:");
    for (int i = 0; i < world_size(r->world); i++)
        free(s->parts[i]);
    free(s->parts), free(s->part), free(s->tmp);
    buf_reset(&s->state);
    s->begun = s->gathered = s->written = s->ready = s->done = 0;
}

static void *copy_out(void *arg, const void *data, int64_t bytes)
{
    struct run *r = arg;
    struct saving *s = &r->saving;
    char *to = s->copy + s->copied;
    r->t.lane.dev->get_later(&r->t.lane, to, data, bytes);
    s->copied += bytes;
    return to;
}

/* What is saved, out of the way of what will change it. */
static void copy_all(struct run *r)
{
    struct saving *s = &r->saving;
    const struct dev_ops *dev = r->t.lane.dev;
    int64_t bytes = ckpt_writer_bytes(s->writer);
    if (bytes > s->copy_bytes) {
        if (s->copy)
            dev->free_host(s->copy);
        s->copy = dev->alloc_host(bytes);
        s->copy_bytes = bytes;
    }
    s->copied = 0;
    ckpt_move(s->writer, copy_out, r);
    dev->wait(&r->t.lane);
}

void run_save(struct run *r, int goes_on)
{
    struct saving *s = &r->saving;
    struct model *m = &r->t.model;
    int rank = world_rank(r->world);
    if (r->t.loss->reward)
        trainer_evaluate(&r->t, r->mix.set, r->mix.n, r->moments);
    double begun = clock_s();
    int waited = s->begun && !get_flag(s, &s->done);
    run_save_finish(r);

    char *dir = run_step_dir(r->o->out, r->step), *tmp = rank == 0 ? dir_begin(dir) : xstrdup("");
    s->tmp = of_rank_0(r->all, tmp);
    s->step = r->step;
    save_state(r, &s->state);
    optim_whole(&r->t.optim);
    s->writer = ckpt_writer_open(s->tmp, rank, world_size(r->world));
    for (int64_t i = 0; i < m->layout.n; i++) {
        const struct local *l = &m->layout.local[i];
        enum dtype type = model_type(m, l->buffer);
        if (l->writes)
            ckpt_put(s->writer, "model", l->p, l->r, model_weight(m, l), type, type);
    }
    optim_save(&r->t.optim, s->writer);
    int64_t bytes = ckpt_writer_bytes(s->writer);
    if (goes_on || !r->t.lane.dev->is_host)
        copy_all(r);
    if ((errno = pthread_create(&s->thread, NULL, write_main, r)))
        die("a thread that saves:");
    s->begun = 1;
    if (!goes_on)
        run_save_finish(r);
    if (rank == 0)
        run_log_save(r, (clock_s() - begun) * 1e3, waited, bytes);
    free(dir), free(tmp);
}

void run_save_init(struct run *r)
{
    pthread_mutex_init(&r->saving.lock, NULL);
    pthread_cond_init(&r->saving.change, NULL);
}

void run_save_release(struct run *r)
{
    struct saving *s = &r->saving;
    if (s->copy)
        r->t.lane.dev->free_host(s->copy);
    buf_release(&s->state);
    pthread_cond_destroy(&s->change);
    pthread_mutex_destroy(&s->lock);
}

/* ---- how a run stands ---- */

void run_status_write(const struct run *r, const char *state, int code)
{
    struct buf b = {0};
    char *path = path_join(r->o->out, "status.json");
    buf_printf(&b, "{\"state\":\"%s\",\"exit\":%d,\"step\":%lld}\n", state, code,
               (long long)r->step);
    write_file(path, b.data, b.len);
    buf_release(&b), free(path);
}

void run_done_write(const struct run *r)
{
    struct buf b = {0};
    char *path = path_join(r->o->out, "done.json");
    buf_printf(&b, "{\"step\":%lld,\"loss\":", (long long)r->step);
    write_loss(&b, r->loss);
    buf_printf(&b, ",\"checkpoint\":\"step-%06lld\",\"run\":%s}\n", (long long)r->step,
               r->identity.data);
    write_file(path, b.data, b.len);
    buf_release(&b), free(path);
}
