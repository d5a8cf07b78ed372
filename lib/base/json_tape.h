/* json_tape.h -- the seam between json_parse.cc, which runs simdjson, and json.c, which reads the
 * tape it leaves.
 *
 * simdjson's tape is a run of 64-bit words, a type in the top byte and a payload below: for a
 * string an offset into strings (u32 length, bytes, NUL), for a container the index behind its end
 * (and, in bits 32-55, a count that saturates), for a number nothing, the next word being the
 * number.  Walking it in C costs no call per value and no copy. */
#ifndef JSON_TAPE_H
#define JSON_TAPE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct json_doc {
    const uint64_t *tape; /* tape[0] is the root, the document's value begins at 1 */
    const uint8_t *strings;
};

struct json_doc *json_doc_new(void);
void json_doc_free(struct json_doc *d);
/* 0, or -1 and a static sentence. */
int json_tape_parse(struct json_doc *d, const char *text, size_t len, const char **why);

#ifdef __cplusplus
}
#endif
#endif
