/* chat_said.c -- what a chat template does to what a turn says: white space, thoughts. */

#include "text/chat.h"

#include <string.h>

/* White space as Python's str.strip() has it. */
static int is_white(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

void chat_strip(const struct chat *c, int role, const char **s, size_t *n)
{
    const char *p = *s, *end = *s + *n, *last;

    if (!(c->rules & CHAT_STRIP) && !(role == ROLE_ASSISTANT && c->rules & CHAT_STRIP_ANSWERS))
        return;
    while (p < end && is_white(utf8_next(&p)))
        *s = p;
    for (p = last = *s; p < end;)
        if (!is_white(utf8_next(&p)))
            last = p;
    *n = (size_t)(last - *s);
}

static const char think[] = "<think>", unthink[] = "</think>";

static const char *last_of(const char *s, size_t n, const char *what)
{
    const char *hit = NULL, *end = s + n, *next;

    while ((next = memmem(s, (size_t)(end - s), what, strlen(what)))) {
        hit = next;
        s = next + strlen(what);
    }
    return hit;
}

static void skip_lines(const char **s, size_t *n)
{
    while (*n && **s == '\n')
        ++*s, --*n;
}

void chat_cut_thought(const char **s, size_t *n, struct buf *thought)
{
    const char *said = *s, *end = last_of(*s, *n, unthink), *from;
    size_t length = 0;

    if (end) {
        length = (size_t)((const char *)memmem(*s, *n, unthink, strlen(unthink)) - *s);
        if ((from = last_of(said, length, think))) {
            from += strlen(think);
            length -= (size_t)(from - said);
            said = from;
        }
        skip_lines(&said, &length);
        while (length && said[length - 1] == '\n')
            --length;
        end += strlen(unthink);
        *n -= (size_t)(end - *s);
        *s = end;
    }
    if (end || thought)
        skip_lines(s, n);
    if (thought) {
        buf_printf(thought, "%s\n", think);
        buf_add(thought, said, length);
        buf_printf(thought, "\n%s\n\n", unthink);
    }
}
