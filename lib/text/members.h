/* members.h -- the files in a tar, zip or 7z archive, one after the other. */
#ifndef TEXT_MEMBERS_H
#define TEXT_MEMBERS_H

#include "text/unpack.h"

#include <locale.h>

struct members {             /* a zeroed struct is closed */
    struct archive *archive; /* NULL: closed */
    const char *name;        /* the archive's */
    locale_t utf8;           /* in which libarchive understands names */
    struct unpack *file;     /* where its bytes come from, or NULL: a file that can be sought */
    struct buf block;        /* the bytes of it that libarchive looks at */
    int head;                /* block holds its beginning, which was read before */
    struct buf tail;         /* the last bytes of it so far */
    struct buf label;        /* of the open entry, fit to print */
    int64_t size, left;      /* of the open entry, -1 when unknown; what is still to come of it */
    int64_t bytes, entries, skipped;
};

/* Whether a file that begins so is an archive of a kind that a stream can be read of. */
int members_in(const char *head, size_t n);
/* Whether it is one whose table stands at its end. */
int members_sought(const char *head, size_t n);
/* The archive in a regular file, from its beginning. */
void members_open_fd(struct members *m, const char *name, int fd);
/* The archive that begins with the n bytes of head and goes on with what file gives. */
void members_open(struct members *m, const char *name, struct unpack *file, const char *head,
                  size_t n);
/* The next regular file whose name matches source_entries: 1 and m->label, 0 at the end of an
 * archive that is whole.  Damage, and an entry that is encrypted, are fatal (4). */
int members_next(struct members *m);
size_t members_read(void *m, char *to, size_t n); /* an unpack_from: bytes of the open entry */
/* Bytes of a sought file that were read; 0 for others. */
double members_bytes_read(const struct members *m);
void members_close(struct members *m); /* says how many entries were skipped */

#endif
