/* pairs.c -- from the scored answers of a prompt to rows of chosen and rejected.
 *
 * A pair must be a preference: the chosen answer has the greater reward, and the two do not say the
 * same.  What cannot be paired is counted by reason rather than emitted with a margin of nothing.
 */
#include "pref/pref.h"

#include <stdlib.h>
#include <string.h>

struct answer {
    char *id, *text;
    size_t len;
    double reward;
    int64_t at;
    int paired;
};

/* One prompt: its answers (n), the best first, and what its rows have in common. */
struct prompt {
    struct answer *answer;
    int64_t n, cap;
    struct buf common; /* "prompt_id":...,"prompt":..., */
    struct json_doc *doc;
};

static void prompt_load(struct prompt *p, const struct pref_item *item, int64_t n,
                        struct spool *rows)
{
    if (n > p->cap) {
        p->answer = xrealloc(p->answer, (size_t)n * sizeof(*p->answer));
        p->cap = n;
    }
    p->n = n;
    for (int64_t i = 0; i < n; i++) {
        struct spool_row line;
        struct row r;
        spool_at(rows, item[i].at, &line);
        row_init(&r, line.line, line.len);
        row_parse(&r, p->doc);
        p->answer[i] = (struct answer){r.id ? xstrdup(r.id) : NULL,
                                       xmemdup(r.response, r.response_len + 1),
                                       r.response_len,
                                       item[i].score,
                                       item[i].at,
                                       0};
        if (i)
            continue;
        buf_reset(&p->common);
        if (r.prompt_id) {
            buf_str(&p->common, "\"prompt_id\":");
            json_quote(&p->common, r.prompt_id, strlen(r.prompt_id));
            buf_char(&p->common, ',');
        }
        buf_str(&p->common, "\"prompt\":");
        json_write(&p->common, r.prompt);
    }
}

static void prompt_drop(struct prompt *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        free(p->answer[i].id);
        free(p->answer[i].text);
    }
}

/* Whether a is preferred to b; if not, why not is counted. */
static int preferred(struct pref_pairs *o, const struct answer *a, const struct answer *b)
{
    double margin = a->reward - b->reward;
    int64_t *why = !(margin > 0)                                           ? &o->tied
                   : margin < o->min_margin                                ? &o->narrow
                   : a->len == b->len && !memcmp(a->text, b->text, a->len) ? &o->same
                                                                           : NULL;
    if (why)
        ++*why;
    return !why;
}

static void number(struct buf *b, const char *name, double x)
{
    buf_printf(b, ",\"%s\":", name);
    json_number(b, x);
}

static void pair_write(struct pref_pairs *o, struct prompt *p, struct answer *a, struct answer *b,
                       struct out *out)
{
    static struct buf line;
    buf_reset(&line);
    buf_char(&line, '{');
    if (a->id && b->id) {
        char *id = xasprintf("%s>%s", a->id, b->id);
        buf_str(&line, "\"id\":");
        json_quote(&line, id, strlen(id));
        buf_char(&line, ',');
        free(id);
    }
    buf_add(&line, p->common.data, p->common.len);
    buf_str(&line, ",\"chosen\":");
    json_quote(&line, a->text, a->len);
    buf_str(&line, ",\"rejected\":");
    json_quote(&line, b->text, b->len);
    number(&line, "reward_chosen", a->reward);
    number(&line, "reward_rejected", b->reward);
    number(&line, "margin", a->reward - b->reward);
    buf_str(&line, "}\n");
    out_write(out, line.data, line.len);
    a->paired = b->paired = 1;
    o->pairs++;
}

/* The best against the worst that says something else; of equals the one that came first. */
static void pair_best_worst(struct pref_pairs *o, struct prompt *p, struct out *out)
{
    struct answer *best = p->answer, *worst = NULL;
    for (int64_t i = p->n - 1; i > 0; i--) {
        struct answer *a = &p->answer[i];
        if (worst && a->reward != worst->reward)
            break;
        if (preferred(o, best, a))
            worst = a;
        else if (!(best->reward - a->reward >= o->min_margin) || a->reward == best->reward)
            break; /* the better ones are nearer still */
    }
    if (worst)
        pair_write(o, p, best, worst, out);
}

static void pair_all(struct pref_pairs *o, struct prompt *p, struct out *out)
{
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = i + 1; j < p->n; j++)
            if (preferred(o, &p->answer[i], &p->answer[j]))
                pair_write(o, p, &p->answer[i], &p->answer[j], out);
}

static void prompt_write(struct pref_pairs *o, struct prompt *p, struct pref_set *s,
                         struct out *out)
{
    int64_t before = o->pairs, narrow = o->narrow;
    (o->all ? pair_all : pair_best_worst)(o, p, out);
    int any = o->pairs > before;
    o->prompts += any;
    enum pref_verdict why = any                                                 ? PREF_UNPAIRED
                            : p->n == 1                                         ? PREF_ALONE
                            : p->answer[0].reward == p->answer[p->n - 1].reward ? PREF_TIED
                            : o->narrow > narrow                                ? PREF_NARROW
                                                                                : PREF_SAME_TEXT;
    for (int64_t i = 0; i < p->n; i++)
        if (!p->answer[i].paired)
            s->verdict[p->answer[i].at] = (uint8_t)why;
}

struct span { /* items of one prompt */
    int64_t first_at, from, to;
};

static int by_first(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->first_at < y->first_at ? -1 : 1;
}

void pref_pairs_write(struct pref_pairs *o, struct pref_set *s, struct spool *rows, struct out *out)
{
    struct prompt p = {.doc = json_doc_new()};
    int64_t spans = 0;
    pref_set_sort_group_score(s);
    for (int64_t i = 0; i < s->n; i = pref_set_group_end(s, i))
        spans++;
    struct span *span = xcalloc((size_t)spans, sizeof(*span));
    for (int64_t i = 0, k = 0; i < s->n; i = span[k++].to) {
        span[k] = (struct span){s->item[i].at, i, pref_set_group_end(s, i)};
        for (int64_t j = i; j < span[k].to; j++)
            span[k].first_at = MIN(span[k].first_at, s->item[j].at);
    }
    if (spans)
        qsort(span, (size_t)spans, sizeof(*span), by_first);
    for (int64_t k = 0; k < spans; k++) {
        prompt_load(&p, s->item + span[k].from, span[k].to - span[k].from, rows);
        prompt_write(o, &p, s, out);
        prompt_drop(&p);
    }
    pref_set_sort_place(s);
    free(span);
    free(p.answer);
    buf_release(&p.common);
    json_doc_free(p.doc);
}
