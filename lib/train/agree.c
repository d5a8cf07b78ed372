/* agree.c -- what every rank of a run must have been told alike.
 *
 * Ranks that differ wait for each other until the deadline, or train nonsense; so they compare what
 * they have with rank 0's before they share any work. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

char *of_rank_0(struct comm *all, const char *s)
{
    int n = comm_size(all);
    int64_t *len = xmalloc(n * sizeof *len);
    char **each = xmalloc(n * sizeof *each), *first;
    comm_gather_bytes(all, s, strlen(s), each, len);
    first = each[0];
    for (int i = 1; i < n; i++)
        free(each[i]);
    free(len), free(each);
    return first;
}

void agree(struct comm *all, const char *what, const char *mine)
{
    char *first = of_rank_0(all, mine);
    if (strcmp(first, mine))
        die_misused("rank %d has another %s than rank 0: %s, not %s", comm_rank(all), what, mine,
                    first);
    free(first);
}

static void write_member(struct buf *b, struct json object, const char *key)
{
    struct json v;
    buf_reset(b);
    if (json_get(object, key, &v))
        json_write(b, v);
    else
        buf_str(b, "(none)");
}

char *identity_differs(struct json now, struct json was, struct buf *is, struct buf *other)
{
    /* Either may have members that the other lacks: an option that is written where it is used. */
    const struct json both[] = {now, was};
    struct json_iter i;
    for (int b = 0; b < 2; b++)
        for (json_iter_init(&i, both[b]); json_iter_next(&i);) {
            char *key = xstrndup(i.key, i.key_len);
            write_member(is, now, key);
            write_member(other, was, key);
            if (strcmp(is->data, other->data))
                return key;
            free(key);
        }
    return NULL;
}

static void agree_identity(struct comm *all, const char *mine)
{
    char *first = of_rank_0(all, mine), *key;
    struct json_doc *doc[2] = {json_doc_new(), json_doc_new()};
    struct json now, was;
    struct buf a = {0}, b = {0};
    const char *why;
    if (json_parse(doc[0], mine, strlen(mine), &now, &why) ||
        json_parse(doc[1], first, strlen(first), &was, &why))
        die("internal error: %s", why);
    if ((key = identity_differs(now, was, &a, &b)))
        die_misused("rank %d has another %s than rank 0: %s, not %s", comm_rank(all), key, a.data,
                    b.data);
    buf_release(&a), buf_release(&b);
    json_doc_free(doc[0]), json_doc_free(doc[1]);
    free(first);
}

void agree_setting(struct comm *all, const struct run_options *o, const char *identity)
{
    const struct trainer_options *t = &o->train;
    char program[65] = "unknown";
    struct buf b = {0};
    hash_sha256_file(program, "/proc/self/exe");
    agree(all, "program", program);
    agree_identity(all, identity);
    buf_printf(&b, "tp %lld cp %lld pp %lld etp %lld ep %lld pp-layout %s micro %lld dispatch %s",
               (long long)o->tp, (long long)o->cp, (long long)o->pp, (long long)o->etp,
               (long long)o->ep, o->pp_layout ? o->pp_layout : "even", (long long)t->micro,
               t->dispatch ? t->dispatch : "auto");
    agree(all, "mapping", b.data);
    buf_reset(&b);
    buf_printf(&b, "save-every %lld valid %s valid-every %lld eval-only %d max-bad-steps %lld",
               (long long)o->save_every, o->valid ? o->valid : "none", (long long)o->valid_every,
               o->eval_only, (long long)o->max_bad_steps);
    agree(all, "plan", b.data);
    buf_release(&b);
}
