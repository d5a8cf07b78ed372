/* tok_train.c -- learns a byte-level BPE: the most frequent pair of neighbours becomes a token,
 * again and again.
 *
 * Text counts as words (GPT-2's pattern) with how often each occurs, so a merge costs the words
 * that hold it.  Pair counts are kept up to date rather than counted anew; a heap finds the next
 * pair, and an entry whose count has changed since is put back with the right one.  Ties go to the
 * pair whose text sorts first, so the order of the rows does not matter.  Where there are more
 * words than memory is granted, the rarest so far are forgotten: they would hardly have made a
 * merge. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>

enum { SPECIALS = TOK_SPECIALS, BYTES = 256, COUNT_MIN = 2 };

struct word {
    int64_t n;
    int32_t *id, len;
};
struct pair { /* two neighbouring ids and the words that hold, or held, them */
    int32_t id[2];
    int64_t n;
    int32_t *word, words, words_cap;
};
struct tok_trainer {
    struct regex *regex;
    struct map seen; /* word to index */
    struct word *word;
    int64_t words, words_cap;
    int64_t memory, used,
        forgotten; /* bytes granted to words, and taken; occurrences not counted */

    struct map known; /* ids of a pair to index */
    struct pair *pair;
    int64_t pairs, pairs_cap;
    struct guess {
        int64_t n; /* the pair's count when it was queued */
        int32_t pair;
    } * heap;
    int64_t heap_n, heap_cap;
    struct buf *text; /* by id: the bytes of a token */
    struct map texts; /* the reverse, of merged tokens */
};

struct tok_trainer *tok_trainer_new(int64_t memory)
{
    struct tok_trainer *t = xcalloc(1, sizeof *t);

    t->memory = memory;
    t->regex = regex_new(regex_gpt2, strlen(regex_gpt2), 0, "tok-train");
    return t;
}

/* Its share of the tables, and what its pairs will take. */
static int64_t word_bytes(size_t n)
{
    return 112 + 13 * (int64_t)n;
}

/* Forgets the rarest words, so that the others take half of the memory. */
static void words_forget(struct tok_trainer *t)
{
    int64_t floor = 0, left = 0;
    struct buf key = {0};

    do {
        floor++;
        t->used = 0;
        for (int64_t w = 0; w < t->words; w++)
            t->used += t->word[w].n > floor ? word_bytes((size_t)t->word[w].len) : 0;
    } while (t->used > t->memory / 2);
    map_reset(&t->seen);
    for (int64_t w = 0; w < t->words; w++) {
        struct word word = t->word[w];
        if (word.n <= floor) {
            t->forgotten += word.n;
            free(word.id);
            continue;
        }
        buf_reset(&key);
        for (int32_t i = 0; i < word.len; i++)
            buf_char(&key, (char)(word.id[i] - SPECIALS));
        *map_put(&t->seen, key.data, key.len) = (int32_t)left;
        t->word[left++] = word;
    }
    t->words = left;
    buf_release(&key);
}

static void word_add(struct tok_trainer *t, const char *s, size_t n)
{
    int32_t *at = map_put(&t->seen, s, n);

    if (*at < 0) {
        if (t->words == t->words_cap) {
            t->words_cap = MAX(1024, 2 * t->words_cap);
            t->word = xrealloc(t->word, (size_t)t->words_cap * sizeof *t->word);
        }
        *at = (int32_t)t->words;
        struct word *w = &t->word[t->words++];
        *w = (struct word){0, xmalloc(n * sizeof *w->id), (int32_t)n};
        for (size_t i = 0; i < n; i++)
            w->id[i] = SPECIALS + (unsigned char)s[i];
        t->used += word_bytes(n);
    }
    t->word[*at].n++;
    if (t->used > t->memory)
        words_forget(t);
}

void tok_trainer_add(struct tok_trainer *t, const char *text, size_t len)
{
    size_t start, end = 0;

    while (regex_next(t->regex, text, len, end, &start, &end))
        word_add(t, text + start, end - start);
}

/* ---- the heap: highest count first ---- */

static int texts_order(const struct tok_trainer *t, int32_t a, int32_t b)
{
    const struct buf *x = &t->text[a], *y = &t->text[b];
    int d = memcmp(x->data, y->data, MIN(x->len, y->len));

    return d ? d : (x->len > y->len) - (x->len < y->len);
}

static int before(const struct tok_trainer *t, struct guess a, struct guess b)
{
    const struct pair *x = &t->pair[a.pair], *y = &t->pair[b.pair];
    int d;

    if (a.n != b.n)
        return a.n > b.n;
    d = texts_order(t, x->id[0], y->id[0]);
    return (d ? d : texts_order(t, x->id[1], y->id[1])) < 0;
}

