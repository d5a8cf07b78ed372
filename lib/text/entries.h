/* entries.h -- what is read, one after the other: files, and the files in archives. */
#ifndef TEXT_ENTRIES_H
#define TEXT_ENTRIES_H

#include "text/members.h"

struct entries {
    char **path;
    int64_t n, next; /* path[next] is opened next */
    int fd;          /* of the open path, or -1 */
    const char *file_name;
    struct unpack file; /* the open path */
    struct buf head;    /* head.data[given..len): its beginning, looked at and not given out */
    size_t given;
    struct members members;         /* in it, if it is an archive */
    struct unpack member;           /* the open one of them */
    const char *name;               /* of the open entry; good until the next is opened */
    struct buf member_name;         /* it, if it is in an archive */
    struct buf label;               /* what the ids of its rows begin with */
    int is_plain;                   /* its bytes are those of a regular file */
    double bytes_total, bytes_read; /* of the paths, as they lie on the disk */
};

/* A path that cannot be opened is fatal. */
void entries_init(struct entries *e, char *const *paths, int64_t n);
int entries_next(struct entries *e); /* opens the next: 1, or 0 when none is left */
size_t entries_read(struct entries *e, char *to, size_t n); /* bytes of it; 0 at its end */
double entries_bytes_read(const struct entries *e);
void entries_release(struct entries *e);

#endif
