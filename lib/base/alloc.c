/* alloc.c -- memory that is there or the process is not, and the growable buffer.
 *
 * A request of nothing yields a pointer that may be freed, so callers need no special case. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

static void *check(void *p, size_t n)
{
    if (!p)
        die("out of memory (%zu bytes wanted)", n);
    return p;
}

void *xmalloc(size_t n)
{
    return check(malloc(MAX(n, 1)), n);
}

void *xcalloc(size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        die("out of memory (%zu times %zu bytes wanted)", count, size);
    return check(calloc(1, MAX(n, 1)), n);
}

void *xrealloc(void *p, size_t n)
{
    return check(realloc(p, MAX(n, 1)), n);
}

void *xmemdup(const void *p, size_t n)
{
    void *q = xmalloc(n);
    if (n)
        memcpy(q, p, n);
    return q;
}

char *xstrdup(const char *s)
{
    return xmemdup(s, strlen(s) + 1);
}

char *xstrndup(const char *s, size_t n)
{
    n = strnlen(s, n);
    char *q = xmalloc(n + 1);
    memcpy(q, s, n);
    q[n] = 0;
    return q;
}

char *xasprintf(const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        die("out of memory (formatting \"%s\")", fmt);
    va_end(ap);
    return s;
}

void buf_reserve(struct buf *b, size_t extra)
{
    size_t need;
    if (__builtin_add_overflow(b->len, extra, &need) || need == SIZE_MAX)
        die("out of memory (%zu bytes more wanted)", extra);
    need++; /* the NUL */
    if (need > b->cap) {
        b->cap = MAX(need, MAX(64, b->cap + b->cap / 2));
        b->data = xrealloc(b->data, b->cap);
    }
    b->data[b->len] = 0;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    buf_reserve(b, n);
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
}

void buf_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    buf_reserve(b, 128);
    size_t room = b->cap - b->len;
    int n = vsnprintf(b->data + b->len, room, fmt, ap);
    if (n < 0)
        die("cannot format \"%s\":", fmt);
    if ((size_t)n >= room) {
        buf_reserve(b, (size_t)n);
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    }
    b->len += (size_t)n;
    va_end(again);
    va_end(ap);
}

int64_t utf8_count(const char *s, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (s[i] & 0xc0) != 0x80; /* all but continuation bytes */
    return count;
}

void buf_cell(struct buf *b, const char *s, int64_t width)
{
    int64_t blanks = llabs(width) - utf8_count(s, strlen(s));
    if (width < 0)
        buf_str(b, s);
    for (; blanks > 0; blanks--)
        buf_char(b, ' ');
    if (width >= 0)
        buf_str(b, s);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = 0;
}

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}
