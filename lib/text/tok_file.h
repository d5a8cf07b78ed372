/* tok_file.h -- what the readers of other tokenizer formats share: each fills in a tokenizer.json,
 * which is then read like any other.  So a foreign format costs one reader, and what a set carries
 * is a file that the `tokenizers` package loads. */
#ifndef TEXT_TOK_FILE_H
#define TEXT_TOK_FILE_H

#include "text/tok.h"

/* ---- tok_file.c ---- */

struct tok_file {     /* begin with tok_file_init() */
    struct buf *name; /* [size] by id, as the file spells it; data NULL: no token has the id */
    int64_t size, cap;
    struct file_added { /* in the order of their ids */
        int64_t id;
        int special, normalized, lstrip, rstrip, single_word;
    } * added;
    int64_t addeds;
    struct ids merge; /* pairs of ids, the best first */
    int64_t bos, unk; /* ids, -1: none.  bos: put before every text */
    int byte_fallback, fuse_unk, ignore_merges;
    struct buf normalizer, pre_tokenizer, decoder; /* JSON; empty: null */
};
void tok_file_init(struct tok_file *f);
void tok_file_token(struct tok_file *f, int64_t id, const char *name, size_t len, const char *who);
/* The token's flags, to be set; all 0 at first. */
struct file_added *tok_file_added(struct tok_file *f, int64_t id);
/* The steps of a byte-level tokenizer: pattern NULL is GPT-2's. */
void tok_file_byte_level(struct tok_file *f, const char *pattern);
/* Takes the "added_tokens_decoder" of the tokenizer_config.json beside path, where there is one:
 * more tokens, and other names and flags of those that are added already. */
void tok_file_config(struct tok_file *f, const char *path);
void tok_file_write(struct tok_file *f, struct buf *json);
void tok_file_release(struct tok_file *f);
void byte_level_text(struct buf *out, const char *bytes, size_t n);

/* ---- tok_ranks.c: merges of a vocabulary that says only how early each token was learnt ---- */

/* text: [size] the tokens' bytes; rank: [size] lower merges first, -1: no merge makes it.  chars:
 * what merges begin from is characters, else bytes. */
void tok_ranks_merges(struct tok_file *f, const struct buf *text, const int32_t *rank, int chars,
                      const char *who);

/* A vocabulary of bytes whose ids are in the order of their ranks, in the making. */
struct tok_ranked {
    struct tok_file file;
    struct buf *text; /* [cap] by id */
    int64_t cap;
};
void tok_ranked_init(struct tok_ranked *v);
void tok_ranked_add(struct tok_ranked *v, int64_t id, const struct buf *bytes, const char *who);
void tok_ranked_finish(struct tok_ranked *v, const char *who); /* the merges, before other tokens */
void tok_ranked_release(struct tok_ranked *v);
/* Appends what n base64 digits stand for; 0, or -1.  tok_tiktoken.c */
int base64_decode(struct buf *out, const char *s, size_t n);

/* ---- one reader a format.  1: it is that format, and json is its tokenizer.json; 0: it is not.
 * They die (2) on what they do not know.  path: a file beside it may be needed. ---- */

int tok_from_tiktoken(const struct buf *bytes, const char *path, struct buf *json);
int tok_from_tekken(const struct buf *bytes, const char *path, struct buf *json);
int tok_from_sentencepiece(const struct buf *bytes, const char *path, struct buf *json);
int tok_from_vocab(const struct buf *bytes, const char *path, struct buf *json);

/* tok_open.c.  The file of this name beside path, or NULL; the caller frees. */
char *tok_beside(const char *path, const char *name);

#endif
