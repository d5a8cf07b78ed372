/* spool.c -- memory in an unlinked file beside the output, so that a checkpoint larger than RAM can
 * be rewritten: a header needs the hash of every tensor before the first one is written. */
#include "ckpt_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct spool {
    char *path;
    int fd;
    int64_t used;
    struct piece {
        void *at;
        size_t bytes;
    } * piece;
    int64_t pieces;
};

struct spool *spool_open(const char *dir)
{
    struct spool *s = xcalloc(1, sizeof *s);
    s->path = path_join(dir, ".spool");
    s->fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (s->fd < 0 || unlink(s->path))
        die("%s:", s->path);
    return s;
}

void *spool_take(struct spool *s, int64_t bytes)
{
    int64_t page = sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    /* Reserved now: a full disk is an error here and would be a SIGBUS later. */
    int error = posix_fallocate(s->fd, s->used, room);
    if (error)
        die("%s: %s", s->path, strerror(error));
    void *at = mmap(NULL, (size_t)room, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, s->used);
    if (at == MAP_FAILED)
        die("%s: map %lld bytes:", s->path, (long long)room);
    s->piece = xrealloc(s->piece, (size_t)(s->pieces + 1) * sizeof *s->piece);
    s->piece[s->pieces++] = (struct piece){at, (size_t)room};
    s->used += room;
    return at;
}

void spool_close(struct spool *s)
{
    for (int64_t i = 0; i < s->pieces; i++)
        munmap(s->piece[i].at, s->piece[i].bytes);
    close(s->fd);
    free(s->piece);
    free(s->path);
    free(s);
}
