/* run_log.c -- log.jsonl: a line a step, written by rank 0 with one write each. */
#include "train/run_priv.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static void append(int fd, const struct buf *b, const char *path)
{
    if (write_all(fd, b->data, b->len))
        die("write %s:", path);
}

void run_log_open(struct run *r, int64_t sequence_length)
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
                             .flops_square = work.square,
                             .params = n.total,
                             .active = n.active,
                             .data = (char *)set_hash(r->mix.set[0]),
                             .memory = r->memory ? (double)r->memory : NAN};
        meter_head_write(&b, &h);
        append(r->log_fd, &b, path);
        buf_release(&b);
    }
    free(path);
}

void run_log_step(struct run *r, const struct step_result *s, double ms, double seconds)
{
    struct work work = meter_work(&r->t.model.cfg);
    double flops = meter_flops(&work, s->tokens, s->squares, COUNT_CAUSAL);
    struct step_line line = {.step = r->step,
                             .loss = s->loss,
                             .aux = s->aux,
                             .z = s->z,
                             .lr = s->lr,
                             .grad_norm = s->norm,
                             .tokens = s->tokens,
                             .step_ms = ms,
                             .tflops = flops / ms / 1e9,
                             .ok = s->ok,
                             .seconds = seconds,
                             .mtp_loss = s->further,
                             .dropped = s->dropped,
                             .won = r->t.loss->pairs ? s->won : NAN,
                             .squares = s->squares};
    struct buf b = {0};
    meter_step_write(&b, &line);
    append(r->log_fd, &b, "log.jsonl");
    buf_release(&b);
}

void run_log_save(struct run *r, double ms, int waited, int64_t bytes)
{
    struct save_line line = {.step = r->step, .save_ms = ms, .waited = waited, .bytes = bytes};
    struct buf b = {0};
    meter_save_write(&b, &line);
    append(r->log_fd, &b, "log.jsonl");
    buf_release(&b);
}

void run_log_valid(struct run *r, double loss, double seconds)
{
    struct valid_line line = {.step = r->step, .loss = loss, .seconds = seconds};
    struct buf b = {0};
    meter_valid_write(&b, &line);
    append(r->log_fd, &b, "log.jsonl");
    buf_release(&b);
}

void run_log_sync(const struct run *r)
{
    if (fsync(r->log_fd))
        die("sync log.jsonl:");
}
