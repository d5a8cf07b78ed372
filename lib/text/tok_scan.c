/* tok_scan.c -- the patterns most tokenizers use, by hand: a loop over a table of character
 * classes.
 *
 * A pattern is known by its exact text; PCRE2 runs every other one, is the definition of these
 * (tests/text.c cuts random text both ways) and fills the table, so that both have one Unicode. */

#include "text/tok_scan.h"

#include "text/tok.h"
#include "text/tok_known.h"

#include <pthread.h>
#include <string.h>

/* Letter, number, space, mark, sign; a letter that is a capital, small, or neither. */
enum { L = 1, N = 2, S = 4, M = 8, PS = 16, UPPER = 32, LOWER = 64 };
enum { CLASSES_END = 0x110000 };

static uint8_t class_of[CLASSES_END];

/* Where characters are or may come to be: planes 4 to 13 and those of private use have none of
 * these classes. */
static void classes_fill(void)
{
    static const struct {
        const char *pattern;
        uint8_t bit;
    } classes[] = {{"\\p{L}+", L},     {"\\p{N}+", N},          {"\\s+", S},
                   {"\\p{M}+", M},     {"[\\p{P}\\p{S}]+", PS}, {"[\\p{Lu}\\p{Lt}]+", UPPER},
                   {"\\p{Ll}+", LOWER}}; /* none has a scanner below */
    struct buf all = {0};
    size_t start, end;

    for (uint32_t c = 0; c < 0xe1000; c = c == 0xd7ff ? 0xe000 : c == 0x3ffff ? 0xe0000 : c + 1)
        utf8_add(&all, c);
    for (int64_t i = 0; i < ARRAY_LEN(classes); i++) {
        struct regex *r = regex_new(classes[i].pattern, strlen(classes[i].pattern), 0, "classes");
        for (size_t at = 0; regex_next(r, all.data, all.len, at, &start, &end); at = end)
            for (const char *p = all.data + start; p < all.data + end;)
                class_of[utf8_next(&p)] |= classes[i].bit;
        regex_free(r);
    }
    buf_release(&all);
}

/* The class of the character at s[i], i < n, in well-formed UTF-8, and where the next one begins.
 */
static inline int class_at(const unsigned char *s, size_t i, size_t *next)
{
    uint32_t c = s[i];

    if (c < 0x80) {
        *next = i + 1;
    } else if (c < 0xe0) {
        c = (c & 0x1f) << 6 | (s[i + 1] & 0x3f);
        *next = i + 2;
    } else if (c < 0xf0) {
        c = (c & 0xf) << 12 | (s[i + 1] & 0x3fu) << 6 | (s[i + 2] & 0x3f);
        *next = i + 3;
    } else {
        c = (c & 7) << 18 | (s[i + 1] & 0x3fu) << 12 | (s[i + 2] & 0x3fu) << 6 | (s[i + 3] & 0x3f);
        *next = i + 4;
    }
    return class_of[c];
}

/* Past the characters from i that have one of the classes; run_not: that have none. */
static inline size_t run(const unsigned char *s, size_t n, size_t i, int classes)
{
    for (size_t next; i < n && class_at(s, i, &next) & classes; i = next)
        ;
    return i;
}
static inline size_t run_not(const unsigned char *s, size_t n, size_t i, int classes)
{
    for (size_t next; i < n && !(class_at(s, i, &next) & classes); i = next)
        ;
    return i;
}
static size_t run_lines(const unsigned char *s, size_t n, size_t i)
{
    while (i < n && (s[i] == '\r' || s[i] == '\n'))
        i++;
    return i;
}

/* '(?:s|t|re|ve|m|ll|d), after the apostrophe at i; i where there is none.  Without regard to case
 * the long s is an s. */
