/* elements.c -- the values of a JSON array one at a time, so that its size does not matter.
 *
 * Only the brackets, quotes and commas of the array itself are looked at; whether an element is
 * JSON is for the parser to say.  An element on several lines becomes one line: a newline can only
 * stand between tokens, so it and the indentation behind it become a space. */

#include "text/text.h"

#include <string.h>

enum place { BEFORE, FIRST, ELEMENT, BEHIND }; /* FIRST: an element, or the end of an empty array */

/* Skips white space; the next byte, not taken, or -1 at the end of the entry. */
static int next_byte(struct source *s)
{
    const char *bytes;
    size_t n;

    while (source_rest(s, &bytes, &n)) {
        size_t k = 0;
        while (k < n && memchr(" \t\r\n", bytes[k], 4))
            k++;
        source_skip(s, k);
        if (k < n)
            return (unsigned char)bytes[k];
    }
    return -1;
}

/* Takes the bytes up to the comma or bracket that ends the element, which it returns, not taken; -1
 * when there is none. */
static int take(struct elements *e)
{
    int quoted = 0, escaped = 0, indent = 0;
    int64_t depth = 0;
    const char *bytes;
    size_t n;

    while (source_rest(e->source, &bytes, &n)) {
        size_t i = 0, done = 0; /* bytes[done..i) belongs to the element and is not copied */
        for (; i < n; i++) {
            char c = bytes[i];
            if (quoted) {
                quoted = escaped || c != '"';
                escaped = !escaped && c == '\\';
                continue;
            }
            if (!depth && (c == ',' || c == ']'))
                break;
            if (c == '\n' || (indent && (c == ' ' || c == '\t' || c == '\r'))) {
                buf_add(&e->text, bytes + done, i - done);
                if (!indent)
                    buf_char(&e->text, ' ');
                done = i + 1;
                indent = 1;
                continue;
            }
            indent = 0;
            quoted = c == '"';
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        }
        buf_add(&e->text, bytes + done, i - done);
        if (e->text.len > RECORD_BYTES_MAX)
            source_too_long(e->source);
        source_skip(e->source, i);
        if (i < n)
            return bytes[i];
    }
    return -1;
}

int elements_next(struct elements *e, const char **why)
{
    int c = next_byte(e->source);

    buf_reset(&e->text);
    if (e->at == BEFORE) {
        *why = "not a JSON array";
        if (c != '[')
            return -1;
        source_skip(e->source, 1);
        c = next_byte(e->source);
        e->at = FIRST;
    }
    if (e->at == FIRST && c == ']') {
        source_skip(e->source, 1);
        c = next_byte(e->source);
        e->at = BEHIND;
    }
    *why = "something follows the JSON array";
    if (e->at == BEHIND)
        return c < 0 ? 0 : -1;
    e->number++;
    *why = "the JSON array is cut off";
    if (c < 0 || (c = take(e)) < 0)
        return -1;
    while (e->text.len && memchr(" \t\r", e->text.data[e->text.len - 1], 3))
        e->text.len--;
    buf_add(&e->text, "", 0); /* ends it there */
    source_skip(e->source, 1);
    e->at = c == ',' ? ELEMENT : BEHIND;
    return 1;
}

void elements_release(struct elements *e)
{
    buf_release(&e->text);
}
