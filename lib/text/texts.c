/* texts.c -- the texts in one entry, between separators such as the "%" of fortune files, and the
 * pieces of a text that is too long. */

#include "text/text.h"

#include <string.h>

/* A line's length without its carriage return. */
static size_t chomp(const char *line, size_t len)
{
    return len - (len && line[len - 1] == '\r');
}

int texts_next(struct texts *t)
{
    size_t want = t->separator ? strlen(t->separator) : 0, n, len;
    const char *rest;
    char *line;
    int64_t lines = 0; /* of this text */

    if (!t->separator) {
        t->line = 1;
        if (t->number)
            return 0;
        source_entry(t->source, &t->text);
        return !!++t->number;
    }
    buf_reset(&t->text);
    while (source_rest(t->source, &rest, &n)) {
        source_line(t->source, &line, &len);
        if (!lines)
            t->line = source_line_number(t->source);
        int hit = chomp(line, len) == want && !memcmp(line, t->separator, want);
        if (!hit) {
            if (lines++)
                buf_char(&t->text, '\n');
            buf_add(&t->text, line, len);
            if (t->text.len > RECORD_BYTES_MAX)
                source_too_long(t->source);
        } else if (chomp(t->text.data, t->text.len)) {
            break;
        } else {
            buf_reset(&t->text);
            lines = 0;
        }
    }
    t->text.len = chomp(t->text.data, t->text.len);
    t->number += t->text.len > 0;
    return t->text.len > 0;
}

void texts_release(struct texts *t)
{
    buf_release(&t->text);
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)((at - digits) % 16) : -1;
}

int text_unescape(struct buf *out, const char *s)
{
    static const char letters[] = "fnrt\\", bytes[] = "\f\n\r\t\\";

    for (; *s; s++) {
        const char *at;
        if (*s != '\\') {
            buf_char(out, *s);
        } else if (s[1] == 'x' && hex_digit(s[2]) >= 0 && hex_digit(s[3]) >= 0) {
            buf_char(out, (char)(16 * hex_digit(s[2]) + hex_digit(s[3])));
            s += 3;
        } else if (s[1] && (at = strchr(letters, s[1]))) {
            buf_char(out, bytes[at - letters]);
            s++;
        } else {
            return -1;
        }
    }
    return 0;
}

/* ---- pieces ---- */

static int is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Whether a sentence ends before s[at], which is blank: a stop, and what may close behind it. */
static int is_sentence_end(const char *s, size_t at)
{
    static const char *const closing[] = {"\"", "'",      ")",      "]",     "_",
                                          "*",  "\u201d", "\u2019", "\u00bb"};
    static const char *const stop[] = {".", "!", "?", "\u2026"};

    for (int64_t i = 0; i < ARRAY_LEN(closing); i++) {
        size_t n = strlen(closing[i]);
        if (at >= n && !memcmp(s + at - n, closing[i], n)) {
            at -= n;
            i = -1; /* several may follow one another */
        }
    }
    for (int64_t i = 0; i < ARRAY_LEN(stop); i++) {
        size_t n = strlen(stop[i]);
        if (at >= n && !memcmp(s + at - n, stop[i], n))
            return 1;
    }
    return 0;
}

/* Whether the white space that begins at s[at] holds an empty line. */
static int is_paragraph_end(const char *s, size_t len, size_t at)
{
    int lines = 0;

    for (; at < len && is_blank(s[at]); at++)
        lines += s[at] == '\n';
    return lines > 1;
}

size_t text_piece(const char *s, size_t len, int64_t n, size_t *next)
{
    size_t limit = 0, half = 0, paragraph = 0, sentence = 0, space = 0, end;

    for (int64_t k = 0; k < n && limit < len; k++) {
        limit++;
        while (limit < len && ((unsigned char)s[limit] & 0xc0) == 0x80)
            limit++;
        if (k + 1 == (n + 1) / 2)
            half = limit;
    }
    for (size_t i = 1; limit < len && i <= limit; i++) {
        if (!is_blank(s[i]) || is_blank(s[i - 1]))
            continue;
        space = i;
        if (i >= half && is_paragraph_end(s, len, i))
            paragraph = i;
        if (i >= half && is_sentence_end(s, i))
            sentence = i;
    }
    end = limit == len ? len : paragraph ? paragraph : sentence ? sentence : space ? space : limit;
    *next = end;
    while (*next < len && is_blank(s[*next]))
        ++*next;
    if (limit == len) /* the last one, or the only one, keeps its end */
        *next = len;
    return end;
}