static size_t contraction(const unsigned char *s, size_t n, size_t i, int caseless)
{
    int fold = caseless ? 0x20 : 0;
    int a = i + 1 < n ? s[i + 1] | fold : 0, b = i + 2 < n ? s[i + 2] | fold : 0;

    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return i + 2;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l'))
        return i + 3;
    if (caseless && i + 2 < n && s[i + 1] == 0xc5 && s[i + 2] == 0xbf)
        return i + 3;
    return i;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ where s[i] is a space; without lines the first of these is left out. */
static size_t spaces(const unsigned char *s, size_t n, size_t i, int lines)
{
    size_t at = i, next, last = i, line = 0;

    for (; at < n && class_at(s, at, &next) & S; at = next) {
        if (s[at] == '\r' || s[at] == '\n')
            line = next;
        last = at;
    }
    if (lines && line)
        return line;
    return at < n && last > i ? last : at;
}

static int scan_gpt2(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    size_t next, at;

    if (i >= n)
        return 0;
    *start = i;
    if (s[i] == '\'' && (*end = contraction(s, n, i, 0)) > i)
        return 1;
    at = i + (s[i] == ' ' && i + 1 < n);
    int class = class_at(s, at, &next);
    if (class & S)
        *end = spaces(s, n, i, 0);
    else if (class & (L | N))
        *end = run(s, n, next, class & (L | N));
    else
        *end = run_not(s, n, next, L | N | S);
    return 1;
}

/* cl100k, Llama 3 and Qwen: they differ in how many digits stay together. */
static inline int scan_words(const unsigned char *s, size_t n, size_t i, int digits, size_t *start,
                             size_t *end)
{
    size_t next, after;

    if (i >= n)
        return 0;
    *start = i;
    if (s[i] == '\'' && (*end = contraction(s, n, i, 1)) > i)
        return 1;
    int class = class_at(s, i, &next);
    if (class & N) {
        for (*end = next; --digits && *end < n && class_at(s, *end, &next) & N; *end = next)
            ;
        return 1;
    }
    int letter = class & L;
    if (!letter && s[i] != '\r' && s[i] != '\n' && next < n) {
        letter = class_at(s, next, &after) & L;
        if (letter)
            next = after;
        else if (s[i] == ' ' && !(class_at(s, next, &after) & (L | N | S))) {
            class = 0;
            next = after;
        }
    }
    if (letter)
        *end = run(s, n, next, L);
    else if (class & S)
        *end = spaces(s, n, i, 1);
    else
        *end = run_lines(s, n, run_not(s, n, next, L | N | S));
    return 1;
}
static int scan_words1(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    return scan_words(s, n, i, 1, start, end);
}
static int scan_words3(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    return scan_words(s, n, i, 3, start, end);
}

/* [UPPER and neither]*[LOWER and neither]+ from i, where marks are neither; i where it is not
 * there. Without a small letter the last that is neither ends it. */
static size_t o200k_word(const unsigned char *s, size_t n, size_t i)
{
    size_t next, at = i, end = i;

    for (int class; at < n && (class = class_at(s, at, &next)) & (L | M) && !(class & LOWER);
         at = next)
        if (!(class & UPPER))
            end = next;
    if (at == n || !(class_at(s, at, &next) & LOWER))
        return end;
    for (int class; at < n && (class = class_at(s, at, &next)) & (L | M) && !(class & UPPER);)
        at = next;
    return at;
}

static size_t o200k_capitals(const unsigned char *s, size_t n, size_t i)
{
    for (size_t next; i < n && class_at(s, i, &next) & UPPER; i = next)
        ;
    return i;
}

static int scan_o200k(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    size_t next, after, word;

    if (i >= n)
        return 0;
    *start = i;
    int class = class_at(s, i, &next);
    if (class & N)
        return scan_words(s, n, i, 3, start, end);
    size_t from =
        class & L || s[i] == '\r' || s[i] == '\n' ? i : next; /* past what may be before */
    if ((word = o200k_word(s, n, from)) == from && (word = o200k_word(s, n, i)) == i &&
        (word = o200k_capitals(s, n, from)) == from)
        word = i;
    if (word > i) {
        *end = word < n && s[word] == '\'' ? contraction(s, n, word, 1) : word;
        return 1;
    }
    if (class & S && !(s[i] == ' ' && next < n && !(class_at(s, next, &after) & (L | N | S)))) {
        *end = spaces(s, n, i, 1);
        return 1;
    }
    *end = run_not(s, n, next, L | N | S);
    while (*end < n && (s[*end] == '\r' || s[*end] == '\n' || s[*end] == '/'))
        ++*end;
    return 1;
}

static int scan_digits3(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    size_t next;
    int digits = 3;

    *start = *end = run_not(s, n, i, N);
    for (; digits-- && *end < n && class_at(s, *end, &next) & N; *end = next)
        ;
    return *end > *start;
}

static int is_deepseek_cjk(const unsigned char *s)
{
    uint32_t c = s[0] < 0xe0 ? 0 : (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);

    return s[0] < 0xf0 && ((c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3040 && c <= 0x30ff));
}
static int scan_deepseek_cjk(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    while (i < n && (s[i] < 0xe3 || s[i] > 0xe9 || !is_deepseek_cjk(s + i)))
        i++;
    for (*start = i; i < n && is_deepseek_cjk(s + i);)
        i += 3;
    *end = i;
    return i > *start;
}

static int is_ascii_letter(int c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}
static int scan_deepseek(const unsigned char *s, size_t n, size_t i, size_t *start, size_t *end)
{
    for (size_t next, after; i < n; i = next) {
        int class = class_at(s, i, &next);
        int follower = next < n ? class_at(s, next, &after) : 0;
        *start = i;
        if (class & PS && s[i] < 0x80 && next < n && is_ascii_letter(s[next])) {
            while (next < n && is_ascii_letter(s[next]))
                next++;
            *end = next;
            return 1;
        }
        if (class & (L | M) ||
            (!(class & PS) && s[i] != '\r' && s[i] != '\n' && follower & (L | M)))
            *end = run(s, n, next, L | M);
        else if (class & PS || (s[i] == ' ' && follower & PS))
            *end = run_lines(s, n, run(s, n, next, PS));
        else if (class & S)
            *end = spaces(s, n, i, 1);
        else
            continue;
        return 1;
    }
    return 0;
}

const struct tok_scanner tok_scanners[] = {
    {regex_gpt2, scan_gpt2},
    {tok_qwen_pattern, scan_words1},
    {tok_cl100k_pattern, scan_words3},
    {tok_o200k_pattern, scan_o200k},
    /* DeepSeek's three. */
    {"\\p{N}{1,3}", scan_digits3},
    {"[一-龥\u3040-ゟ゠-ヿ]+", scan_deepseek_cjk},
    {"[!\"#$%&'()*+,\\-./"
     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
     "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
     scan_deepseek},
    {NULL, NULL},
};

tok_scan *tok_scan_of(const char *pattern, size_t len)
{
    static pthread_once_t filled = PTHREAD_ONCE_INIT;

    for (const struct tok_scanner *k = tok_scanners; k->pattern; k++)
        if (strlen(k->pattern) == len && !memcmp(k->pattern, pattern, len)) {
            pthread_once(&filled, classes_fill);
            return k->scan;
        }
    return NULL;
}
