/* seg_pipe.c -- hidden states to the next pipeline stage, their gradients back. */
#include "model/model_priv.h"

static int64_t bytes(const struct task_context *t)
{
    return local_tokens(t) * t->m->cfg.d * real_size(t->m);
}

void recv_forward(struct task_context *t)
{
    comm_recv(t->m->comm[GROUP_PP], t->l, saved_keep(t->s, SLOT_X, bytes(t)), bytes(t),
              t->m->mesh.i_pp - 1);
}

void recv_dgrad(struct task_context *t)
{
    comm_send(t->m->comm[GROUP_PP], t->l, saved_fetch(t->s, SLOT_DX), bytes(t), t->m->mesh.i_pp - 1);
    saved_release(t->s, SLOT_DX);
}

void send_forward(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    comm_send(t->m->comm[GROUP_PP], t->l, saved_fetch(s, SLOT_X), bytes(t), t->m->mesh.i_pp + 1);
    saved_release(s, SLOT_X);
}

void send_dgrad(struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    comm_recv(t->m->comm[GROUP_PP], t->l, saved_keep(s, SLOT_DX, bytes(t)), bytes(t),
              t->m->mesh.i_pp + 1);
}
