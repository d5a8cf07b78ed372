/* dispatch_window.c -- GPUs write wanted rows into each other's memory, where row i of rank r lies
 * as r Tl + i, whether the others come or not: no row in vain, and nothing that the host must know.
 */
#include "model/dispatch.h"

/* there: NULL when the choices are part 1 of what travels. */
static struct window_rows rows_of(const struct task_context *t, const int32_t *there)
{
    return (struct window_rows){.index = saved_fetch(&t->s[t->layer], SLOT_KEPT),
                                .there = there,
                                .n = local_tokens(t),
                                .k = t->m->cfg.k,
                                .el = t->m->el,
                                .share = t->m->mesh.etp};
}

static void plan(struct task_context *t)
{
    for (int r = 0; r < comm_size(dispatch_group(t)); r++)
        t->s[t->layer].recvd[r] = local_tokens(t); /* room for them all */
    model_window(t->m, t->l, local_tokens(t));
}

static void out(struct task_context *t, const int32_t *there, const struct window_part *part,
                int parts)
{
    struct window_rows rows = rows_of(t, there);
    window_out(t->m->window[t->m->windows - 1], t->l, &rows, part, parts);
}

static void back(struct task_context *t, const struct window_part *part, int parts)
{
    struct window_rows rows = rows_of(t, saved_fetch(&t->s[t->layer], SLOT_RINDEX));
    window_back(t->m->window[t->m->windows - 1], t->l, &rows, part, parts);
}

const struct dispatcher dispatch_window = {"window", 0, plan, out, back};
