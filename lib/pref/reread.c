/* reread.c -- lines of input files, read again where they lie.
 *
 * A file on disk keeps its bytes for us, so they need not be written a second time; it must only be
 * the same file still.  Whoever writes to it meanwhile would make us pass on rows that were never
 * judged, so that is fatal. */
#include "pref/reread.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 1 << 18 };

int64_t reread_add(struct reread *r, const char *path)
{
    if (r->files && !strcmp(r->file[r->files - 1].path, path))
        return r->files - 1;
    r->file = xrealloc(r->file, (size_t)(r->files + 1) * sizeof(*r->file));
    struct reread_file *f = &r->file[r->files];
    f->path = xstrdup(path);
    if (stat(path, &f->was))
        die("%s:", path);
    return r->files++;
}

static void compare(const struct reread_file *f, const struct stat *is)
{
    const struct stat *was = &f->was;
    if (is->st_dev != was->st_dev || is->st_ino != was->st_ino || is->st_size != was->st_size ||
        is->st_mtim.tv_sec != was->st_mtim.tv_sec || is->st_mtim.tv_nsec != was->st_mtim.tv_nsec)
        die("%s: has changed while it was read", f->path);
}

static void open_file(struct reread *r, int64_t file)
{
    struct stat is;
    if (r->open == file + 1)
        return;
    if (r->open)
        close(r->fd);
    r->open = file + 1;
    r->fd = open(r->file[file].path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &is))
        die("%s:", r->file[file].path);
    compare(&r->file[file], &is);
}

/* Appends up to want bytes at this offset, and at least `need` of them. */
static void fill(struct reread *r, int64_t file, int64_t offset, size_t need, size_t want,
                 struct buf *out)
{
    open_file(r, file);
    buf_reserve(out, want + 1);
    for (size_t got = 0; got < need;) {
        ssize_t n = pread(r->fd, out->data + out->len, want - got, offset + (int64_t)got);
        if (n < 0)
            die("read %s:", r->file[file].path);
        if (n == 0)
            die("%s: has changed while it was read", r->file[file].path);
        out->len += (size_t)n;
        got += (size_t)n;
    }
    out->data[out->len] = 0;
}

char *reread_line(struct reread *r, int64_t file, int64_t offset, size_t len)
{
    int64_t at = offset - r->window_at;
    if (r->window_of != file + 1 || at < 0 || at + (int64_t)len > (int64_t)r->window.len) {
        buf_reset(&r->window);
        fill(r, file, offset, len, MAX(len, (size_t)WINDOW), &r->window);
        r->window_at = offset;
        r->window_of = file + 1;
        at = 0;
    }
    r->window.data[at + (int64_t)len] = 0; /* a newline, or one past the last byte */
    return r->window.data + at;
}

void reread_copy(struct reread *r, int64_t file, int64_t offset, size_t len, struct buf *out)
{
    fill(r, file, offset, len, len, out);
}

void reread_check(struct reread *r)
{
    struct stat is;
    for (int64_t i = 0; i < r->files; i++) {
        if (stat(r->file[i].path, &is))
            die("%s:", r->file[i].path);
        compare(&r->file[i], &is);
    }
}

void reread_release(struct reread *r)
{
    if (r->open)
        close(r->fd);
    for (int64_t i = 0; i < r->files; i++)
        free(r->file[i].path);
    free(r->file);
    buf_release(&r->window);
}
