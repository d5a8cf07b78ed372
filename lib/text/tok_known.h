/* tok_known.h -- what a tiktoken file does not say, of the vocabularies that are known. */
#ifndef TEXT_TOK_KNOWN_H
#define TEXT_TOK_KNOWN_H

#include <stdint.h>

struct known_special { /* count ids from id on: name with a number, from number on, for %d */
    int32_t id, count, number;
    const char *name; /* NULL ends the list */
};
struct known {
    const char *name, *sha256; /* of the file */
    const char *pattern;       /* NULL: GPT-2's */
    const char *normalizer;    /* JSON, or NULL */
    int32_t bos;               /* the id that begins a text, -1: none */
    const struct known_special *special;
};
extern const struct known tok_known[]; /* ends with a name that is NULL */
extern const char tok_qwen_pattern[], tok_cl100k_pattern[], tok_o200k_pattern[], tok_nfc[];

#endif
