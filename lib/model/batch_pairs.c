/* batch_pairs.c -- documents in pairs, as the losses on pairs want them. */
#include "model/model.h"

/* The spans of row i: from the first that begins in it to the last that holds tokens of a document.
 */
static int64_t first_span(const struct batch_host *h, int64_t i)
{
    int64_t s = 0;
    while (s < h->spans && h->q_at[s] < i * h->seq)
        s++;
    return s;
}

void batch_host_pairs(struct batch_host *h, int64_t i, const struct batch_doc *doc, int64_t n,
                      int last_token_only)
{
    int64_t first = first_span(h, i);
    for (int64_t s = first; s < h->spans; s++) {
        int64_t at = s - first, paired = at < n && doc[at].pair >= 0;
        h->chosen[s] = paired && at + 1 < n && doc[at + 1].pair == doc[at].pair;
        h->base[s] = paired ? doc[at].ref_logp : 0;
        h->margin[s] = paired ? doc[at].margin : 0;
        h->pairs += h->chosen[s];
        for (int64_t t = h->q_at[s]; t < h->q_at[s + 1]; t++) {
            double was = h->weight[t];
            h->weight[t] = !paired           ? 0
                           : last_token_only ? t + 1 == h->q_at[s + 1]
                                             : h->label[t] >= 0;
            h->weight_sum += h->weight[t] - was;
        }
    }
}
