/* seg_pipe.c -- hidden states to the stage of the next chunk of layers, their gradients back.
 *
 * Stages stand in a ring: with several chunks a stage, what the last sends the first receives. */
#include "model/model_priv.h"

static int64_t bytes(const struct task_context *t)
{
    return local_tokens(t) * t->m->cfg.d * real_size(t->m);
}

static int previous(const struct mesh *m)
{
    return (m->i_pp + m->pp - 1) % m->pp;
}

static int next(const struct mesh *m)
{
    return (m->i_pp + 1) % m->pp;
}

void recv_forward(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    comm_recv(t->m->comm[GROUP_PP], t->l, saved_keep(s, SLOT_X, bytes(t)), bytes(t),
              previous(&t->m->mesh));
}

void recv_dgrad(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    comm_send(t->m->back, t->l, saved_fetch(s, SLOT_DX), bytes(t), previous(&t->m->mesh));
    saved_release(s, SLOT_DX);
}

void send_forward(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    comm_send(t->m->comm[GROUP_PP], t->l, saved_fetch(s, SLOT_X), bytes(t), next(&t->m->mesh));
    saved_release(s, SLOT_X);
}

void send_dgrad(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    comm_recv(t->m->back, t->l, saved_keep(s, SLOT_DX, bytes(t)), bytes(t), next(&t->m->mesh));
}
