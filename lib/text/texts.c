/* texts.c -- the texts in one file, between separators such as the "%" of fortune files. */

#include "text/text.h"

#include <string.h>

/* Takes a line ending off [s, to). */
static const char *chomp(const char *s, const char *to)
{
    to -= to > s && to[-1] == '\n';
    to -= to > s && to[-1] == '\r';
    return to;
}

int texts_next(struct texts *t, const char **text, size_t *len)
{
    const char *start = t->at;
    size_t want = t->separator ? strlen(t->separator) : 0;

    if (!t->separator) {
        *text = t->at;
        *len = (size_t)(t->end - t->at);
        t->line = 1;
        return !t->number++;
    }
    t->line = t->lines + 1;
    while (t->at < t->end) {
        const char *line = t->at, *next = memchr(line, '\n', (size_t)(t->end - line));
        next = next ? next + 1 : t->end;
        const char *to = chomp(line, next);
        int hit = (size_t)(to - line) == want && !memcmp(line, t->separator, want);
        t->at = next;
        t->lines++;
        to = hit ? line : t->end;
        if (!hit && next < t->end)
            continue;
        to = chomp(start, to);
        if (to > start) {
            *text = start;
            *len = (size_t)(to - start);
            t->number++;
            return 1;
        }
        start = next;
        t->line = t->lines + 1;
    }
    return 0;
}
