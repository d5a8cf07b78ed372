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

/* utf8proc 2.8 loses U+11A7 after a Hangul syllable (it takes it for "no final consonant").  It is
 * a starter that composes with nothing before it, so the text may be normalised up to it and from
 * it. */
static void norm_unicode(const char *s, size_t n, int form, struct buf *out)
{
    static const char lost[] = "\xe1\x86\xa7";

    while (n) {
        const char *cut = memmem(s + 1, n - 1, lost, 3);
        size_t part = cut ? (size_t)(cut - s) : n;
        utf8proc_uint8_t *formed;
        utf8proc_ssize_t len =
            utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)part, &formed, form);
        if (len < 0)
            die("normalising: %s", utf8proc_errmsg(len));
        buf_add(out, formed, (size_t)len);
        free(formed);
        s += part;
        n -= part;
    }
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
        buf_replace(out, s, n, &step->a, &step->b);
        return;
    case NORM_UNICODE:
        if (is_ascii(s, n))
            buf_add(out, s, n);
        else
            norm_unicode(s, n, step->form, out);
        return;
    }
}

void tok_normalize(const struct tok *t, const char *s, size_t n, struct buf *out)
{
    struct buf next = {0};

    buf_reset(out);
    buf_add(out, s, n);
    for (int64_t i = 0; i < t->norms; i++) {
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
                                  (step->behavior == SPLIT_WITH_NEXT && !match && held_match));
        if (at > held && !joins) {
            split_from(t, k + 1, s + held, at - held, first && !held, out);
            held = at;
        }
        held_match = joins || match; /* what a match has joined takes no second one */
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
    int prefix =
        !begins && (step->prefix == PREFIX_ALWAYS || (step->prefix == PREFIX_FIRST && first));
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
