/* shard_priv.h -- what the files of lib/shard share and no other layer needs.
 *
 * Functions that meet bytes from outside return NULL, or the reason they refuse them: a string of
 * the caller's, which is nearly always about to die with the name of the input in front. */
#ifndef SHARD_PRIV_H
#define SHARD_PRIV_H

#include "shard/shard.h"

enum { SHARD_NAME_MAX = 512, SHARD_STREAM_TENSORS_MAX = 65536 };

/* blob.c */
void blob_sort(struct blob *b);  /* tensors into their order */
void blob_reset(struct blob *b); /* empties it, but keeps its memory */
/* The finished header, spaces included: the blob is sorted and its checksums are taken. */
void blob_header(struct blob *b, int64_t align, struct buf *h);
void header_length(uint8_t bytes[8], uint64_t n);
/* The header's own hash: XXH3-64 of its n bytes with the 16 digits of "xxh3.header" read as '0'.
 * at: where those digits stand; header_hash_at() gives -1 when they do not stand anywhere. */
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

/* file.c */
/* Maps the file and points its tensors' data there.  The mapping outlives shard_close(). */
void *shard_map(struct shard_file *f, size_t *bytes);

/* list.c: "[2,3]" */
void shape_print(const struct tensor *t, struct buf *out);

/* stream.c: whether a zstd frame begins so. */
int frame_magic(const uint8_t p[4]);

/* segment.c: one segment of a stream, as its writer and its reader count it. */
struct segment {
    int64_t blobs, rows, tokens, sequences;
    char chain[17]; /* 16 zeros, then XXH3-64 of (chain, the blob's xxh3.header) blob by blob */
};
void segment_start(struct segment *g);
void segment_add(struct segment *g, const struct blob *b);
char *segment_end_check(const struct segment *g, const struct blob *end);
/* Blobs into o, each a zstd frame of its own if asked for. */
void segment_write(struct segment *g, struct blob *b, struct out *o, int zstd);
void segment_write_end(struct segment *g, struct out *o, int zstd);

/* rows.c: a row group. */
struct rows {
    int64_t rows, tokens, sequences;
    const int32_t *token;  /* (tokens) */
    const int64_t *offset; /* (rows + 1) row r is tokens offset[r] to offset[r + 1] */
    const uint8_t *target; /* (tokens) */
    const float *weight;   /* (rows) */
    const float *reward;   /* (rows) or NULL */
    const int64_t *pair;   /* (rows) or NULL */
    const float *margin;   /* (rows) or NULL */
    const float *ref_logp; /* (rows) or NULL */
    const int64_t *pack;   /* (sequences) first row of each packed sequence */
};
void set_info_copy(struct set_info *to, const struct set_info *from);
void set_info_release(struct set_info *i);
void set_info_put(const struct set_info *i, struct blob *b);
char *set_info_get(struct set_info *i, const struct blob *b);
/* What two row groups that may not stand in one set disagree about, or NULL. */
const char *set_info_differ(const struct set_info *a, const struct set_info *b);
char *rows_view(struct rows *r, const struct set_info *i, const struct blob *b);
char *rows_check(const struct rows *r, int64_t seq); /* the contents, every element */

/* The fingerprint of data does not depend on how they are cut into row groups, files or streams. */
struct fingerprint {
    struct hash_stream *column[9];
    int64_t rows, tokens;
};
void fingerprint_start(struct fingerprint *f);
void fingerprint_add(struct fingerprint *f, const struct rows *r);
void fingerprint_end(struct fingerprint *f, const struct set_info *i, char hex[17]); /* frees */

/* set.c, set_open.c */
struct group {
    struct rows rows;         /* point into map */
    int64_t first, first_row; /* numbers of its first packed sequence and row */
    void *map;
    size_t bytes;
};
struct file { /* that travels with the data */
    char *name;
    struct buf bytes;
    int torn; /* segments bring different ones */
};

struct set {
    char *path;
    struct set_info info;
    struct group *group;
    struct file *file;
    int64_t groups, files, sequences, rows, tokens;
    char hash[17];
    struct fingerprint print;
};

/* sink.c: where row groups go: one file, a stream, or a set. */
struct sink;
struct sink *sink_open(const char *path);
int sink_is_file(const struct sink *s); /* takes one row group only */
void sink_zstd(struct sink *s);
void sink_file(struct sink *s, const char *name, const void *bytes, size_t n);
void sink_put(struct sink *s, struct blob *b, const struct rows *r);
void sink_close(struct sink *s, const struct set_info *i, const char *fingerprint,
                const char *provenance);

#endif
