/* gzip_check.h -- whether what came out of a gzip file is what went in: libarchive does not look.
 */
#ifndef TEXT_GZIP_CHECK_H
#define TEXT_GZIP_CHECK_H

#include "base/base.h"

/* A zeroed struct is ready. */
struct gzip_check {
    struct buf window; /* the last compressed bytes */
    struct gzip_trailer {
        uint32_t crc, size;
        int passed; /* it did not end the open member */
    } * trailer;    /* possible ends of members, in the order of the file */
    int64_t trailers, trailers_cap;
    struct gzip_run { /* the open member so far, if it began where we think */
        uint32_t crc, size;
        int64_t first; /* index of the first trailer that can be its end */
    } run[2];          /* [1]: the other opinion, if doubted */
    int doubted;
};
void gzip_check_packed(struct gzip_check *g, const void *p, size_t n); /* bytes as read */
void gzip_check_unpacked(struct gzip_check *g, const void *p,
                         size_t n);             /* bytes as they come out */
int gzip_check_end(const struct gzip_check *g); /* 1 when the last member is whole and right */
void gzip_check_release(struct gzip_check *g);

#endif
