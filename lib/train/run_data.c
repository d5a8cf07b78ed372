/* run_data.c -- the sets a run reads: opened, held against each other and against the loss. */
#include "train/run_priv.h"

#include <stdlib.h>
#include <string.h>

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
            die_misused("--loss %s needs the column %.*s, and %s has not got it", loss->name,
                        (int)len, at, path);
        at += len + (at[len] == ',');
    }
}

static void check_same(const char *option, const char *path, const struct set *s,
                       const char *first_path, const struct set *first)
{
    const struct set_info *a = set_info(first), *b = set_info(s);
    if (a->seq != b->seq)
        die_misused("%s and %s %s disagree: sequences of %lld and %lld tokens", first_path, option,
                    path, (long long)a->seq, (long long)b->seq);
    if (strcmp(a->tokenizer_hash, b->tokenizer_hash))
        die_misused("%s and %s %s disagree: tokenizer %s and %s", first_path, option, path,
                    a->tokenizer_hash, b->tokenizer_hash);
    if (strcmp(a->template, b->template))
        die_misused("%s and %s %s disagree: template %s and %s", first_path, option, path,
                    a->template, b->template);
}

static struct set *open_checked(const struct run *r, const char *option, const char *path)
{
    struct set *s = set_open(path);
    const struct loss *loss = loss_find(r->o->train.loss);
    check_columns(path, s, loss);
    if (!loss->pairs && lists(set_info(s)->columns, "pair", 4) && world_rank(r->world) == 0)
        warn("%s has pairs: --loss %s takes rejected answers for as good as chosen ones", path,
             loss->name);
    if (!set_sequences(s))
        die("%s: the set has no packed sequence", path);
    if (r->mix.set[0])
        check_same(option, path, s, r->o->data.v[0], r->mix.set[0]);
    return s;
}

void run_sets_open(struct run *r)
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
        if (eq && !strchr(eq, '/')) { /* else it is part of a folder's name */
            *eq = 0;
            x->weight[i] = strtoll(eq + 1, &end, 10);
        }
        if (*end || x->weight[i] < 1 || x->weight[i] > INT32_MAX)
            die_misused("--data %s: the weight after '=' must be a whole number from 1",
                        data->v[i]);
        x->set[i] = open_checked(r, "--data", path);
        free(path);
    }
    if (r->o->valid)
        r->valid = open_checked(r, "--valid", r->o->valid);
}

int64_t run_sequences(const struct mix *x)
{
    int64_t n = 0;
    for (int64_t i = 0; i < x->n; i++)
        n += set_sequences(x->set[i]);
    return n;
}

const struct buf *run_set_file(const struct run *r, const char *name)
{
    const struct buf *text = NULL;
    for (int64_t i = 0; i < r->mix.n && !text; i++)
        text = set_file(r->mix.set[i], name);
    return text;
}
