/* import.h -- what the forms of import share. */
#ifndef TEXT_IMPORT_H
#define TEXT_IMPORT_H

#include "text/text.h"

struct import {
    struct json json;
    struct row_edit edit; /* the row being made */
    struct buf prompt, other, reply;
};
/* A member that is there and not null. */
int import_has(struct json v, const char *key, struct json *out);
int import_has_type(struct json v, const char *key, enum json_type type);
void import_finish(struct import *m, struct buf *out); /* the row is made: appends it */

/* ---- import_hh.c ---- */
int import_is_hh(struct json v);
const char *import_from_hh(struct import *m, struct buf *out);

#endif
