/* model_priv.h -- shorthand shared by the segments. */
#ifndef MODEL_PRIV_H
#define MODEL_PRIV_H

#include "model/model.h"

static inline int64_t real_size(const struct model *m)
{
    return dtype_size(m->op->real);
}
static inline int64_t stat_size(const struct model *m)
{
    return dtype_size(m->op->stat);
}
/* Tokens held between the blocks: sequence parallelism cuts them over TP. */
static inline int64_t local_tokens(const struct task_context *t)
{
    return t->b->t / t->m->mesh.tp;
}
static inline struct weights *weights(const struct task_context *t)
{
    return &t->m->at[t->layer];
}
/* An operand of the activation type, of the statistics' type. */
static inline struct mat real_mat(const struct model *m, const void *p, int64_t rows, int64_t cols)
{
    return mat(p, m->op->real, rows, cols);
}
static inline struct mat stat_mat(const struct model *m, const void *p, int64_t rows, int64_t cols)
{
    return mat(p, m->op->stat, rows, cols);
}
static inline struct mat grad_mat(const struct model *m, void *p, int64_t rows, int64_t cols)
{
    return mat(p, m->grad_type, rows, cols);
}
static inline void *scratch(struct task_context *t, int64_t bytes)
{
    return arena_take(&t->l->scratch, bytes);
}
/* The local block of rows of an array that is gathered over TP. */
static inline void *own_block(const struct model *m, void *p, int64_t block_bytes)
{
    return (char *)p + m->mesh.i_tp * block_bytes;
}
static inline void gather_tp(struct task_context *t, void *all, void *own, int64_t rows)
{
    comm_all_gather(t->m->comm[GROUP_TP], t->l, all, own, rows * t->m->cfg.d, t->m->op->real);
}
static inline void scatter_tp(struct task_context *t, void *own, void *all, int64_t rows)
{
    comm_reduce_scatter(t->m->comm[GROUP_TP], t->l, own, all, rows * t->m->cfg.d, t->m->op->real);
}

void join_forward(struct task_context *t);
void join_dgrad(struct task_context *t);
void embed_forward(struct task_context *t);
void embed_wgrad(struct task_context *t);
void attn_forward(struct task_context *t);
void attn_dgrad(struct task_context *t);
void attn_wgrad(struct task_context *t);
void latent_forward(struct task_context *t);
void latent_dgrad(struct task_context *t);
void latent_wgrad(struct task_context *t);
void dense_forward(struct task_context *t);
void dense_dgrad(struct task_context *t);
void dense_wgrad(struct task_context *t);
void route_forward(struct task_context *t);
void drop_choices(struct task_context *t); /* of SLOT_INDEX; leaves SLOT_KEPT */
/* Where capacity is limited: choices of one expert that a micro-batch can have, of all its groups. */
int64_t expert_room(const struct task_context *t);
void route_dgrad(struct task_context *t);
void route_wgrad(struct task_context *t);
void dispatch_forward(struct task_context *t);
void dispatch_dgrad(struct task_context *t);
void combine_forward(struct task_context *t);
void combine_dgrad(struct task_context *t);
void experts_forward(struct task_context *t);
void experts_dgrad(struct task_context *t);
void experts_wgrad(struct task_context *t);
void head_forward(struct task_context *t);
void head_dgrad(struct task_context *t);
void score_forward(struct task_context *t);
void score_dgrad(struct task_context *t);
void recv_forward(struct task_context *t);
void recv_dgrad(struct task_context *t);
void send_forward(struct task_context *t);
void send_dgrad(struct task_context *t);

/* seg_embed.c: the tokens' rows, R (Tl,D), and what their gradient adds to the embedding's. */
void embed_tokens(struct task_context *t, void *x);
void embed_tokens_wgrad(struct task_context *t, void *dx);

/* post_norm.c.  Forward makes SLOT_H2; backward takes SLOT_DH2 and makes SLOT_DX1; post_normed() is
 * h2, R (Tl,D), made again where it is no longer kept; and done with all of these. */
void post_norm(struct task_context *t);
void post_norm_dgrad(struct task_context *t);
void *post_normed(struct task_context *t);
void post_norm_done(struct task_context *t);

/* attn_ends.c: what all attention begins and ends with.  norm(x) of the tokens held here, gathered
 * over TP, R (T,D) scratch; o Wout, from SLOT_O to SLOT_X1; its gradients, dy R (T,D) in SLOT_DY1 and
 * do R (T,HCv) scratch; that of x from dx, R (T,D), a rank's part of the sum; that of Wout. */
void *attn_normed(struct task_context *t, void *rstd);
struct spans attn_spans(const struct batch *b);
void attn_out(struct task_context *t);
void *attn_out_dgrad(struct task_context *t);
void attn_in_dgrad(struct task_context *t, char *dx);
void attn_out_wgrad(struct task_context *t);

/* Keys and values of the tokens held here, or what these are made of, R (T,any), from all ranks of
 * CP in the order of the whole rows, side by side: R (tokens,both) scratch; and the gradients of these
 * summed over CP into the gradients of those. */
void *context_gather(struct task_context *t, struct mat k, struct mat v);
void context_scatter(struct task_context *t, struct mat dk, struct mat dv, const void *whole);

/* Whether all experts are held here, so that no row travels. */
static inline int alone(const struct task_context *t)
{
    return comm_size(t->m->comm[GROUP_ETP_EP]) == 1;
}
/* What the experts' sums are added to, R (Tl,D): the residual, or with a shared expert's output. */
static inline void *beside_experts(const struct task_context *t)
{
    struct saved *s = &t->s[t->layer];
    return saved_fetch(s, saved_holds(s, SLOT_X2) ? SLOT_X2 : SLOT_X1);
}
/* dispatch.c: where the rows of this rank's experts' sums go, and what they are added to (NULL: to
 * nothing): straight into the layer's output where the rank is alone, else to be sent home. */
void *answers(struct task_context *t, const void **res);
/* The rows received, for backward: kept where they have travelled, else made again. */
void *received(struct task_context *t);

/* Normed hidden states of the head for the tokens held here, gathered over TP: R (T,D) scratch. */
void *head_hidden(struct task_context *t, void *rstd);

#endif
