/* words.c -- what a word is, and how many different ones there are.
 *
 * Different words are counted by HyperLogLog (Flajolet et al., 2007): 16 KiB however many there
 * are, within one per cent, and the same on every machine. */
#include "pref/pref.h"

#include <math.h>
#include <string.h>

static int is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80;
}

size_t word_next(const char **s, const char *end)
{
    while (*s < end && memchr(" \t\n\v\f\r", **s, 6))
        ++*s;
    const char *p = *s;
    if (p == end)
        return 0;
    if (!is_word((unsigned char)*p))
        return 1;
    while (p < end && is_word((unsigned char)*p)) {
        const char *next = p;
        if (utf8_next(&next) < 0x2e80)
            p = next;
        else
            return (size_t)((p == *s ? next : p) - *s);
    }
    return (size_t)(p - *s);
}

uint64_t word_hash(const char *s, size_t n)
{
    char low[64];
    if (n > sizeof(low))
        return hash_xxh3(s, n);
    for (size_t i = 0; i < n; i++)
        low[i] = (char)(s[i] >= 'A' && s[i] <= 'Z' ? s[i] + 32 : s[i]);
    return hash_xxh3(low, n);
}

static void distinct_add(struct distinct *d, uint64_t hash)
{
    uint64_t rest = hash << DISTINCT_BITS | UINT64_C(1) << (DISTINCT_BITS - 1); /* ends the run */
    uint8_t run = (uint8_t)(__builtin_clzll(rest) + 1);
    uint8_t *seen = &d->longest[hash >> (64 - DISTINCT_BITS)];
    *seen = MAX(*seen, run);
    d->total++;
}

static double distinct_count(const struct distinct *d)
{
    double m = ARRAY_LEN(d->longest), sum = 0;
    int64_t empty = 0;
    for (int64_t i = 0; i < ARRAY_LEN(d->longest); i++) {
        sum += ldexp(1, -d->longest[i]);
        empty += !d->longest[i];
    }
    double n = 0.7213 / (1 + 1.079 / m) * m * m / sum;
    return n <= 2.5 * m && empty ? m * log(m / (double)empty) : n; /* few: by the empty registers */
}

double distinct_percent(const struct distinct *d)
{
    return d->total ? MIN(100 * distinct_count(d) / (double)d->total, 100) : NAN;
}

void distinct_words(const char *s, size_t len, struct distinct *words, struct distinct *pairs)
{
    const char *end = s + len;
    uint64_t pair[2] = {0, 0};
    int64_t seen = 0;
    for (size_t n; (n = word_next(&s, end)); s += n) {
        pair[0] = pair[1];
        pair[1] = word_hash(s, n);
        distinct_add(words, pair[1]);
        if (seen++)
            distinct_add(pairs, hash_xxh3(pair, sizeof(pair)));
    }
}
