/* json_edit.c -- change one member of an object and leave every other byte as it was.
 *
 * Rows pass through tools untouched where nothing in them changes, so editing works on the text: a
 * scanner finds where each member begins and ends, and the rest is copied. */
#include "base.h"

#include <string.h>

static size_t skip_space(const char *s, size_t len, size_t i)
{
    while (i < len && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r'))
        i++;
    return i;
}

/* s[i] is the opening quote; returns the index behind the closing one, which is the first that does
 * not follow an odd number of backslashes. */
static size_t skip_string(const char *s, size_t len, size_t i)
{
    const char *open = s + i, *end = s + len, *p = open;
    while (++p < end && (p = memchr(p, '"', (size_t)(end - p)))) {
        const char *slash = p;
        while (slash[-1] == '\\') /* the opening quote stops it */
            slash--;
        if ((p - slash) % 2 == 0)
            return (size_t)(p - s) + 1;
    }
    return len;
}

static size_t skip_value(const char *s, size_t len, size_t i)
{
    int64_t depth = 0;
    do {
        if (s[i] == '"') {
            i = skip_string(s, len, i);
        } else if (s[i] == '{' || s[i] == '[') {
            depth++;
            i++;
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
            i++;
        } else if (depth) {
            i++;
        } else {
            while (i < len && !memchr(",}] \t\n\r", s[i], 7))
                i++;
        }
    } while (depth && i < len);
    return i;
}

/* Whether the quoted string of len bytes at s spells key; an escaped one is rare and may cost. */
static int spells(const char *s, size_t len, const char *key)
{
    size_t n = strlen(key);
    if (!memchr(s, '\\', len))
        return len == n + 2 && !memcmp(s + 1, key, n);
    struct json_doc *d = json_doc_new();
    struct json v;
    const char *why, *plain;
    int same = !json_parse(d, s, len, &v, &why) && (plain = json_string(v, &len)) && len == n &&
               !memcmp(plain, key, n);
    json_doc_free(d);
    return same;
}

static void splice(struct buf *out, const char *text, size_t len, size_t from, size_t to,
                   const char *with)
{
    buf_add(out, text, from);
    buf_str(out, with);
    buf_add(out, text + to, len - to);
}

void json_edit(struct buf *out, const char *text, size_t len, const char *key, const char *value)
{
    size_t open = skip_space(text, len, 0) + 1, last = open; /* last: behind the previous value */
    size_t at = skip_space(text, len, open);
    while (at < len && text[at] == '"') {
        size_t key_end = skip_string(text, len, at);
        size_t colon = skip_space(text, len, key_end);
        size_t from = skip_space(text, len, colon + 1), to = skip_value(text, len, from);
        size_t comma = skip_space(text, len, to);
        int more = comma < len && text[comma] == ',';
        size_t next = more ? skip_space(text, len, comma + 1) : comma;
        if (spells(text + at, key_end - at, key)) {
            if (value)
                splice(out, text, len, from, to, value);
            else if (last != open) /* with the comma before it */
                splice(out, text, len, last, to, "");
            else /* the first, with the comma behind it */
                splice(out, text, len, at, more ? next : to, "");
            return;
        }
        last = to;
        at = next;
    }
    if (!value) {
        buf_add(out, text, len);
        return;
    }
    buf_add(out, text, last);
    if (last != open)
        buf_char(out, ',');
    json_quote(out, key, strlen(key));
    buf_char(out, ':');
    buf_str(out, value);
    buf_add(out, text + last, len - last);
}
