/* run_files.c -- the folder of a run: checkpoints appear whole, and `last` names the newest.
 *
 * Whatever instant the process dies at, `last` names a complete checkpoint or is not there: the
 * folder is renamed into place first, the link second, and older checkpoints are removed last. */
#include "train/train.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *run_step_dir(const char *run, int64_t step)
{
    char *name = xasprintf("step-%06lld", (long long)step), *path = path_join(run, name);
    free(name);
    return path;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (y > x) - (y < x);
}

/* Later steps than this one are of a run that was set back, or not yet named by `last` when it was
 * killed: they count for nothing and will be written again. */
static void prune(const char *run, int64_t now, int64_t keep)
{
    DIR *d = opendir(run);
    int64_t *step = NULL, n = 0;
    if (!d)
        die("open %s:", run);
    for (struct dirent *e; (e = readdir(d));) {
        char *end;
        if (strncmp(e->d_name, "step-", 5))
            continue;
        long long s = strtoll(e->d_name + 5, &end, 10);
        if (*end || s > now)
            continue;
        step = xrealloc(step, (n + 1) * sizeof *step);
        step[n++] = s;
    }
    closedir(d);
    qsort(step, n, sizeof *step, newest_first);
    for (int64_t i = keep; i < n; i++) {
        char *path = run_step_dir(run, step[i]);
        remove_tree(path);
        free(path);
    }
    free(step);
}

void run_publish(const char *run, const char *tmp, int64_t step, int64_t keep)
{
    char *dir = run_step_dir(run, step), *link = path_join(run, ".last.tmp");
    char *last = path_join(run, "last");
    dir_publish(tmp, dir);
    unlink(link);
    if (symlink(strrchr(dir, '/') + 1, link) || rename(link, last))
        die("%s:", last);
    fsync_dir(run);
    if (keep > 0)
        prune(run, step, keep);
    free(dir), free(link), free(last);
}

char *run_last(const char *run)
{
    char target[64], *last = path_join(run, "last"), *dir = NULL;
    ssize_t n = readlink(last, target, sizeof target - 1);
    if (n > 0) {
        target[n] = 0;
        dir = path_join(run, target);
    }
    free(last);
    return dir;
}

static void member(struct buf *b, const char *name, const char *text)
{
    buf_printf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", name);
    json_quote(b, text, strlen(text));
}

static void integer(struct buf *b, const char *name, int64_t n)
{
    buf_printf(b, "%s\"%s\":%lld", b->data[b->len - 1] == '{' ? "" : ",", name, (long long)n);
}

static void number(struct buf *b, const char *name, double x)
{
    buf_printf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", name);
    json_number(b, x);
}

void run_identity(struct buf *out, const struct run_options *o, const struct config *c,
                  const struct mix *mix, int64_t steps)
{
    const struct trainer_options *t = &o->train;
    const struct optim_options *p = &t->optim;
    struct buf config = {0}, data = {0};
    char model[17];
    config_write(c, &config, "float32");
    hash_hex(model, hash_xxh3(config.data, config.len));
    for (int64_t i = 0; i < mix->n; i++)
        buf_printf(&data, "%s%s=%lld", i ? "," : "", set_hash(mix->set[i]),
                   (long long)mix->weight[i]);
    buf_str(out, "{");
    member(out, "model", model);
    member(out, "data", data.data);
    member(out, "type", t->type);
    member(out, "loss", t->loss);
    member(out, "grads", t->grads);
    member(out, "optimizer", p->name);
    member(out, "moments", p->moments);
    member(out, "master", p->master);
    integer(out, "seed", o->seed);
    integer(out, "steps", steps);
    integer(out, "batch", t->batch);
    number(out, "lr", p->plan.lr);
    number(out, "lr-floor", p->plan.floor);
    number(out, "warmup", p->plan.warmup);
    number(out, "beta1", p->plan.beta1);
    number(out, "beta2", p->plan.beta2);
    number(out, "eps", p->plan.eps);
    number(out, "clip", p->plan.clip);
    number(out, "decay", p->decay);
    if (loss_find(t->loss)->pairs && !loss_find(t->loss)->reward)
        number(out, "beta", t->beta);
    number(out, "aux", c->aux);
    number(out, "z", c->z);
    if (t->optim.balance > 0)
        number(out, "balance", t->optim.balance);
    if (c->further)
        number(out, "mtp-weight", t->further);
    number(out, "capacity", t->capacity);
    integer(out, "group", t->group);
    buf_str(out, "}");
    buf_release(&config), buf_release(&data);
}