static void heap_push(struct tok_trainer *t, int32_t pair)
{
    struct guess g = {t->pair[pair].n, pair};

    if (g.n < COUNT_MIN)
        return;
    if (t->heap_n == t->heap_cap) {
        t->heap_cap = MAX(1024, 2 * t->heap_cap);
        t->heap = xrealloc(t->heap, (size_t)t->heap_cap * sizeof *t->heap);
    }
    int64_t i = t->heap_n++;
    for (; i && before(t, g, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = g;
}

static struct guess heap_pop(struct tok_trainer *t)
{
    struct guess top = t->heap[0], last = t->heap[--t->heap_n];
    int64_t i = 0;

    for (int64_t child; (child = 2 * i + 1) < t->heap_n; i = child) {
        if (child + 1 < t->heap_n && before(t, t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t, t->heap[child], last))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* ---- counting ---- */

/* Adds n occurrences of (a, b) in word w; n may be negative. */
static void pair_count(struct tok_trainer *t, int32_t a, int32_t b, int64_t n, int32_t w)
{
    int32_t id[2] = {a, b}, *at = map_put(&t->known, id, sizeof id);

    if (*at < 0) {
        if (t->pairs == t->pairs_cap) {
            t->pairs_cap = MAX(4096, 2 * t->pairs_cap);
            t->pair = xrealloc(t->pair, (size_t)t->pairs_cap * sizeof *t->pair);
        }
        *at = (int32_t)t->pairs;
        t->pair[t->pairs++] = (struct pair){.id = {a, b}};
    }
    struct pair *p = &t->pair[*at];
    p->n += n;
    if (n > 0 && (!p->words || p->word[p->words - 1] != w)) {
        if (p->words == p->words_cap) {
            p->words_cap = MAX(4, 2 * p->words_cap);
            p->word = xrealloc(p->word, (size_t)p->words_cap * sizeof *p->word);
        }
        p->word[p->words++] = w;
    }
}

/* Makes id of every (a, b) in word w; the pairs around each are counted down and up. */
static void word_merge(struct tok_trainer *t, int32_t w, int32_t a, int32_t b, int32_t id)
{
    struct word *word = &t->word[w];
    int32_t out = 0;

    for (int32_t i = 0; i < word->len; i++) {
        if (i + 1 == word->len || word->id[i] != a || word->id[i + 1] != b) {
            word->id[out++] = word->id[i];
            continue;
        }
        if (out) {
            pair_count(t, word->id[out - 1], a, -word->n, w);
            pair_count(t, word->id[out - 1], id, word->n, w);
        }
        if (i + 2 < word->len) {
            pair_count(t, b, word->id[i + 2], -word->n, w);
            pair_count(t, id, word->id[i + 2], word->n, w);
        }
        word->id[out++] = id;
        i++;
    }
    word->len = out;
}

/* Merges the best pair into token id; returns its index, or -1 when none occurs twice.  A pair that
 * spells a token there is already (a + bc after ab + c) stays two: a vocabulary holds a text once.
 */
static int32_t merge_best(struct tok_trainer *t, int32_t id)
{
    while (t->heap_n) {
        struct guess g = heap_pop(t);
        struct pair *p = &t->pair[g.pair];
        int32_t a = p->id[0], b = p->id[1], *word = p->word, words = p->words;
        int64_t first_new = t->pairs;
        if (p->n != g.n) { /* it has fallen; only pairs with a new token rise */
            heap_push(t, g.pair);
            continue;
        }
        buf_reset(&t->text[id]);
        buf_add(&t->text[id], t->text[a].data, t->text[a].len);
        buf_add(&t->text[id], t->text[b].data, t->text[b].len);
        int32_t *known = map_put(&t->texts, t->text[id].data, t->text[id].len);
        if (*known >= 0)
            continue;
        *known = id;
        for (int32_t k = 0; k < words; k++)
            word_merge(t, word[k], a, b, id);
        t->pair[g.pair].n = 0;
        for (int64_t k = first_new; k < t->pairs; k++) /* queued when their counts are whole */
            heap_push(t, (int32_t)k);
        return g.pair;
    }
    return -1;
}

int64_t tok_trainer_finish(struct tok_trainer *t, int64_t vocab, struct buf *json)
{
    struct ids merge = {0};
    int64_t forgotten = t->forgotten;

    t->text = xcalloc((size_t)MAX(vocab, SPECIALS + BYTES), sizeof *t->text);
    for (int b = 0; b < BYTES; b++)
        buf_char(&t->text[SPECIALS + b], (char)b);
    for (int64_t w = 0; w < t->words; w++)
        for (int32_t i = 0; i + 1 < t->word[w].len; i++)
            pair_count(t, t->word[w].id[i], t->word[w].id[i + 1], t->word[w].n, (int32_t)w);
    for (int64_t p = 0; p < t->pairs; p++)
        heap_push(t, (int32_t)p);
    while (SPECIALS + BYTES + merge.n < vocab) {
        int32_t best = merge_best(t, (int32_t)(SPECIALS + BYTES + merge.n));
        if (best < 0)
            break;
        ids_add(&merge, best);
    }
    int32_t *pairs = xcalloc((size_t)MAX(merge.n, 1), 2 * sizeof *pairs);
    for (int64_t i = 0; i < merge.n; i++) /* from index of the pair to its two ids */
        memcpy(pairs + 2 * i, t->pair[merge.id[i]].id, 2 * sizeof *pairs);
    tok_write(t->text, pairs, merge.n, json);
    free(pairs);

    for (int64_t i = 0; i < MAX(vocab, SPECIALS + BYTES); i++)
        buf_release(&t->text[i]);
    for (int64_t w = 0; w < t->words; w++)
        free(t->word[w].id);
    for (int64_t p = 0; p < t->pairs; p++)
        free(t->pair[p].word);
    map_release(&t->seen);
    map_release(&t->known);
    ids_release(&merge);
    map_release(&t->texts);
    regex_free(t->regex);
    free(t->text);
    free(t->word);
    free(t->pair);
    free(t->heap);
    free(t);
    return forgotten;
}
