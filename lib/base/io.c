/* io.c -- reading whole files, paths, and output that is published whole or not at all.
 *
 * A file is written beside its name, under a lock, synced and renamed.  The lock is on the
 * temporary file itself, so it leaves nothing behind and a dead process holds nothing. */
#include "base.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int write_all(int fd, const void *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -1;
        p = (const char *)p + w;
        n -= (size_t)w;
    }
    return 0;
}

struct buf read_file(const char *path)
{
    int use_stdin = !strcmp(path, "-");
    const char *who = use_stdin ? "standard input" : path;
    struct buf b = {0};
    struct stat st;
    int fd = use_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        die("%s:", who);
    buf_reserve(&b, S_ISREG(st.st_mode) ? (size_t)st.st_size + 1 : 1 << 16);
    for (;;) {
        buf_reserve(&b, 1);
        ssize_t n = read(fd, b.data + b.len, b.cap - b.len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("%s:", who);
        if (n == 0)
            break;
        b.len += (size_t)n;
    }
    b.data[b.len] = 0;
    if (!use_stdin)
        close(fd);
    return b;
}

/* ---- output ---- */

struct out {
    int fd, is_tty;
    char *path, *temp; /* temp NULL: bytes go straight to fd */
    char *data;
    size_t len;
    int64_t bytes;
};
enum { OUT_ROOM = 1 << 16 };

static int is_stdout(const char *path)
{
    return !path || !strcmp(path, "-") || !strcmp(path, "/dev/stdout");
}

/* PARENT/.NAME.tmp for PARENT/NAME. */
static char *temp_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    int dir = slash ? (int)(slash + 1 - path) : 0;
    return xasprintf("%.*s.%s.tmp", dir, path, path + dir);
}

/* Opens and locks temp.  Between our open and our lock another writer may have published the very
 * file we hold, so it counts only if it is still the one of that name. */
static int open_locked(const char *temp, const char *path)
{
    for (;;) {
        struct stat held, named;
        int fd = open(temp, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0)
            die("%s:", path);
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            if (errno == EWOULDBLOCK)
                die_with(EXIT_AGAIN, "another process is writing %s", path);
            die("lock %s:", temp);
        }
        if (!fstat(fd, &held) && !stat(temp, &named) && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev)
            return fd;
        close(fd);
    }
}

struct out *out_open(const char *path)
{
    struct out *o = xcalloc(1, sizeof(*o));
    struct stat st;
    o->data = xmalloc(OUT_ROOM);
    if (is_stdout(path)) {
        o->fd = STDOUT_FILENO;
        o->path = xstrdup("standard output");
    } else if (!stat(path, &st) && !S_ISREG(st.st_mode)) {
        o->path = xstrdup(path);
        o->fd = open(path, O_WRONLY | O_CLOEXEC);
        if (o->fd < 0)
            die("%s:", path);
    } else {
        int exists = !stat(path, &st);
        /* Through a symbolic link, the file it names is replaced and the link stays. */
        o->path = path_resolved(path);
        o->temp = temp_name(o->path);
        o->fd = open_locked(o->temp, path);
        temp_add(o->temp);
        if (ftruncate(o->fd, 0) || (exists && fchmod(o->fd, st.st_mode & 0777)))
            die("%s:", o->temp);
    }
    o->is_tty = isatty(o->fd);
    return o;
}

static void out_send(struct out *o, const void *p, size_t n)
{
    if (!write_all(o->fd, p, n))
        return;
    if (errno == EPIPE)
        die_of_pipe();
    die("%s:", o->path);
}

void out_flush(struct out *o)
{
    out_send(o, o->data, o->len);
    o->len = 0;
}

void out_write(struct out *o, const void *p, size_t n)
{
    o->bytes += (int64_t)n;
    if (n > OUT_ROOM - o->len)
        out_flush(o);
    if (n >= OUT_ROOM) {
        out_send(o, p, n);
    } else if (n) {
        memcpy(o->data + o->len, p, n);
        o->len += n;
    }
}

void out_rewrite(struct out *o, int64_t at, const void *p, size_t n)
{
    out_flush(o);
    while (n > 0) {
        ssize_t w = pwrite(o->fd, p, n, (off_t)at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            die("%s:", o->path);
        p = (const char *)p + w;
        at += w;
        n -= (size_t)w;
    }
}

void out_printf(struct out *o, const char *fmt, ...)
{
    char small[512], *text = small;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    if (n >= (int)sizeof(small)) {
        text = xmalloc((size_t)n + 1);
        vsnprintf(text, (size_t)n + 1, fmt, again);
    }
    if (n < 0)
        die("%s: cannot format \"%s\":", o->path, fmt);
    out_write(o, text, (size_t)n);
    if (text != small)
        free(text);
    va_end(again);
    va_end(ap);
}

int out_is_tty(const struct out *o)
{
    return o->is_tty;
}

int64_t out_bytes(const struct out *o)
{
    return o->bytes;
}

static void out_free(struct out *o)
{
    if (o->temp)
        temp_drop(o->temp);
    if (o->fd != STDOUT_FILENO)
        close(o->fd); /* ends the lock, so it comes last */
    free(o->data);
    free(o->temp);
    free(o->path);
    free(o);
}

void out_close(struct out *o)
{
    out_flush(o);
    if (o->temp) {
        char *slash = strrchr(o->path, '/');
        if (fsync(o->fd))
            die("%s:", o->temp);
        if (rename(o->temp, o->path))
            die("%s:", o->path);
        char *parent = slash ? xstrndup(o->path, (size_t)(slash + 1 - o->path)) : xstrdup(".");
        fsync_dir(parent);
        free(parent);
    }
    out_free(o);
}

void write_file(const char *path, const void *p, size_t n)
{
    struct out *o = out_open(path);
    out_write(o, p, n);
    out_close(o);
}

void lock_take(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        die("%s:", path);
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno == EWOULDBLOCK)
            die_with(EXIT_AGAIN, "another process holds the lock %s", path);
        die("lock %s:", path);
    }
    /* fd stays open: the lock ends with the process. */
}
