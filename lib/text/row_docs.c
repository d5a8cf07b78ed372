/* row_docs.c -- a row as it becomes part of a set: one document, or the two of a pair, and the
 * numbers that go along. */

#include "text/tok.h"

#include <math.h>
#include <string.h>

const char *row_docs_fault(const struct row_docs *d)
{
    if (!(d->weight >= 0) || !isfinite((float)d->weight))
        return "\"weight\" is negative or too large";
    for (int64_t i = 0; i < d->n; i++) {
        if ((d->has & ROW_REWARD) && !isfinite((float)d->reward[i]))
            return "a reward is too large";
        if (!isfinite((float)d->margin) || !isfinite((float)d->ref_logp[i]))
            return "\"margin\" or ref_logp is too large";
    }
    return NULL;
}

static const char *read_numbers(struct row_docs *d, const struct row *row)
{
    int pair = row->chosen && row->rejected;
    int margin = pair && !isnan(row->margin), ref_logp = pair && !isnan(row->ref_logp_chosen);

    if (pair && isnan(row->reward_chosen) != isnan(row->reward_rejected))
        return "one side of the pair has a reward, the other has none";
    if (pair && isnan(row->ref_logp_chosen) != isnan(row->ref_logp_rejected))
        return "one side of the pair has ref_logp, the other has none";
    d->n = 1 + pair;
    d->weight = isnan(row->weight) ? 1 : row->weight;
    d->reward[0] = pair ? row->reward_chosen : row->reward;
    d->reward[1] = row->reward_rejected;
    d->margin = margin ? row->margin : 0;
    d->ref_logp[0] = ref_logp ? row->ref_logp_chosen : 0;
    d->ref_logp[1] = ref_logp ? row->ref_logp_rejected : 0;
    d->has = (pair ? ROW_PAIR : 0) | (isnan(d->reward[0]) ? 0 : ROW_REWARD) |
             (margin ? ROW_MARGIN : 0) | (ref_logp ? ROW_REF_LOGP : 0);
    return row_docs_fault(d);
}

const char *row_docs_render(struct row_docs *d, const struct chat *c, struct tok *t,
                            const struct row *row, const char *control)
{
    int allowed = !strcmp(control, "allow");
    const char *why = read_numbers(d, row);

    if (why)
        return why;
    if (!strcmp(control, "error") && row_spells_control(row, t))
        return "its text spells a control token";
    if (!allowed && row_spells_tag(row))
        return "its text spells a tag in words, which cannot be escaped";
    for (int64_t i = 0; i < d->n; i++) {
        struct row one = *row;
        one.control = allowed;
        if (d->n > 1) {
            one.response = i ? row->rejected : row->chosen;
            one.response_len = i ? row->rejected_len : row->chosen_len;
        }
        if ((why = chat_render_row(c, t, &one, &d->doc[i])))
            return why;
        if (!rendered_learnt(&d->doc[i], 0, d->doc[i].token.n))
            return "nothing in it is learnt";
    }
    d->all_learnt = !row->has_prompt;
    d->tag = row->tag;
    return NULL;
}

const char *rendered_of_tokens(const struct tok *t, const int32_t *token, const uint8_t *target,
                               int64_t n, struct rendered *out)
{
    int64_t masked = 0;

    out->token.n = 0;
    buf_reset(&out->target);
    for (int64_t i = 0; i < n; i++) {
        if (token[i] < 0 || token[i] >= tok_size(t))
            return "a token that is none of the tokenizer's";
        ids_add(&out->token, token[i]);
        buf_char(&out->target, target[i] && (i || token[i] != tok_bos(t)));
    }
    if (!rendered_learnt(out, 0, n))
        return "nothing in it is learnt";
    while (!out->target.data[masked])
        masked++;
    int is_prompt = masked > 1;
    out->loose = is_prompt ? token[0] == tok_bos(t) : masked;
    out->tight = is_prompt ? masked : n - 1;
    return NULL;
}

void row_docs_release(struct row_docs *d)
{
    for (int i = 0; i < 2; i++)
        rendered_release(&d->doc[i]);
}

/* The struct itself, whose pointers mean nothing there, then what they pointed to. */
void row_docs_save(const struct row_docs *d, struct buf *out)
{
    buf_add(out, d, sizeof *d);
    for (int64_t i = 0; i < d->n; i++)
        buf_add(out, d->doc[i].token.id, (size_t)d->doc[i].token.n * sizeof(int32_t));
    for (int64_t i = 0; i < d->n; i++)
        buf_add(out, d->doc[i].target.data, (size_t)d->doc[i].token.n);
    if (d->tag)
        buf_add(out, d->tag, strlen(d->tag) + 1);
}

void row_docs_load(struct row_docs *d, char *saved)
{
    char *p = saved + sizeof *d;

    memcpy(d, saved, sizeof *d);
    for (int64_t i = 0; i < d->n; i++, p += d->doc[i - 1].token.n * (int64_t)sizeof(int32_t))
        d->doc[i].token.id = (int32_t *)p;
    for (int64_t i = 0; i < d->n; i++, p += d->doc[i - 1].token.n)
        d->doc[i].target.data = p;
    d->tag = d->tag ? p : NULL;
}
