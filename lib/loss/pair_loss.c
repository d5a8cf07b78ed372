/* pair_loss.c -- losses on pairs of documents, chosen and rejected.
 *
 * bt: L = mean -log sigmoid(r_c - r_r - margin), r the score at a document's last token (Bradley &
 * Terry 1952; Ouyang et al. 2022).  dpo: L = mean -log sigmoid(beta ((l_c - ref_c) - (l_r -
 * ref_r))), l the sum of log-probabilities of the answer (Rafailov et al. 2023); ref comes with the
 * data.  Both are means over the pairs of the global batch. */
#include "loss/loss.h"

static void dgrad(struct lane *l, const struct op *op, struct loss_rows *r)
{
    op->pair_dgrad(l, r->dlogp, r->logp, r->weight, r->q_at, r->chosen, r->base, r->margin,
                   r->denom, r->t, r->spans, r->beta);
}

static void value(struct lane *l, const struct op *op, struct loss_rows *r)
{
    op->pair_loss(l, r->sum, r->logp, r->weight, r->q_at, r->chosen, r->base, r->margin, r->spans,
                  r->beta);
}

const struct loss loss_bt = {.name = "bt",
                             .about = "Bradley-Terry on pairs; trains a reward model",
                             .tokens = TOKENS_LAST,
                             .pairs = 1,
                             .columns = "pair",
                             .reward = 1,
                             .dgrad = dgrad,
                             .value = value};
const struct loss loss_dpo = {.name = "dpo",
                              .about = "direct preference optimisation on pairs with ref_logp",
                              .tokens = TOKENS_LEARNT,
                              .pairs = 1,
                              .columns = "pair,ref_logp",
                              .dgrad = dgrad,
                              .value = value};
