/* tok_split.c -- a text becomes normalised text, and that becomes the pieces merges work within.
 *
 * The splitting steps nest: a step cuts its text and hands each part to the next step, and the last
 * hands it to the merges.  So a step may change its text (a prefix, '▁' for spaces) without anyone
 * keeping lists. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others, in order, for the
 * code points from U+0100. */
static int is_printable(int b)
{
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

uint32_t byte_level_char(uint8_t byte)
{
    uint32_t shift = 0;

    if (is_printable(byte))
        return byte;
    for (int b = 0; b < byte; b++)
        shift += !is_printable(b);
    return 256 + shift;
}

int byte_level_byte(uint32_t c)
{
    static int16_t byte[256 + 68]; /* 68 bytes are not printable; 0 until filled */

    if (!byte['!']) {
        memset(byte, -1, sizeof byte);
        for (int b = 0; b < 256; b++)
            byte[byte_level_char((uint8_t)b)] = (int16_t)b;
    }
    return c < ARRAY_LEN(byte) ? byte[c] : -1;
}

void buf_replace(struct buf *out, const char *s, size_t n, const struct buf *a, const struct buf *b)
{
    const char *end = s + n;

    while (s < end) {
        const char *hit = memmem(s, (size_t)(end - s), a->data, a->len);
        buf_add(out, s, (size_t)((hit ? hit : end) - s));
        if (!hit)
            return;
        buf_add(out, b->data, b->len);
        s = hit + a->len;
    }
}

static int is_ascii(const char *s, size_t n)
{
    unsigned char all = 0;

    for (size_t i = 0; i < n; i++)
        all |= (unsigned char)s[i];
    return all < 0x80;
}

/* What normalising leaves as it is, and does not look past.  The `tokenizers` package has Unicode
 * 9: marks, compositions and compatibility forms that came later are letters like any other to it
 * (those to Unicode 15 are here).  And U+11A7 after a Hangul
 * syllable, which utf8proc 2.8 loses (it takes it for "no final consonant"). */
static int is_left(utf8proc_int32_t c)
{
    static const int32_t left[][2] = {
        {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
        {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},
        {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},
        {0xa7f2, 0xa7f4},   {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785},
        {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac},
        {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070},
        {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930},
        {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0},
        {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42},
        {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1},
        {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
        {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};
    int low = 0, high = ARRAY_LEN(left); /* left[low][0] <= c < left[high][0] */

    if (c < left[0][0])
        return 0;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (left[mid][0] <= c)
            low = mid;
        else
            high = mid;
    }
    return c <= left[low][1];
}

/* Below PLAIN_END a bit says of a character that it stays as it is and what is before it too: it is
 * no mark, and no vowel or final consonant that a Hangul syllable would take in. */
enum { PLAIN_END = 0x20000 };

uint8_t *norm_plain(int form)
{
    uint8_t *plain = xcalloc(PLAIN_END / 8, 1);

    for (utf8proc_int32_t c = 0; c < PLAIN_END; c++) {
        utf8proc_int32_t to[32];
        utf8proc_category_t category = utf8proc_category(c);
        int is_syllable = c >= 0xac00 && c <= 0xd7a3 && form & UTF8PROC_COMPOSE;
        if ((category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME) ||
            category == UTF8PROC_CATEGORY_CN || category == UTF8PROC_CATEGORY_CS || is_left(c) ||
            (c >= 0x1160 && c <= 0x11ff))
            continue;
        if (is_syllable || (utf8proc_decompose_char(c, to, 32, form, NULL) == 1 && to[0] == c))
            plain[c / 8] |= (uint8_t)(1 << c % 8);
    }
    return plain;
}

static void norm_part(const char *s, size_t n, int form, struct buf *out)
{
    utf8proc_uint8_t *formed;
    utf8proc_ssize_t len =
        utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &formed, form);

    if (len < 0)
        die("normalising: %s", utf8proc_errmsg(len));
    buf_add(out, formed, (size_t)len);
    free(formed);
}

static void norm_changing(const char *s, size_t n, int form, struct buf *out)
{
    const char *end = s + n, *from = s;

    while (s < end) {
        utf8proc_int32_t c;
        utf8proc_ssize_t len =
            utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)(end - s), &c);
        if (len < 1)
            die("normalising: %s", utf8proc_errmsg(len));
        if (is_left(c)) {
            norm_part(from, (size_t)(s - from), form, out);
            buf_add(out, s, (size_t)len);
            from = s + len;
        }
        s += len;
    }
    norm_part(from, (size_t)(end - from), form, out);
}

