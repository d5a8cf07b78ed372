/* source.c -- bytes from what people have: files and the files in archives, one after the other.
 *
 * What is open is an entry: a file, or one in an archive; either may be compressed.  One growing
 * buffer holds what was read and not yet returned, so a line costs one memchr and no copy of its
 * own. */

#include "text/members.h"
#include "text/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *source_entries;
int64_t source_max_bytes = (int64_t)64 << 30;

struct source {
    char **path;
    int64_t n, next; /* path[next] is opened next */
    int fd;          /* of the open path, or -1 */
    const char *file_name;
    struct unpack file;     /* the open path */
    struct members members; /* in it, if it is an archive */
    struct unpack entry;    /* the open one of them */
    const char *name;       /* of the open entry */
    struct buf member_name; /* it, if it is in an archive */
    struct buf label;       /* what the ids of its rows begin with */
    struct buf buf;         /* buf.data[pos..len) is read and not returned */
    size_t pos;
    int64_t line;
    int64_t base, offset; /* in a plain file: of buf.data[0], of the last line */
    int is_plain;         /* the entry's bytes are those of a regular file */
    int fresh;            /* nothing of the open entry has been returned yet */
    double bytes_total, bytes_read;
};

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
    s->fd = -1;
    s->name = "stdin";
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

static size_t read_fd(void *arg, char *to, size_t n)
{
    struct source *s = arg;
    ssize_t got;

    do
        got = read(s->fd, to, n);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        die("read %s:", s->file_name);
    s->bytes_read += (double)got;
    return (size_t)got;
}

/* Whether the open path is a regular file, and we are at its beginning. */
static int is_regular(const struct source *s)
{
    struct stat st;

    return !fstat(s->fd, &st) && S_ISREG(st.st_mode) && !lseek(s->fd, 0, SEEK_CUR);
}

/* Whether it is an archive with its table at the end. */
static int is_sought(const struct source *s)
{
    char head[8];
    ssize_t n = pread(s->fd, head, sizeof head, 0);

    return n > 0 && members_sought(head, (size_t)n);
}

static void path_close(struct source *s)
{
    s->bytes_read += members_bytes_read(&s->members);
    unpack_close(&s->entry);
    members_close(&s->members);
    unpack_close(&s->file);
    if (s->fd > 0)
        close(s->fd);
    s->fd = -1;
}

/* Appends what comes next of the open entry; 0 (and the entry is closed) at its end. */
static int entry_fill(struct source *s)
{
    struct unpack *u = s->members.archive ? &s->entry : &s->file;

    if (!u->archive)
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
    size_t n = unpack_read(u, s->buf.data + s->buf.len, UNPACK_BLOCK);
    s->buf.len += n;
    return n > 0;
}

/* Opens the next path, and the archive it is; 0 when none is left. */
static int path_next(struct source *s)
{
    path_close(s);
    if (s->next >= s->n)
        return 0;
    const char *path = s->path[s->next++];
    s->name = s->file_name = is_stdin(path) ? "stdin" : path;
    s->fd = is_stdin(path) ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        die("open %s:", path);
    int regular = is_regular(s);
    s->is_plain = 0;
    s->base = 0;
    if (regular && is_sought(s)) {
        members_open_fd(&s->members, s->file_name, s->fd);
        return 1;
    }
    unpack_open(&s->file, s->file_name, read_fd, s);
    s->is_plain = regular && s->fd > 0 && !s->file.is_packed;
    buf_reset(&s->buf);
    s->pos = 0;
    while (s->buf.len < 512 && entry_fill(s)) /* a tar's first header */
        ;
    if (members_in(s->buf.data, s->buf.len)) {
        s->is_plain = 0;
        members_open(&s->members, s->file_name, &s->file, s->buf.data, s->buf.len);
    } else if (members_sought(s->buf.data, s->buf.len)) {
        die("%s: a 7z archive is read from a plain file only, as its table is at its end",
            s->file_name);
    }
    return 1;
}

/* "corpus.jsonl" of "/data/corpus.jsonl.zst": an id does not depend on where and how a file lies.
 */
static void label_file(struct buf *out, const char *path)
{
    static const char *const packed[] = {".gz", ".bz2", ".xz", ".zst", ".lz4"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t len = strlen(name);

    for (int64_t i = 0; i < ARRAY_LEN(packed); i++) {
        size_t tail = strlen(packed[i]);
        if (len > tail && !strcmp(name + len - tail, packed[i])) {
            len -= tail;
            break;
        }
    }
    utf8_repair(out, name, len);
}

/* Opens the next entry; 0 when none is left.  A byte order mark is no part of a text. */
static int entry_next(struct source *s)
{
    while (!s->members.archive || !members_next(&s->members)) {
        if (!path_next(s))
            return 0;
        if (!s->members.archive)
            break;
    }
    buf_reset(&s->label);
    label_file(&s->label, s->file_name);
    if (s->members.archive) {
        buf_reset(&s->member_name);
        buf_add(&s->member_name, s->members.label.data, s->members.label.len);
        s->name = s->member_name.data;
        buf_char(&s->label, ':');
        buf_str(&s->label,
                s->name + strlen(s->file_name) + 1); /* whole: a and a.gz may both be there */
        buf_reset(&s->buf);
        s->pos = 0;
        unpack_open(&s->entry, s->name, members_read, &s->members);
    }
    s->line = 0;
    s->fresh = 1;
    while (s->buf.len < 3 && entry_fill(s))
        ;
    if (s->buf.len >= 3 && !memcmp(s->buf.data, "\xef\xbb\xbf", 3))
        s->pos = 3;
    return 1;
}

void source_too_long(const struct source *s)
{
    die_with(EXIT_BAD_DATA, "%s:%lld: a line, value or text of more than 1 GiB", s->name,
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
    return s->name;
}

void source_id(const struct source *s, int64_t n, struct buf *out)
{
    buf_add(out, s->label.data, s->label.len);
    buf_printf(out, ":%lld", (long long)n);
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
    return s->bytes_read + members_bytes_read(&s->members);
}

void source_close(struct source *s)
{
    path_close(s);
    for (int64_t i = 0; i < s->n; i++)
        free(s->path[i]);
    free(s->path);
    buf_release(&s->buf);
    buf_release(&s->label);
    buf_release(&s->member_name);
    free(s);
}
