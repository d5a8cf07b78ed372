/* nll_loss.c -- L = sum_i w_i sum_t m_it nll_it / sum_i w_i sum_t m_it over the global batch.
 *
 * One weight column serves plain language modelling and SFT (1), FA (0 or 1) and RWR.  weight[t] is
 * w_i where the label is learnt and 0 elsewhere. */
#include "loss/loss.h"

static void dgrad(struct lane *l, const struct op *op, struct loss_rows *r)
{
    op->nll_dgrad(l, r->dlogp, r->weight, r->denom, r->t);
}

static void value(struct lane *l, const struct op *op, struct loss_rows *r)
{
    op->nll_loss(l, r->sum, r->weight, r->logp, r->t);
}

const struct loss loss_nll = {.name = "nll",
                              .about = "weighted negative log likelihood",
                              .known_beforehand = 1,
                              .tokens = TOKENS_WEIGHTED,
                              .dgrad = dgrad,
                              .value = value};
