/* source.c -- bytes from what people have, as lines or whole entries.
 *
 * One growing buffer holds what was read and not yet returned, so a line costs one memchr and no
 * copy of its own. */

#include "text/entries.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

const char *source_entries;
int64_t source_max_bytes = (int64_t)64 << 30;

struct source {
    struct entries entries;
    int open;       /* the open entry may have more bytes */
    struct buf buf; /* buf.data[pos..len) is read and not returned */
    size_t pos;
    int64_t line;
    int64_t base, offset; /* in the entry: of buf.data[0], of the last line */
    int fresh;            /* nothing of the open entry has been returned yet */
};

struct source *source_open(char *const *paths, int64_t n)
{
    struct source *s = xcalloc(1, sizeof *s);

    entries_init(&s->entries, paths, n);
    return s;
}

/* Appends what comes next of the open entry; 0 at its end. */
static int entry_fill(struct source *s)
{
    if (!s->open)
        return 0;
    if (s->pos) { /* what is left is less than a line, or the head of an entry */
        memmove(s->buf.data, s->buf.data + s->pos, s->buf.len - s->pos);
        s->buf.len -= s->pos;
        s->base += (int64_t)s->pos;
        s->pos = 0;
    }
    if (s->buf.len > RECORD_BYTES_MAX)
        source_too_long(s);
    buf_reserve(&s->buf, UNPACK_BLOCK);
    size_t n = entries_read(&s->entries, s->buf.data + s->buf.len, UNPACK_BLOCK);
    s->buf.len += n;
    s->open = n > 0;
    return s->open;
}

/* Opens the next entry; 0 when none is left.  A byte order mark is no part of a text. */
static int entry_next(struct source *s)
{
    if (!entries_next(&s->entries))
        return 0;
    buf_reset(&s->buf);
    s->pos = 0;
    s->base = 0;
    s->line = 0;
    s->fresh = s->open = 1;
    while (s->buf.len < 3 && entry_fill(s))
        ;
    if (s->buf.len >= 3 && !memcmp(s->buf.data, "\xef\xbb\xbf", 3))
        s->pos = 3;
    return 1;
}

void source_too_long(const struct source *s)
{
    die_with(EXIT_BAD_DATA, "%s:%lld: a line, value or text of more than 1 GiB", s->entries.name,
             (long long)s->line + 1);
}

int source_peek(struct source *s, const char **head, size_t *n)
{
    while (s->pos == s->buf.len && !s->fresh)
        if (!entry_fill(s) && !entry_next(s))
            return -1;
    while (s->fresh && s->buf.len - s->pos < 4096 && entry_fill(s))
        ;
    *head = s->buf.data ? s->buf.data + s->pos : "";
    *n = s->buf.len - s->pos;
    return s->fresh;
}

int source_line(struct source *s, char **line, size_t *len)
{
    for (size_t seen = 0;;) { /* bytes after pos known to hold no newline */
        size_t have = s->buf.len - s->pos;
        char *start = have ? s->buf.data + s->pos : NULL;
        char *end = have > seen ? memchr(start + seen, '\n', have - seen) : NULL;

        seen = have;
        if (!end && entry_fill(s))
            continue;
        if (!end && !have) {
            if (!entry_next(s))
                return 0;
            seen = 0;
            continue;
        }
        start = s->buf.data + s->pos; /* filling may have moved it */
        if (!end)
            end = start + have;
        *line = start;
        s->offset = s->base + (int64_t)s->pos;
        *len = (size_t)(end - start);
        s->pos += *len + (end < s->buf.data + s->buf.len);
        *end = 0;
        s->line++;
        s->fresh = 0;
        return 1;
    }
}

int source_rest(struct source *s, const char **bytes, size_t *n)
{
    s->fresh = 0;
    while (s->pos == s->buf.len)
        if (!entry_fill(s))
            return 0;
    *bytes = s->buf.data + s->pos;
    *n = s->buf.len - s->pos;
    return 1;
}

void source_skip(struct source *s, size_t n)
{
    s->pos += n;
}

int source_entry(struct source *s, struct buf *out)
{
    /* An entry of which lines were taken is over once its bytes are; its rest is an entry too. */
    while (!s->fresh && s->pos == s->buf.len)
        if (!entry_fill(s) && !entry_next(s))
            return 0;
    while (entry_fill(s))
        ;
    buf_reset(out);
    buf_add(out, s->buf.data ? s->buf.data + s->pos : "", s->buf.len - s->pos);
    s->pos = s->buf.len;
    s->line++;
    s->fresh = 0;
    return 1;
}

const char *source_name(const struct source *s)
{
    return s->entries.name;
}

void source_id(const struct source *s, int64_t n, struct buf *out)
{
    buf_add(out, s->entries.label.data, s->entries.label.len);
    buf_printf(out, ":%lld", (long long)n);
}

int64_t source_line_number(const struct source *s)
{
    return s->line;
}

int source_line_plain(const struct source *s, int64_t *offset)
{
    *offset = s->offset;
    return s->entries.is_plain;
}

double source_bytes_total(const struct source *s)
{
    return s->entries.bytes_total;
}

double source_bytes_read(const struct source *s)
{
    return entries_bytes_read(&s->entries);
}

void source_close(struct source *s)
{
    entries_release(&s->entries);
    buf_release(&s->buf);
    free(s);
}
