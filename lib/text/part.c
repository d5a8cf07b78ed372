/* part.c -- rows that are costly to make, written so that a killed tool goes on where it was.
 *
 * They gather in PATH.part, a line at a time; PATH.part.key says which command they are of.  The
 * same command finds its lines again and leaves out what is there; another command begins anew.  At
 * the end PATH.part becomes PATH. */
#include "text/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct part {
    char *path, *part, *key;
    int fd;
    struct out *stdout_; /* where no path is given there is nothing to go on from */
};

/* Complete lines of the part file; what a kill left of a line is cut off. */
static int64_t count_lines(struct part *p)
{
    struct buf text = read_file(p->part);
    int64_t lines = 0;
    size_t end = 0;
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] == '\n')
            lines++, end = i + 1;
    if (ftruncate(p->fd, (off_t)end))
        die("truncate %s:", p->part);
    buf_release(&text);
    return lines;
}

static int same_key(const struct part *p, const char *key)
{
    if (!path_exists(p->key) || !path_exists(p->part))
        return 0;
    struct buf was = read_file(p->key);
    int same = was.len == strlen(key) && !memcmp(was.data, key, was.len);
    buf_release(&was);
    return same;
}

struct part *part_open(const char *path, const char *key, int64_t *lines)
{
    struct part *p = xcalloc(1, sizeof *p);
    *lines = 0;
    if (!path || !strcmp(path, "-") || (path_exists(path) && access(path, W_OK))) {
        p->stdout_ = out_open(path);
        return p;
    }
    struct stat st;
    if (!stat(path, &st) && !S_ISREG(st.st_mode)) { /* a device or a pipe */
        p->stdout_ = out_open(path);
        return p;
    }
    p->path = xstrdup(path);
    p->part = xasprintf("%s.part", path);
    p->key = xasprintf("%s.part.key", path);
    int goes_on = key && same_key(p, key);
    p->fd = open(p->part, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (p->fd < 0)
        die("open %s:", p->part);
    if (flock(p->fd, LOCK_EX | LOCK_NB))
        die_with(EXIT_AGAIN, "another process is writing %s", p->part);
    if (goes_on) {
        *lines = count_lines(p);
    } else {
        if (ftruncate(p->fd, 0))
            die("truncate %s:", p->part);
        if (key)
            write_file(p->key, key, strlen(key));
        else if (unlink(p->key) && errno != ENOENT) /* it is of lines that are no longer there */
            die("remove %s:", p->key);
    }
    return p;
}

void part_write(struct part *p, const void *bytes, size_t n)
{
    if (p->stdout_)
        out_write(p->stdout_, bytes, n);
    else if (write_all(p->fd, bytes, n))
        die("write %s:", p->part);
}

void part_close(struct part *p)
{
    if (p->stdout_) {
        out_close(p->stdout_);
    } else {
        char *folder = xstrdup(p->path), *slash = strrchr(folder, '/');
        if (slash)
            slash[slash == folder] = 0;
        if (fsync(p->fd) || rename(p->part, p->path))
            die("publish %s:", p->path);
        close(p->fd);
        unlink(p->key);
        fsync_dir(slash ? folder : ".");
        free(folder);
    }
    free(p->path), free(p->part), free(p->key), free(p);
}
