/* shard.h -- the container: a strict profile of safetensors (formats/shard.md), as files, streams
 * and sets, and the order in which training reads a set.
 *
 * A blob is one header and its tensors.  A file is one blob; a stream is blobs end to end, in
 * segments that each end in an end blob; a set is a folder of files and manifest.json.  The reader
 * refuses by name what the format forbids; a stream that stops before its end blob is damage, never
 * a short success. */
#ifndef SHARD_H
#define SHARD_H

#include "base/base.h"

enum { SHARD_FILE_ALIGN = 4096, SHARD_STREAM_ALIGN = 64, SHARD_DIMS = 8 };
enum { SHARD_HEADER_MAX_FILE = 100000000, SHARD_HEADER_MAX_STREAM = 16 << 20 };

struct tensor {
    char *name;
    enum dtype type;
    int ndim;
    int64_t shape[SHARD_DIMS];
    int64_t at, bytes; /* within the data section */
    void *data; /* in memory: writer's own or the blob's; NULL in a file read by header only */
};

/* One blob in memory.  A zeroed struct is empty. */
struct blob {
    struct tensor *tensor; /* once read or written: widest elements first, then by name */
    int64_t tensors;
    char **key, **value; /* __metadata__, sorted by key */
    int64_t keys;
    void *memory; /* what a reader read; tensor data point into it */
    int sorted;   /* tensors are in their order */
};
void blob_tensor(struct blob *b, const char *name, enum dtype t, int ndim, const int64_t *shape,
                 const void *data); /* data is borrowed until the blob is written */
void blob_meta(struct blob *b, const char *key, const char *value);
const char *blob_get(const struct blob *b, const char *key); /* metadata value or NULL */
struct tensor *blob_find(const struct blob *b, const char *name);
void blob_release(struct blob *b);
/* Writes the blob at the current end of o; adds the checksums "xxh3.<tensor>" and "xxh3.header".
 * Data begin at a multiple of align (one of the two above), counted from the blob's first byte.  No
 * tensor may be called "header". */
void blob_write(struct blob *b, struct out *o, int64_t align);
/* The same file, of tensors that memory does not hold (added with data NULL): opening puts them
 * into their order in b->tensor, and in that order their bytes are put, in pieces of any size. */
struct blob_file;
struct blob_file *blob_file_open(struct blob *b, const char *path);
void blob_file_put(struct blob_file *f, const void *bytes, int64_t n);
int64_t blob_file_close(struct blob_file *f); /* publishes; returns the file's size */

/* Reading one file: the header is checked on opening; tensors are read when asked for, and checked
 * against their hash where the header has one.  Plain files of other programs open too. */
struct shard_file;
/* Whether path is for shard_open(); streams, compressed or not, and pipes are for stream_open(). */
int shard_is_file(const char *path);
struct shard_file *shard_open(const char *path);
const struct blob *shard_header(const struct shard_file *f); /* tensor data are NULL */
/* Reads the whole tensor into dst (tensor->bytes), checking its hash.  Dies (4) on damage. */
void shard_read(struct shard_file *f, const struct tensor *t, void *dst);
/* The same in blocks, each given to take() (NULL: nobody) on its way; returns the tensor's XXH3. */
uint64_t shard_blocks(struct shard_file *f, const struct tensor *t,
                      void (*take)(void *arg, const void *bytes, int64_t n), void *arg);
/* Reads bytes [at, at + n) of a tensor without checking its hash. */
void shard_read_part(struct shard_file *f, const struct tensor *t, int64_t at, int64_t n,
                     void *dst);
void shard_close(struct shard_file *f);
/* Reads a file whole and dies (4) where it is damaged or has no checksums. */
void shard_check(const char *path);
/* The *.safetensors files in a folder and below it, relative to it, in order of name; dies without
 * any. The caller frees each and the list. */
char **shard_list(const char *folder, int64_t *n);
/* Compares two files or folders tensor by tensor, by content.  Writes a line for each that differs
 * and returns how many do; *tensors: of how many. */
int64_t shard_diff(const char *a, const char *b, struct out *o, int64_t *tensors);
/* What a blob holds, as text for people and awk; number: in its stream, -1 for a file. */
void blob_list(struct out *o, const char *path, int64_t number, const struct blob *b);
/* Its lines, for who finds tensors otherwise: of one that only path has, and of two (with data)
 * that differ.  The latter returns whether they do. */
void shard_diff_lone(struct out *o, const struct tensor *t, const char *path);
int shard_diff_pair(struct out *o, const struct tensor *a, const struct tensor *b);

/* Reading a stream or a file, blob by blob; zstd frames are recognised.  name is for messages. */
struct stream;
struct stream *stream_open(const char *path); /* "-" is stdin */
/* 1 and a blob (good until the next call), 0 after the last end blob; dies (4) on damage. */
int stream_next(struct stream *s, struct blob *out);
void stream_close(struct stream *s);

/* ---- rows of tokens: what shard-pack writes (formats/shard.md, "row groups") ---- */

/* Fields that all row groups of a set share; kept in manifest.json and in every blob. */
struct set_info {
    int64_t seq;          /* capacity of a packed sequence, tokens */
    char *tokenizer_hash; /* XXH3-64 of tokenizer.json, hex */
    char *columns;        /* "weight,reward": weight, then those of reward, pair, margin and
                           * ref_logp that are present, in this order */
    char *template;       /* the chat template's name */
    int64_t bos, eos;     /* ids that begin and end a document, -1 for none */
};

