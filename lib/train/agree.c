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

void agree_setting(struct comm *all, const struct run_options *o, const struct mesh *m,
                   const struct trainer_options *t)
{
    char program[65] = "unknown";
    struct buf b = {0};
    hash_sha256_file(program, "/proc/self/exe");
    agree(all, "program", program);
    buf_printf(&b, "tp %d cp %d pp %d etp %d ep %d pp-layout %s micro %lld dispatch %s", m->tp,
               m->cp, m->pp, m->etp, m->ep, o->pp_layout ? o->pp_layout : "even",
               (long long)t->micro, t->dispatch ? t->dispatch : "auto");
    agree(all, "mapping", b.data);
    buf_reset(&b);
    buf_printf(
        &b, "steps %lld save-every %lld valid %s valid-every %lld eval-only %d max-bad-steps %lld",
        (long long)t->optim.plan.steps, (long long)o->save_every, o->valid ? o->valid : "none",
        (long long)o->valid_every, o->eval_only, (long long)o->max_bad_steps);
    agree(all, "plan", b.data);
    buf_release(&b);
}
