/* source.c -- bytes from what people have: plain or compressed files, one after the other.
 *
 * libarchive undoes the compression, named by the file's first bytes and never by its name.  Only
 * filters with a firm magic number are asked: a text that happens to begin with "begin 644" is a
 * text, not something to uudecode.  One growing buffer holds what was read and not yet returned, so
 * a line costs one memchr and no copy of its own. */

#include "text/gzip_check.h"
#include "text/text.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source {
    char **path;
    int64_t n, next;         /* path[next] is opened next */
    struct archive *archive; /* of the open entry, or NULL */
    const char *name;
    struct buf buf; /* buf.data[pos..len) is read and not returned */
    size_t pos;
    int64_t line;
    int64_t base, offset; /* in the entry: of buf.data[0], of the last line */
    int is_plain;         /* the entry's bytes are those of a file */
    int fresh; /* nothing of the open entry has been returned yet */
    double bytes_total, bytes_read;
    int fd;
    char *block; /* BLOCK bytes as read */
    int is_gzip;
    struct gzip_check gzip;
};

enum { BLOCK = 256 << 10 };

static int is_stdin(const char *path)
{
    return !strcmp(path, "-");
}

struct source *source_open(char *const *paths, int64_t n)
{
    static char *const only_stdin[] = {(char *)"-"};
    struct source *s = xcalloc(1, sizeof *s);
    int known = 1;

    if (!n)
        paths = only_stdin, n = 1;
    s->path = xcalloc((size_t)n, sizeof *s->path);
    s->n = n;
    s->name = "stdin";
    s->block = xmalloc(BLOCK);
    for (int64_t i = 0; i < n; i++) {
        struct stat st;
        s->path[i] = xstrdup(paths[i]);
        if (is_stdin(paths[i])) {
            known = 0;
            continue;
        }
        /* Not open(): opening a named pipe and closing it again would end its writer. */
        if (stat(paths[i], &st) || access(paths[i], R_OK))
            die("open %s:", paths[i]);
        if (S_ISDIR(st.st_mode))
            die("open %s: is a directory", paths[i]);
        known &= S_ISREG(st.st_mode);
        s->bytes_total += (double)st.st_size;
    }
    if (!known)
        s->bytes_total = 0;
    return s;
}

static void entry_close(struct source *s)
{
    archive_read_free(s->archive);
    s->archive = NULL;
    gzip_check_release(&s->gzip);
    if (s->fd > 0)
        close(s->fd);
}

_Noreturn static void entry_fail(struct source *s)
{
    const char *why = archive_error_string(s->archive);

    die_damaged("%s: %s", s->name, why ? why : "cannot be unpacked");
}

static la_ssize_t read_block(struct archive *a, void *arg, const void **block)
{
    struct source *s = arg;
    ssize_t n;

    do
        n = read(s->fd, s->block, BLOCK);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        die("read %s:", s->name);
    s->bytes_read += (double)n;
    gzip_check_packed(&s->gzip, s->block, (size_t)n);
    *block = s->block;
    return n;
}

/* Appends what comes next of the open entry; 0 (and the entry is closed) at its end. */
static int entry_fill(struct source *s)
{
    const void *block;
    size_t n;
    la_int64_t offset;
    int r;

    if (!s->archive)
        return 0;
    if (s->pos) { /* what is left is less than a line, or the head of an entry */
        memmove(s->buf.data, s->buf.data + s->pos, s->buf.len - s->pos);
        s->buf.len -= s->pos;
        s->base += (int64_t)s->pos;
        s->pos = 0;
    }
    r = archive_read_data_block(s->archive, &block, &n, &offset);
    if (r == ARCHIVE_EOF) {
        if (s->is_gzip && !gzip_check_end(&s->gzip))
            die_damaged("%s: the gzip checksum is wrong, or something follows it", s->name);
        entry_close(s);
        return 0;
    }
    if (r < ARCHIVE_WARN)
        entry_fail(s);
    if (s->is_gzip)
        gzip_check_unpacked(&s->gzip, block, n);
    buf_add(&s->buf, block, n);
    return 1;
}

/* Opens the next path; 0 when none is left.  A byte order mark is no part of a text. */
static int entry_next(struct source *s)
{
    struct archive_entry *e;
    struct archive *a;
    int r;

    if (s->next >= s->n)
        return 0;
    const char *path = s->path[s->next++];
    s->name = is_stdin(path) ? "stdin" : path;
    s->line = 0;
    s->fresh = 1;
    buf_reset(&s->buf);
    s->pos = 0;
    s->base = 0;

    s->archive = a = archive_read_new();
    if (!a)
        die("out of memory");
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_lz4(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    s->fd = is_stdin(path) ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (s->fd < 0 || fstat(s->fd, &st))
        die("open %s:", path);
    r = archive_read_open(a, s, NULL, read_block, NULL);
    if (r < ARCHIVE_WARN)
        entry_fail(s);
    s->is_gzip = archive_filter_count(a) == 2 && archive_filter_code(a, 0) == ARCHIVE_FILTER_GZIP;
    s->is_plain = s->fd > 0 && S_ISREG(st.st_mode) && archive_filter_count(a) == 1;
    r = archive_read_next_header(a, &e);
    if (r == ARCHIVE_EOF)
        entry_close(s);
    else if (r < ARCHIVE_WARN)
        entry_fail(s);
    while (s->buf.len < 3 && entry_fill(s))
        ;
    if (s->buf.len >= 3 && !memcmp(s->buf.data, "\xef\xbb\xbf", 3))
        s->pos = 3;
    return 1;
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
    return s->name;
}

int64_t source_line_number(const struct source *s)
{
    return s->line;
}

int source_line_plain(const struct source *s, int64_t *offset)
{
    *offset = s->offset;
    return s->is_plain;
}

double source_bytes_total(const struct source *s)
{
    return s->bytes_total;
}

double source_bytes_read(const struct source *s)
{
    return s->bytes_read;
}

void source_close(struct source *s)
{
    if (s->archive)
        entry_close(s);
    for (int64_t i = 0; i < s->n; i++)
        free(s->path[i]);
    free(s->path);
    free(s->block);
    buf_release(&s->buf);
    free(s);
}
