/* unpack.h -- the bytes of one file or archive entry, its compression undone. */
#ifndef TEXT_UNPACK_H
#define TEXT_UNPACK_H

#include "text/gzip_check.h"

/* Where packed bytes come from: writes at most n to `to` and returns how many, 0 at the end; dies
 * when it cannot. */
typedef size_t unpack_from(void *arg, char *to, size_t n);

struct unpack {              /* a zeroed struct is closed */
    struct archive *archive; /* NULL: closed */
    const char *name;
    unpack_from *from;
    void *arg;
    char *block; /* packed bytes as read */
    int is_gzip, is_packed;
    int64_t bytes; /* given out so far */
    struct gzip_check gzip;
};
enum { UNPACK_BLOCK = 256 << 10 };

/* name is kept, not copied. */
void unpack_open(struct unpack *u, const char *name, unpack_from *from, void *arg);
/* At most n bytes; 0 at the end, when all checksums were right.  Damage is fatal (4), and more than
 * source_max_bytes out of a compressed file is too (3). */
size_t unpack_read(struct unpack *u, char *to, size_t n);
void unpack_close(struct unpack *u);
/* Ends the tool when so many bytes came out of what name names. */
void unpack_limit(const char *name, int64_t bytes);

#endif
