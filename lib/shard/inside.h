/* inside.h -- what the files of lib/shard share and no other layer needs.
 *
 * Functions that meet bytes from outside return NULL, or the reason they refuse them: a string of the
 * caller's, which is nearly always about to die with the name of the input in front. */
#ifndef SHARD_INSIDE_H
#define SHARD_INSIDE_H

#include "shard/shard.h"

enum { SHARD_NAME_MAX = 512, SHARD_STREAM_TENSORS_MAX = 65536 };

/* blob.c */
void blob_sort(struct blob *b); /* both lists into their order */
void blob_reset(struct blob *b); /* empties it, but keeps memory */
/* The header's own hash: XXH3-64 of its n bytes with the 16 digits of "xxh3.header" read as '0'.
 * at: where those digits stand, or -1 when they do not stand anywhere. */
uint64_t header_hash(const char *text, int64_t n, int64_t at);
int64_t header_hash_at(const char *text, int64_t n);

/* header.c: what safetensors asks for, and what formats/shard.md asks for beyond that. */
char *header_parse(struct blob *b, const char *text, int64_t n);
int64_t header_data_bytes(const struct blob *b); /* after header_parse: all tensors together */
int header_claims_profile(const struct blob *b);
char *header_profile(const struct blob *b, const char *text, int64_t n);
/* Where the header says that the tensor's bytes hash to something else. */
char *tensor_verify(const struct blob *b, const struct tensor *t, uint64_t hash);
/* Metadata that must be a decimal count of at most 18 digits. */
char *meta_count(const struct blob *b, const char *key, int64_t *out);

#endif
