/* dedup.c -- answers to one prompt that say the same, or nearly.
 *
 * Only answers of one prompt are compared: the same words may well answer two questions.  They are
 * taken from the best down (of equals the first), and each one either repeats an answer already
 * kept or is kept itself, so the result depends on the rows alone and what is lost never had the
 * greater reward.
 *
 * Near means the Jaccard index of the sets of word 5-grams.  It is computed, not estimated: a
 * prompt has few answers, and no sketch of them would be cheaper than the answer. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GRAM = 5 };

struct mark {
    uint64_t group, text; /* hashes */
    double reward;
    int64_t at, kept; /* rows; kept: the one this repeats, or -1 */
};

struct dedup {
    struct mark *mark; /* (n) */
    int64_t n, cap;
    double threshold;
    struct json_doc *doc;
};

struct grams { /* the sorted set of hashes of an answer's 5-grams */
    uint64_t *h;
    int64_t n, cap;
    const struct mark *of;
};

struct dedup *dedup_new(double threshold)
{
    struct dedup *d = xcalloc(1, sizeof(*d));
    d->threshold = threshold;
    d->doc = json_doc_new();
    return d;
}

void dedup_free(struct dedup *d)
{
    if (!d)
        return;
    json_doc_free(d->doc);
    free(d->mark);
    free(d);
}

/* What is compared: the answer; of a pair both sides, each behind its length. */
static void said(const struct row *r, struct buf *out)
{
    size_t len;
    const char *s = pref_answer(r, &len);
    buf_reset(out);
    if (s) {
        buf_add(out, s, len);
    } else if (r->chosen && r->rejected) {
        buf_printf(out, "%zu ", r->chosen_len);
        buf_add(out, r->chosen, r->chosen_len);
        buf_char(out, ' ');
        buf_add(out, r->rejected, r->rejected_len);
    }
}

void dedup_add(struct dedup *d, const struct row *r, uint64_t group, double reward)
{
    static struct buf text;
    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 1024;
        d->mark = xrealloc(d->mark, (size_t)d->cap * sizeof(*d->mark));
    }
    said(r, &text);
    d->mark[d->n] = (struct mark){group, hash_xxh3(text.len ? text.data : "", text.len),
                                  isnan(reward) ? -INFINITY : reward, d->n, -1};
    d->n++;
}

static int best_first(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->reward != y->reward)
        return x->reward > y->reward ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

static int by_text(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->group == y->group && x->text != y->text)
        return x->text < y->text ? -1 : 1;
    return best_first(a, b);
}

static int by_place(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    return x->at < y->at ? -1 : 1;
}

/* ---- near ---- */

static void grams_add(struct grams *g, const uint64_t *word, int64_t words)
{
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 64;
        g->h = xrealloc(g->h, (size_t)g->cap * sizeof(*g->h));
    }
    g->h[g->n++] = hash_xxh3(word, (size_t)words * sizeof(*word));
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* An answer of fewer than five words is one gram. */
static void grams_make(struct grams *g, const char *s, size_t len)
{
    uint64_t word[GRAM];
    int64_t words = 0, set = 0;
    const char *end = s + len;
    g->n = 0;
    for (size_t n; (n = word_next(&s, end)); s += n) {
        if (words >= GRAM)
            memmove(word, word + 1, (GRAM - 1) * sizeof(*word));
        word[MIN(words, GRAM - 1)] = word_hash(s, n);
        if (++words >= GRAM)
            grams_add(g, word, GRAM);
    }
    if (!g->n)
        grams_add(g, word, words);
    qsort(g->h, (size_t)g->n, sizeof(*g->h), by_value);
    for (int64_t i = 0; i < g->n; i++)
        if (!i || g->h[i] != g->h[i - 1])
            g->h[set++] = g->h[i];
    g->n = set;
}

static int alike(const struct grams *a, const struct grams *b, double threshold)
{
    int64_t both = 0;
    if ((double)MIN(a->n, b->n) < threshold * (double)MAX(a->n, b->n))
        return 0; /* however much of the smaller one is in the larger */
    for (int64_t i = 0, j = 0; i < a->n && j < b->n;) {
        both += a->h[i] == b->h[j];
        int step = a->h[i] <= b->h[j];
        j += a->h[i] >= b->h[j];
        i += step;
    }
    return (double)both >= threshold * (double)(a->n + b->n - both);
}

/* The answers of one prompt, the best first; those that equal another are settled already. */
static void judge_prompt(struct dedup *d, struct mark *m, int64_t n, struct spool *rows)
{
    static struct buf text;
    struct grams *kept = xcalloc((size_t)n, sizeof(*kept));
    int64_t leaders = 0;
    for (int64_t i = 0; i < n; i++) {
        struct spool_row line;
        struct row r;
        if (m[i].kept >= 0)
            continue;
        spool_at(rows, m[i].at, &line);
        row_init(&r, line.line, line.len);
        row_parse(&r, d->doc);
        said(&r, &text);
        struct grams *g = &kept[leaders];
        grams_make(g, text.len ? text.data : "", text.len);
        g->of = &m[i];
        int64_t k = 0;
        while (k < leaders && !alike(&kept[k], g, d->threshold))
            k++;
        if (k < leaders)
            m[i].kept = kept[k].of->at;
        else
            leaders++;
    }
    for (int64_t k = 0; k < n; k++)
        free(kept[k].h);
    free(kept);
}

/* ---- both ---- */

void dedup_judge(struct dedup *d, struct pref_set *s, struct spool *rows)
{
    struct mark *m = d->mark;
    if (d->n)
        qsort(m, (size_t)d->n, sizeof(*m), by_text);
    for (int64_t i = 1, first = 0; i < d->n; i++) {
        if (m[i].group != m[first].group || m[i].text != m[first].text)
            first = i;
        else
            m[i].kept = m[first].at;
    }
    for (int64_t i = 0; i < d->n; i++)
        if (m[i].kept >= 0)
            s->verdict[m[i].at] = PREF_DUPLICATE;
    if (d->threshold <= 1 && d->n) {
        qsort(m, (size_t)d->n, sizeof(*m), best_first);
        for (int64_t i = 0, j; i < d->n; i = j) {
            for (j = i; j < d->n && m[j].group == m[i].group; j++)
                ;
            if (j - i > 1)
                judge_prompt(d, m + i, j - i, rows);
        }
    }
    if (d->n)
        qsort(m, (size_t)d->n, sizeof(*m), by_place);
    for (int64_t i = 0; i < d->n; i++) {
        if (m[i].kept >= 0 && s->verdict[m[i].at] == PREF_KEPT)
            s->verdict[m[i].at] = PREF_NEAR_DUPLICATE;
        /* An answer whose equal turned out to be nearly another's: the one that stays counts. */
        while (m[i].kept >= 0 && m[m[i].kept].kept >= 0)
            m[i].kept = m[m[i].kept].kept;
    }
    pref_set_settle(s);
}

void dedup_describe(struct dedup *d, int64_t at, struct spool *rows, struct buf *out)
{
    struct spool_row line;
    struct row r;
    char hex[17];
    spool_at(rows, d->mark[at].kept, &line);
    hash_hex(hex, hash_xxh3(line.line, line.len));
    buf_printf(out, ",\"cluster\":\"%s\",\"kept\":", hex);
    row_init(&r, line.line, line.len);
    row_parse(&r, d->doc);
    char *name = r.id ? xstrdup(r.id) : xasprintf("%s:%lld", line.file, (long long)line.number);
    json_quote(out, name, strlen(name));
    free(name);
}