int set_info_has(const struct set_info *i, const char *column); /* "pair" and so on */

/* One document as the packer takes it.  The arrays are borrowed for the call. */
struct doc {
    const int32_t *token;
    const uint8_t *target; /* 1 where the token is learnt */
    int64_t n;
    double weight, reward;   /* reward NaN for none */
    int64_t pair;            /* -1 for none */
    double margin, ref_logp; /* 0 when absent; of a document in a pair (formats/shard.md) */
};

/* Writes documents as row groups of about group_tokens, in order, packing neighbours: a packed
 * sequence is a run of documents whose tokens sum to at most seq; the two documents of a pair stay
 * together.  path ending in '/' is a set (a file for each row group, and manifest.json, published
 * whole); NULL is a stream on stdout, .sts a stream in a file, .sts.zst one in zstd frames; else
 * one file, whose row group is held in memory whole.  Extra files (name, bytes) travel with the
 * data, in the next row group that is written: tokenizer.json and so on.  provenance is
 * manifest.json's "provenance" value, JSON text. */
struct packer;
struct packer *packer_open(const char *path, const struct set_info *info, int64_t group_tokens);
/* Packs best fit within so many items (documents, or pairs) instead of next fit in order. */
void packer_window(struct packer *p, int64_t items);
/* A stream in zstd frames, whatever its name; before the first document. */
void packer_zstd(struct packer *p);
/* d->n is from 1 to seq; that of the two documents of a pair together as well. */
void packer_add(struct packer *p, const struct doc *d);
void packer_file(struct packer *p, const char *name, const void *bytes, size_t n);
int64_t packer_close(struct packer *p, const char *provenance); /* returns how many sequences */

/* ---- documents in the formats of other programs ---- */

/* What a document has beside its tokens, its target and its weight. */
enum { DOC_PAIR = 1, DOC_REWARD = 2, DOC_MARGIN = 4, DOC_REF_LOGP = 8 };

struct docs_format {
    const char *name;
    void *(*create)(const char *path, int64_t vocab); /* path NULL: stdout */
    /* NULL, or why the format cannot hold the document. */
    const char *(*put)(void *writer, const struct doc *d, unsigned parts);
    void (*finish)(void *writer); /* publishes, and frees */
    void *(*open)(const char *path); /* borrowed */
    /* 1 and a document (good until the next call), 0 at the end; dies (4) on damage.  Tokens may be
     * any numbers, -1 for those that do not fit. */
    int (*next)(void *reader, struct doc *d, unsigned *parts);
    void (*close)(void *reader);
};
extern const struct docs_format docs_megatron;   /* PREFIX.bin and PREFIX.idx of Megatron-LM */
extern const struct docs_format docs_webdataset; /* a tar of samples for the webdataset package */
const struct docs_format *docs_format_find(const char *name); /* or NULL */

/* A set (or one file, or one stream spooled to an unlinked file) for random access. */
struct set;
struct set *set_open(const char *path); /* dies (4) on damage: every tensor's hash is checked */
/* What set_open() leaves out for a folder, being slow: the SHA-256 of its files, and shards in it
 * that manifest.json does not name.  Dies (4) on a fault. */
void set_check_files(const struct set *s);
const struct set_info *set_info(const struct set *s);
int64_t set_sequences(const struct set *s); /* packed sequences */
int64_t set_rows(const struct set *s);
int64_t set_tokens(const struct set *s);
const char *set_hash(const struct set *s); /* fingerprint of the data, 16 hex digits */
/* A file that travels with the data (tokenizer.json), or NULL, also where the segments of a stream
 * bring different ones of that name; good until set_close(). */
const struct buf *set_file(const struct set *s, const char *name);
void set_close(struct set *s);

/* Packed sequence i.  Fills n = seq entries: token (pads 0), target, document number from 0 (-1 for
 * pads), and the weight of each document at its tokens. */
void set_sequence(const struct set *s, int64_t i, int32_t *token, uint8_t *target,
                  int32_t *document, float *weight);
/* Leaves the memory that reading took to the page cache; what is read again comes back. */
void set_forget(const struct set *s);
/* Row i as the packer took it (its arrays are the set's); returns the packed sequence it is in. */
int64_t set_row(const struct set *s, int64_t i, struct doc *out);
/* The documents of packed sequence i, in order; out has room for seq of them.  Returns how many. */
struct set_doc {
    double weight, reward; /* reward NaN for none */
    double margin, ref_logp;
    int64_t pair;
};
int64_t set_documents(const struct set *s, int64_t i, struct set_doc *out);

/* The order of training data is a pure function: which sequence of which set is sample number i of
 * the run, given seed and integer weights (below 2^31).  Each pass over a set is a keyed
 * permutation of it.  In every window of sum(weight) samples, set j is drawn weight[j] times. */
struct mix {
    struct set **set;
    int64_t *weight;
    int64_t n;
    uint64_t seed;
};
void mix_sample(const struct mix *m, int64_t i, int64_t *set, int64_t *sequence);

#endif
