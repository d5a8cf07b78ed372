/* entries.c -- files one after the other, and in their place the files in them where they are
 * archives.
 */

#include "text/entries.h"
#include "text/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD = 512 }; /* a tar's first header */

static int is_stdin(const char *path)
{
    return !strcmp(path, "-");
}

void entries_init(struct entries *e, char *const *paths, int64_t n)
{
    static char *const only_stdin[] = {(char *)"-"};
    int known = 1;

    if (!n)
        paths = only_stdin, n = 1;
    *e = (struct entries){.n = n, .fd = -1, .name = "stdin"};
    e->path = xcalloc((size_t)n, sizeof *e->path);
    for (int64_t i = 0; i < n; i++) {
        struct stat st;
        e->path[i] = xstrdup(paths[i]);
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
        e->bytes_total += (double)st.st_size;
    }
    if (!known)
        e->bytes_total = 0;
}

static size_t read_fd(void *arg, char *to, size_t n)
{
    struct entries *e = arg;
    ssize_t got;

    do
        got = read(e->fd, to, n);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        die("read %s:", e->file_name);
    e->bytes_read += (double)got;
    return (size_t)got;
}

/* Whether the open path is a regular file, and we are at its beginning. */
static int is_regular(const struct entries *e)
{
    struct stat st;

    return !fstat(e->fd, &st) && S_ISREG(st.st_mode) && !lseek(e->fd, 0, SEEK_CUR);
}

/* Whether it is an archive with its table at the end. */
static int is_sought(const struct entries *e)
{
    char head[8];
    ssize_t n = pread(e->fd, head, sizeof head, 0);

    return n > 0 && members_sought(head, (size_t)n);
}

static void path_close(struct entries *e)
{
    e->bytes_read += members_bytes_read(&e->members);
    unpack_close(&e->member);
    members_close(&e->members);
    unpack_close(&e->file);
    if (e->fd > 0)
        close(e->fd);
    e->fd = -1;
}

/* Opens the next path, and the archive it is; 0 when none is left. */
static int path_next(struct entries *e)
{
    path_close(e);
    if (e->next >= e->n)
        return 0;
    const char *path = e->path[e->next++];
    e->name = e->file_name = is_stdin(path) ? "stdin" : path;
    e->fd = is_stdin(path) ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (e->fd < 0)
        die("open %s:", path);
    int regular = is_regular(e);
    buf_reset(&e->head);
    e->given = 0;
    e->is_plain = 0;
    if (regular && is_sought(e)) {
        members_open_fd(&e->members, e->file_name, e->fd);
        return 1;
    }
    unpack_open(&e->file, e->file_name, read_fd, e);
    e->is_plain = regular && e->fd > 0 && !e->file.is_packed;
    buf_reserve(&e->head, HEAD);
    for (size_t n; e->head.len < HEAD; e->head.len += n)
        if (!(n = unpack_read(&e->file, e->head.data + e->head.len, HEAD - e->head.len)))
            break;
    if (members_in(e->head.data, e->head.len)) {
        e->is_plain = 0;
        members_open(&e->members, e->file_name, &e->file, e->head.data, e->head.len);
    } else if (members_sought(e->head.data, e->head.len)) {
        die("%s: a 7z archive is read from a plain file only, as its table is at its end",
            e->file_name);
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

int entries_next(struct entries *e)
{
    while (!e->members.archive || !members_next(&e->members)) {
        if (!path_next(e))
            return 0;
        if (!e->members.archive)
            break;
    }
    buf_reset(&e->label);
    label_file(&e->label, e->file_name);
    if (e->members.archive) {
        buf_reset(&e->member_name);
        buf_add(&e->member_name, e->members.label.data, e->members.label.len);
        e->name = e->member_name.data;
        buf_char(&e->label, ':'); /* and the whole name: a and a.gz may both be there */
        buf_str(&e->label, e->name + strlen(e->file_name) + 1);
        unpack_open(&e->member, e->name, members_read, &e->members);
    }
    return 1;
}

size_t entries_read(struct entries *e, char *to, size_t n)
{
    if (e->members.archive)
        return unpack_read(&e->member, to, n);
    if (e->given == e->head.len)
        return unpack_read(&e->file, to, n);
    n = MIN(n, e->head.len - e->given);
    memcpy(to, e->head.data + e->given, n);
    e->given += n;
    return n;
}

double entries_bytes_read(const struct entries *e)
{
    return e->bytes_read + members_bytes_read(&e->members);
}

void entries_release(struct entries *e)
{
    path_close(e);
    for (int64_t i = 0; i < e->n; i++)
        free(e->path[i]);
    free(e->path);
    buf_release(&e->head);
    buf_release(&e->label);
    buf_release(&e->member_name);
}
