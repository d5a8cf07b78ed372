/* tok.c -- a tokenizer in use: added tokens are found first, the text between them is normalised,
 * cut and merged.
 *
 * Added tokens are looked for twice, as in the library whose ids must be matched: those that are
 * literal in the text as it came, those marked "normalized" in the normalised text.  A special
 * token that the caller did not ask for still ends the search at its place, and then counts as
 * text.  What a token takes on its right is still looked through for the next, which is lost where
 * nothing is left of it. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* White_Space, as far as a token's neighbours go. */
static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static size_t spaces_before(const char *s, size_t at, size_t floor)
{
    while (at > floor) {
        size_t start = at - 1;
        while (start > floor && ((unsigned char)s[start] & 0xc0) == 0x80)
            start--;
        const char *p = s + start;
        if (!is_space(utf8_next(&p)))
            break;
        at = start;
    }
    return at;
}

static size_t spaces_after(const char *s, size_t n, size_t at)
{
    while (at < n) {
        const char *p = s + at;
        if (!is_space(utf8_next(&p)))
            break;
        at = (size_t)(p - s);
    }
    return at;
}

/* Whether a word goes on over either end of s[start, end). */
static int is_in_word(const struct tok *t, const char *s, size_t n, size_t start, size_t end)
{
    size_t before = start, from, to;

    while (before && ((unsigned char)s[--before] & 0xc0) == 0x80)
        ;
    if (start > before && regex_next(t->word, s + before, start - before, 0, &from, &to))
        return 1;
    const char *after = s + end;
    if (end < n)
        utf8_next(&after);
    return end < n && regex_next(t->word, s + end, (size_t)(after - s) - end, 0, &from, &to);
}

/* The next added token of this kind at or after *at, or NULL; *start and *end are its place in s,
 * *at where to look on.  No place before floor is taken. */
static const struct added *added_next(const struct tok *t, const char *s, size_t n, int normalized,
                                      int special, size_t floor, size_t *at, size_t *start,
                                      size_t *end)
{
    const uint8_t *pair = t->added_pair[normalized];

    for (size_t i = *at; pair && i < n; i++) {
        unsigned char c = (unsigned char)s[i], d = i + 1 < n ? (unsigned char)s[i + 1] : 0;
        if (i + 1 < n && !(pair[c * 32 + d / 8] >> d % 8 & 1))
            continue;
        for (int64_t k = t->added_at[c]; k < t->added_at[c + 1]; k++) {
            const struct added *a = &t->added[k];
            if (a->normalized != normalized || a->text.len > n - i ||
                memcmp(s + i, a->text.data, a->text.len))
                continue;
            *at = i + a->text.len;
            if ((a->special && !special) || (a->single_word && is_in_word(t, s, n, i, *at))) {
                i = *at - 1;
                break;
            }
            *start = a->lstrip ? MAX(spaces_before(s, i, floor), floor) : i;
            *end = a->rstrip ? spaces_after(s, n, *at) : *at;
            return a;
        }
    }
    return NULL;
}

static void encode_normalized(struct tok *t, const char *s, size_t n, int special, int first,
                              struct ids *out)
{
    struct buf b = {0};
    const struct added *a;
    size_t gap = 0, at = 0, start, end;

    tok_normalize(t, s, n, &b);
    while ((a = added_next(t, b.data, b.len, 1, special, gap, &at, &start, &end))) {
        if (start > gap)
            tok_split(t, b.data + gap, start - gap, first && !gap, out);
        if (end > start)
            ids_add(out, a->id);
        gap = end;
    }
    tok_split(t, b.data + gap, b.len - gap, first && !gap, out);
    buf_release(&b);
}

void tok_encode_at(struct tok *t, const char *text, size_t len, int special, enum tok_place place,
                   struct ids *out)
{
    int first = place == TOK_FIRST;
    struct buf repaired = {0};
    const struct added *a;
    size_t gap = 0, at = 0, start, end;

