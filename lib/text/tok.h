/* tok.h -- what the tokenizer's files share: a tokenizer is added tokens, then a list of
 * normalising steps, then a list of splitting steps, then merges; back again through a list of
 * decoding steps. */
#ifndef TEXT_TOK_H
#define TEXT_TOK_H

#include "text/map.h"
#include "text/text.h"
#include "text/tok_cache.h"
#include "text/tok_pairs.h"

/* ---- tok_pattern.c, tok_regex.c: PCRE2 with Unicode 16's letters, numbers and spaces ---- */

/* Appends the pattern, written for Oniguruma, as PCRE2 reads it.  Dies (2). */
void pattern_for_pcre2(struct buf *out, const char *p, size_t n, const char *who);
struct regex;
/* pattern in the common subset of Oniguruma and PCRE2; literal: no metacharacters.  Dies (2). */
struct regex *regex_new(const char *pattern, size_t len, int literal, const char *who);
/* The next match at or after from; 1 and its place (never empty), or 0. */
int regex_next(struct regex *r, const char *s, size_t n, size_t from, size_t *start, size_t *end);
struct regex *
regex_twin(const struct regex *r); /* for another thread; freed before r; NULL of NULL */
void regex_free(struct regex *r);
extern const char regex_gpt2[]; /* the pattern of ByteLevel with use_regex */
extern const char regex_word[]; /* a character of a word, as a token of its own may not touch it */

/* ---- tok_split.c: text to pieces, and the GPT-2 alphabet ---- */

enum behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
    SPLIT_CONTIGUOUS
};
enum prefix { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS };

/* What normalises. */
struct norm_step {
    enum { NORM_UNICODE, NORM_PREPEND, NORM_REPLACE } type;
    int form;            /* UNICODE: utf8proc's options */
    uint8_t *plain;      /* UNICODE: norm_plain(form) */
    struct buf a, b;     /* PREPEND: a; REPLACE: a by b */
    struct regex *regex; /* REPLACE: instead of a, or NULL */
};
/* What cuts: first spaces become `space` and the text gets the prefix, then the regex cuts. */
struct split_step {
    struct regex *regex; /* or NULL: one piece */
    enum behavior behavior;
    int invert;
    enum prefix prefix; /* put `space` (or ' ') before a piece that does not begin with it */
    struct buf space;   /* Metaspace: stands for ' '; empty: spaces stay */
};
/* What decodes, over the list of tokens in this order. */
struct decode_step {
    enum {
        DECODE_BYTE_LEVEL,
        DECODE_REPLACE,
        DECODE_BYTE_FALLBACK,
        DECODE_FUSE,
        DECODE_STRIP,
        DECODE_METASPACE
    } type;
    struct buf a, b;     /* REPLACE: a by b; STRIP: a; METASPACE: a */
    int64_t start, stop; /* STRIP */
    enum prefix prefix;  /* METASPACE */
};

struct added {       /* a token that is found in the text before anything else */
    struct buf name; /* as in the file */
    struct buf text; /* after normalising, where that applies */
    int32_t id;
    int special, normalized, lstrip, rstrip, single_word;
};

struct tok {
    struct buf json, config, chat_template; /* the files' bytes; the latter two may be empty */
    char hash[17];

    struct buf *token; /* [size] by id, what is decoded: as in the file, or what an added one is
                          normalised to; data NULL where no token has the id */
    int64_t size, cap;
    uint8_t *special; /* [size] left out where special tokens are */
    struct map ids;   /* token of the model to id; not those that are only added */
    struct pairs merges;
    char byte_char[256][2];                   /* the alphabet's character of a byte, in UTF-8 */
    size_t longest;                           /* of the tokens, in bytes as in the file */
    int32_t byte_id[256], unk, fallback[256]; /* -1: none */
    int byte_level, byte_fallback, fuse_unk, ignore_merges;

    struct regex *word;  /* where an added token is a single word, else NULL */
    struct added *added; /* sorted by first byte, longest first */
    int64_t addeds,
        added_at[257]; /* those that begin with byte c: added_at[c] .. added_at[c + 1] */
    struct norm_step norm[8];
    struct split_step split[8];
    struct decode_step decode[8];
    int64_t norms, splits, decodes;
    int has_decoder; /* without one, tokens are joined by a space */
    int64_t bos, eos;
    int64_t bos_token;      /* tokenizer_config.json's, -1: none */
    uint8_t *added_pair[2]; /* [256 x 32] by `normalized`: sets of the bytes an added token's first
                               byte is followed by; NULL: there are none */

    int is_twin; /* what is above is another's, but for the regexes, which match for one thread */

    /* What one thread has seen, and its scratch. */
    struct tok_cache *cache; /* pieces seen; made when first wanted */
    uint8_t *known,
        *beside; /* tok_bpe.c: where pieces of characters may be cut; made when wanted */
    int within;  /* the text that is encoded goes on with one that was: nothing is put before it */
    int32_t *first; /* [symbols_cap] */
    struct symbol {
        int32_t id, prev, next, rank; /* rank of the merge with next, -1 for none */
    } * symbol;
    struct candidate {
        int32_t rank, at;
    } * heap;
    int64_t symbols_cap, heap_n, heap_cap;
};

uint32_t byte_level_char(uint8_t b); /* the code point that stands for a byte */
int byte_level_byte(uint32_t c);     /* the reverse, or -1 */
/* Bits: which characters a form leaves as they are, whatever comes before; free() releases it. */
uint8_t *norm_plain(int form);
void tok_normalize(const struct tok *t, const char *s, size_t n, struct buf *out);
/* Cuts a normalised text and appends the ids of its pieces.  first: it begins the input. */
void tok_split(struct tok *t, const char *s, size_t n, int first, struct ids *out);

/* ---- tok_added.c: the steps that normalise are read in between ---- */
void tok_read_added(struct tok *t, struct json root, const char *who);
void tok_index_added(struct tok *t, const char *who);

/* ---- tok_parse.c ---- */
void token_set(struct tok *t, const char *who, const char *name, size_t len, int64_t id);
/* 0 where it is absent or null. */
int tok_flag(struct json v, const char *key, const char *who);

/* ---- tok_steps.c ---- */
void tok_read_steps(struct tok *t, struct json root, const char *who);

/* ---- tok_write.c ---- */
enum { TOK_SPECIALS = 64 };
/* token: the bytes of each, by id; those of the first TOK_SPECIALS are not read.  merge: pairs of
 * ids. */
void tok_write(const struct buf *token, const int32_t *merge, int64_t merges, struct buf *json);

/* ---- tok_bpe.c ---- */
void tok_merge(struct tok *t, const char *piece, size_t n, struct ids *out);

/* ---- tok_decode.c ---- */
/* Replaces every a in s by b. */
void buf_replace(struct buf *out, const char *s, size_t n, const struct buf *a,
                 const struct buf *b);

#endif