/* Only what is not plain, with the character before it, is given to utf8proc. */
static void norm_unicode(const struct norm_step *step, const char *s, size_t n, struct buf *out)
{
    const char *end = s + n, *kept = s,
               *before = s; /* s[.., kept) is out; before: the last plain one */

    for (const char *p = s; p < end;) {
        const char *from = p;
        uint32_t c = (unsigned char)*p < 0x80 ? (unsigned char)*p++ : utf8_next(&p);
        if (c < PLAIN_END && step->plain[c / 8] >> c % 8 & 1) {
            before = from;
            continue;
        }
        buf_add(out, kept, (size_t)(before - kept));
        while (p < end) {
            from = p;
            c = utf8_next(&p);
            if (c < PLAIN_END && step->plain[c / 8] >> c % 8 & 1) {
                p = from;
                break;
            }
        }
        norm_changing(before, (size_t)(p - before), step->form, out);
        kept = before = p;
    }
    buf_add(out, kept, (size_t)(end - kept));
}

static void norm_regex(const struct norm_step *step, const char *s, size_t n, struct buf *out)
{
    size_t at = 0, start, end;

    for (; regex_next(step->regex, s, n, at, &start, &end); at = end) {
        buf_add(out, s + at, start - at);
        buf_add(out, step->b.data, step->b.len);
    }
    buf_add(out, s + at, n - at);
}

static void norm_apply(const struct norm_step *step, const char *s, size_t n, struct buf *out)
{
    switch (step->type) {
    case NORM_PREPEND:
        if (n)
            buf_add(out, step->a.data, step->a.len);
        buf_add(out, s, n);
        return;
    case NORM_REPLACE:
        if (step->regex)
            norm_regex(step, s, n, out);
        else
            buf_replace(out, s, n, &step->a, &step->b);
        return;
    case NORM_UNICODE:
        if (is_ascii(s, n))
            buf_add(out, s, n);
        else
            norm_unicode(step, s, n, out);
        return;
    }
}

void tok_normalize(const struct tok *t, const char *s, size_t n, struct buf *out)
{
    struct buf next = {0};

    buf_reset(out);
    buf_add(out, s, n);
    for (int64_t i = 0; i < t->norms; i++) {
        if (t->within && t->norm[i].type == NORM_PREPEND)
            continue;
        buf_reset(&next);
        norm_apply(&t->norm[i], out->data, out->len, &next);
        struct buf swap = *out;
        *out = next;
        next = swap;
    }
    buf_release(&next);
}

static void split_from(struct tok *t, int64_t k, const char *s, size_t n, int first,
                       struct ids *out);

/* Cuts s by the step's regex.  A part is a match or a gap; those that stay are joined to a
 * neighbour where the behaviour says so: a gap and the match after it, or a match and the gap after
 * it. */
static void split_cut(struct tok *t, int64_t k, const char *s, size_t n, int first, struct ids *out)
{
    const struct split_step *step = &t->split[k];
    size_t at = 0, held = 0, start = 0, end = 0; /* [held, at) waits for what may join it */
    int held_match = 0;

    while (at < n) {
        if (end <= at && !regex_next(step->regex, s, n, at, &start, &end))
            start = end = n;
        int match = at == start && end > start;
        size_t stop = match ? end : start;
        match ^= step->invert;
        int joins = at > held && ((step->behavior == SPLIT_WITH_PREVIOUS && match && !held_match) ||
                                  (step->behavior == SPLIT_WITH_NEXT && !match && held_match) ||
                                  (step->behavior == SPLIT_CONTIGUOUS && match == held_match));
        if (at > held && !joins) {
            split_from(t, k + 1, s + held, at - held, first && !held, out);
            held = at;
        }
        held_match = match;
        at = stop;
        if (step->behavior == SPLIT_REMOVED && match)
            held = at;
    }
    if (at > held)
        split_from(t, k + 1, s + held, at - held, first && !held, out);
}

static void split_from(struct tok *t, int64_t k, const char *s, size_t n, int first,
                       struct ids *out)
{
    const struct split_step *step = &t->split[k];
    static const struct buf blank = {(char *)" ", 1, 0};
    struct buf changed = {0};

    if (!n)
        return;
    if (k == t->splits) {
        tok_merge(t, s, n, out);
        return;
    }
    const struct buf *space = step->space.len ? &step->space : &blank;
    int begins = n >= space->len && !memcmp(s, space->data, space->len);
    if (step->space.len)
        begins |= s[0] == ' ';
    int prefix = !begins && !t->within &&
                 (step->prefix == PREFIX_ALWAYS || (step->prefix == PREFIX_FIRST && first));
    if (prefix || step->space.len) {
        if (prefix)
            buf_add(&changed, space->data, space->len);
        buf_replace(&changed, s, n, &blank, space);
        s = changed.data;
        n = changed.len;
    }
    if (step->regex)
        split_cut(t, k, s, n, first, out);
    else
        split_from(t, k + 1, s, n, first, out);
    buf_release(&changed);
}

void tok_split(struct tok *t, const char *s, size_t n, int first, struct ids *out)
{
    split_from(t, 0, s, n, first, out);
}
