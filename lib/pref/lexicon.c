/* lexicon.c -- a reward that anyone can check by hand: how pleasant the words of a text are.
 *
 * Dividing by the square root of the number of words, not by the number, lets a long pleasant text
 * beat a short one, yet not by piling up words alone. */
#include "pref/pref.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct lexicon {
    struct entry {
        size_t at, len; /* the word in `words`; len 0: free */
        double valence;
    } * slot; /* open addressing, slots a power of two */
    int64_t slots, n;
    struct buf words;
};

static struct entry *find(const struct lexicon *x, const char *word, size_t len)
{
    uint64_t mask = (uint64_t)x->slots - 1, i = hash_xxh3(word, len) & mask;
    for (;; i = (i + 1) & mask) {
        struct entry *e = &x->slot[i];
        if (!e->len || (e->len == len && !memcmp(x->words.data + e->at, word, len)))
            return e;
    }
}

static void grow(struct lexicon *x)
{
    struct lexicon old = *x;
    x->slots = old.slots ? 2 * old.slots : 1024;
    x->slot = xcalloc((size_t)x->slots, sizeof(*x->slot));
    for (int64_t i = 0; i < old.slots; i++)
        if (old.slot[i].len)
            *find(x, x->words.data + old.slot[i].at, old.slot[i].len) = old.slot[i];
    free(old.slot);
}

static void put(struct lexicon *x, const char *word, size_t len, double valence)
{
    if (2 * x->n >= x->slots)
        grow(x);
    struct entry *e = find(x, word, len);
    if (!e->len) {
        *e = (struct entry){x->words.len, len, 0};
        buf_add(&x->words, word, len);
        x->n++;
    }
    e->valence = valence;
}

static void lower(struct buf *out, int32_t c)
{
    if (c < 0x80) {
        buf_char(out, (char)(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c));
        return;
    }
    utf8proc_uint8_t u[4];
    utf8proc_ssize_t n = utf8proc_encode_char(utf8proc_tolower(c), u);
    buf_add(out, u, (size_t)n);
}

/* The next character, whatever the bytes are: a stray byte reads as a blank. */
static int32_t next_char(const char *s, size_t len, size_t *at)
{
    int32_t c = (unsigned char)s[*at];
    if (c < 0x80) {
        ++*at;
        return c;
    }
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s + *at, (utf8proc_ssize_t)(len - *at), &c);
    *at += n > 0 ? (size_t)n : 1;
    return n > 0 ? c : ' ';
}

static int is_letter(int32_t c)
{
    if (c < 0x80)
        return (c | 32) >= 'a' && (c | 32) <= 'z';
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME);
}

struct lexicon *lexicon_open(const char *path)
{
    struct lexicon *x = xcalloc(1, sizeof(*x));
    struct buf file = read_file(path), word = {0};
    grow(x);
    int64_t number = 0;
    for (size_t at = 0, end; at < file.len; at = end + 1) {
        const char *line = file.data + at, *newline = memchr(line, '\n', file.len - at);
        end = newline ? (size_t)(newline - file.data) : file.len;
        file.data[end] = 0; /* a buf has room for one more than len */
        number++;
        if (!*line || *line == '\r' || *line == '#')
            continue;
        char *tab = memchr(line, '\t', end - at), *stop = NULL;
        double v = tab ? strtod(tab + 1, &stop) : NAN;
        if (!tab || tab == line || stop == tab + 1 || !strchr("\t\r", *stop) || !isfinite(v))
            die("%s:%lld: wanted a word, a tab and a number", path, (long long)number);
        buf_reset(&word);
        for (size_t i = 0, n = (size_t)(tab - line); i < n;)
            lower(&word, next_char(line, n, &i));
        put(x, word.data, word.len, v);
    }
    if (!x->n)
        die("%s: no words in this lexicon", path);
    buf_release(&word);
    buf_release(&file);
    return x;
}

/* Quotation marks look like apostrophes: 'good' is good. */
static double word_valence(const struct lexicon *x, const char *s, size_t len, int64_t *words)
{
    while (len && *s == '\'')
        s++, len--;
    while (len && s[len - 1] == '\'')
        len--;
    *words += len > 0;
    return len ? find(x, s, len)->valence : 0;
}

double lexicon_score(const struct lexicon *x, const char *text, size_t len)
{
    struct buf word = {0};
    int64_t words = 0;
    double sum = 0;
    for (size_t at = 0; at < len;) {
        int32_t c = next_char(text, len, &at);
        if (c == 0x2019) /* the typographic apostrophe */
            c = '\'';
        if (c == '\'' || is_letter(c)) {
            lower(&word, c);
        } else if (word.len) {
            sum += word_valence(x, word.data, word.len, &words);
            buf_reset(&word);
        }
    }
    if (word.len)
        sum += word_valence(x, word.data, word.len, &words);
    buf_release(&word);
    return words ? sum / sqrt((double)words) : 0;
}

void lexicon_free(struct lexicon *x)
{
    free(x->slot);
    buf_release(&x->words);
    free(x);
}
