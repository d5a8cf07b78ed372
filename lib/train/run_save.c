/* run_save.c -- checkpoints of a run, and the small files that say how it stands. */
#include "train/run_priv.h"

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

void run_save(struct run *r)
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
            ckpt_put_from(w, m->lane, "model", m->layout.local[i].p, m->layout.local[i].r,
                          model_weight(m, &m->layout.local[i]), type);
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
