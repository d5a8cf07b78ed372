/* tally.h -- what a device has given out, for the backends that hand out memory of their own. */
#ifndef TALLY_H
#define TALLY_H

#include "dev/dev.h"

struct tally { /* one a backend, shared by its threads; zero-initialised */
    struct tally_block {
        void *p;
        int64_t bytes;
    } *block; /* (n) those that are out */
    int64_t n, cap, used, peak; /* peak: since nothing was out */
};
void tally_add(struct tally *t, void *p, int64_t bytes);
void tally_remove(struct tally *t, const void *p); /* NULL, or a block that was added */
void tally_read(struct tally *t, struct dev_memory *m); /* used and peak */

#endif
