/* reread.h -- lines of input files, read again; between reread.c and spool.c. */
#ifndef REREAD_H
#define REREAD_H

#include "base/base.h"

#include <sys/stat.h>

struct reread_file {
    char *path;
    struct stat was;
};
struct reread { /* a zeroed struct is ready */
    struct reread_file *file;
    int64_t files;
    int64_t open; /* which file fd is, from 1; 0: none */
    int fd;
    struct buf window; /* bytes from offset window_at of file window_of (from 1) */
    int64_t window_at, window_of;
};
/* Returns the number of the file, which must be the one named last or a new one. */
int64_t reread_add(struct reread *r, const char *path);
/* The len bytes at this offset, and a NUL behind them in place of the newline: writable, good until
 * the next call. */
char *reread_line(struct reread *r, int64_t file, int64_t offset, size_t len);
/* The same, appended to out; the line returned last stays good. */
void reread_copy(struct reread *r, int64_t file, int64_t offset, size_t len, struct buf *out);
/* Dies when a file has changed since it was added. */
void reread_check(struct reread *r);
void reread_release(struct reread *r);

#endif