    if (!utf8_valid(text, len)) {
        utf8_repair(&repaired, text, len);
        text = repaired.data;
        len = repaired.len;
    }
    t->within = place == TOK_WITHIN;
    while ((a = added_next(t, text, len, 0, special, gap, &at, &start, &end))) {
        if (start > gap)
            encode_normalized(t, text + gap, start - gap, special, first && !gap, out);
        t->within = 0;
        if (end > start)
            ids_add(out, a->id);
        gap = end;
    }
    if (len > gap)
        encode_normalized(t, text + gap, len - gap, special, first && !gap, out);
    t->within = 0;
    buf_release(&repaired);
}

void tok_encode(struct tok *t, const char *text, size_t len, int special, struct ids *out)
{
    tok_encode_at(t, text, len, special, TOK_FIRST, out);
}

int tok_is_added(const struct tok *t, int64_t id)
{
    for (int64_t i = 0; i < t->addeds; i++)
        if (t->added[i].id == id)
            return 1;
    return 0;
}

const struct buf *tok_json(const struct tok *t)
{
    return &t->json;
}

const struct buf *tok_config(const struct tok *t)
{
    return &t->config;
}

const char *tok_hash(const struct tok *t)
{
    return t->hash;
}

int64_t tok_size(const struct tok *t)
{
    return t->size;
}

int64_t tok_id(const struct tok *t, const char *token)
{
    int64_t id = map_get(&t->ids, token, strlen(token));

    for (int64_t i = 0; id < 0 && i < t->addeds; i++)
        if (!strcmp(t->added[i].name.data, token))
            id = t->added[i].id;
    return id;
}

int64_t tok_bos(const struct tok *t)
{
    return t->bos;
}

int64_t tok_eos(const struct tok *t)
{
    return t->eos;
}

int64_t tok_bos_token(const struct tok *t)
{
    return t->bos >= 0 ? t->bos : t->bos_token;
}

struct tok *tok_twin(const struct tok *t)
{
    struct tok *twin = xmemdup(t, sizeof *t);

    twin->is_twin = 1;
    twin->word = regex_twin(t->word);
    for (int64_t i = 0; i < t->norms; i++)
        twin->norm[i].regex = regex_twin(t->norm[i].regex);
    for (int64_t i = 0; i < t->splits; i++)
        twin->split[i].regex = regex_twin(t->split[i].regex);
    memset((char *)twin + offsetof(struct tok, cache), 0,
           sizeof *twin - offsetof(struct tok, cache));
    return twin;
}

/* What twins share. */
static void free_shared(struct tok *t)
{
    for (int64_t i = 0; i < t->size; i++)
        buf_release(&t->token[i]);
    for (int64_t i = 0; i < t->addeds; i++) {
        buf_release(&t->added[i].name);
        buf_release(&t->added[i].text);
    }
    for (int64_t i = 0; i < t->norms; i++) {
        buf_release(&t->norm[i].a);
        buf_release(&t->norm[i].b);
        free(t->norm[i].plain);
    }
    for (int64_t i = 0; i < t->splits; i++)
        buf_release(&t->split[i].space);
    for (int64_t i = 0; i < t->decodes; i++) {
        buf_release(&t->decode[i].a);
        buf_release(&t->decode[i].b);
    }
    map_release(&t->ids);
    pairs_release(&t->merges);
    buf_release(&t->json);
    buf_release(&t->config);
    buf_release(&t->chat_template);
    free(t->token);
    free(t->special);
    free(t->added_pair[0]);
    free(t->added_pair[1]);
    free(t->added);
}

void tok_free(struct tok *t)
{
    regex_free(t->word);
    for (int64_t i = 0; i < t->norms; i++)
        regex_free(t->norm[i].regex);
    for (int64_t i = 0; i < t->splits; i++)
        regex_free(t->split[i].regex);
    if (!t->is_twin)
        free_shared(t);
    free(t->cache);
    free(t->known);
    free(t->beside);
    free(t->first);
    free(t->symbol);
    free(t->heap);
    free(t);
}
