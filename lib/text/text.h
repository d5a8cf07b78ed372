/* text.h -- rows (formats/rows.md), where they come from, tokenizers and chat templates. */
#ifndef TEXT_H
#define TEXT_H

#include "base/base.h"

/* ---- source.c: bytes from what people have: files, "-", compressed, in archives ---- */

extern const char *source_entries;   /* --entries: which files of an archive are read; NULL: all */
extern int64_t source_max_bytes;     /* --max-bytes: what one file may unpack to */
enum { RECORD_BYTES_MAX = 1 << 30 }; /* of a line, a value of an array, a text */

struct source;
/* Opens paths one after the other (n 0: stdin).  gz, bz2, xz, zst and lz4, and tar, zip and 7z, are
 * recognised by their bytes; each regular file in an archive is an entry of its own, which may be
 * compressed, too.  A file that cannot be opened is fatal before anything is read. */
struct source *source_open(char *const *paths, int64_t n);
/* The next line without its newline, NUL-terminated, good until the next call; 0 at the end.  A
 * last line without a newline counts.  What is damaged, cut off or encrypted is fatal (4); what
 * unpacks to more than source_max_bytes, or holds a line longer than RECORD_BYTES_MAX, is fatal
 * (3). */
int source_line(struct source *s, char **line, size_t *len);
/* The next whole entry (file or archive member): its bytes; 0 at the end. */
int source_entry(struct source *s, struct buf *out);
/* What was read of the open entry and not returned, at least a byte; 0 at its end.  source_skip()
 * takes n of it. */
int source_rest(struct source *s, const char **bytes, size_t *n);
void source_skip(struct source *s, size_t n);
/* "rows.jsonl" or "data.tar:a/rows.jsonl", of the last line or entry; good until the next entry. */
const char *source_name(const struct source *s);
/* An id for its n-th row: the name without folder and compression suffix, ":", n.  An entry's name
 * has the archive's before it. */
void source_id(const struct source *s, int64_t n, struct buf *out);
_Noreturn void source_too_long(const struct source *s); /* what was to be returned next is */
int64_t source_line_number(const struct source *s);     /* from 1 */
/* Whether the last line stands in a regular file, not compressed, and where it begins there. */
int source_line_plain(const struct source *s, int64_t *offset);
double source_bytes_total(const struct source *s); /* of all regular files, 0 when unknown */
double source_bytes_read(const struct source *s);  /* of them so far, as they lie on the disk */
/* What comes next, not consumed.  1: an entry begins, and head holds its first bytes (all of them,
 * or at least 4096); 0: lines of this entry were taken and more is left; -1: nothing is left. */
int source_peek(struct source *s, const char **head, size_t *n);
void source_close(struct source *s);

/* ---- utf8.c ---- */

int utf8_valid(const char *s, size_t n);
/* Appends s with each maximal invalid sequence replaced by U+FFFD. */
void utf8_repair(struct buf *out, const char *s, size_t n);
/* Reads one code point of valid UTF-8 and moves *s past it. */
uint32_t utf8_next(const char **s);
void utf8_add(struct buf *out, uint32_t c);

/* ---- row.c: one JSON object a line ---- */

struct row { /* strings are NUL-terminated and point into the reader; NULL or NaN when absent */
    const char *line; /* the bytes as read */
    size_t len;
    struct json json;
    const char *id, *prompt_id, *response, *chosen, *rejected, *text, *tag, *finish;
    size_t response_len, chosen_len, rejected_len, text_len;
    struct json prompt; /* a string or an array of {role, content}; see has_prompt */
    int has_prompt;
    int64_t sample; /* -1 when absent */
    double reward, reward_chosen, reward_rejected, weight, margin, ref_logp_chosen,
        ref_logp_rejected;
    const char *file;
    int64_t number; /* line number */
    int is_plain;   /* the file holds these bytes as they are, at this offset */
    int64_t offset;
    int control; /* set by the caller: special tokens in its texts count as such; 0 as read */
};

/* Reads rows and keeps the accounts: in = kept + dropped by reason. */
struct row_reader {
    struct source *source;
    struct json_doc *doc, *reject_doc;
    struct out *rejects; /* or NULL */
    int64_t max_bad, in, bad;
    struct row row;
    struct row_reason { /* bad and dropped rows by reason, in order of first use */
        const char *why;
        int64_t n;
        int bad;
    } reason[32];
    int64_t reasons;
};
/* The options every row tool shares.  Put them into the tool's table. */
#define ROW_OPTIONS                                                                                \
    OPT_STR(0, "rejects", &row_rejects, "file", "write bad and dropped rows here, with reasons"),  \
        OPT_INT(0, "max-bad", &row_max_bad, "n", "bad rows to tolerate before exit 3"),            \
        OPT_FLAG(0, "allow-empty", &row_allow_empty, "no row kept is not an error"),               \
        OPT_STR(0, "entries", &source_entries, "pattern",                                          \
                "files to read of an archive, as a shell pattern"),                                \
        OPT_INT(0, "max-bytes", &source_max_bytes, "n",                                            \
                "bytes a compressed file or archive may unpack to")
extern const char *row_rejects;
extern int64_t row_max_bad;
extern int row_allow_empty;

void row_reader_init(struct row_reader *r, char *const *paths, int64_t n);
/* 1 and r->row, or 0 at the end.  A line that is no JSON object, or whose known fields have the
 * wrong type, is bad: reported as FILE:LINE: why, written to the rejects, counted; beyond max_bad
 * the tool exits 3.  Blank lines are bad too. */
int row_next(struct row_reader *r);
/* Counts the current row as bad (it fails what this tool needs) or as dropped (it was fine and not
 * wanted); both go to the rejects with the reason, which must be a string constant. */
void row_bad(struct row_reader *r, const char *why);
void row_drop(struct row_reader *r, const char *why);
/* As row_drop(); more stands in the rejects, behind the reason: JSON members, each with a comma
 * before it. */
void row_drop_with(struct row_reader *r, const char *why, const char *more);
/* Prints "in N, kept N, dropped N (why N), bad N (why N)" with say(); kept is a count of input
 * rows, and the four must add up.  Exits 3 when kept is 0 and --allow-empty was not given, so call
 * it before the output is published.  Closes and frees. */
void row_reader_close(struct row_reader *r, int64_t kept);
/* For a tool that finds its rows otherwise than one a line (pref-cat): counts one more, which
 * becomes r->row with nothing but line and number; row_bad() and row_drop() are about it. */
void row_begin(struct row_reader *r, const char *line, size_t len, int64_t number);
/* An empty row (numbers NaN, sample -1) of these bytes. */
void row_init(struct row *row, const char *line, size_t len);
/* Parses the line into row->json, then its known fields too.  NULL, or why it is bad. */
const char *row_parse_json(struct row *row, struct json_doc *doc);
const char *row_parse(struct row *row, struct json_doc *doc);
/* The canonical JSON of a prompt (compact; a string stays a string, a list keeps role and content):
 * what prompts are compared by. */
void row_prompt_canonical(const struct row *r, struct buf *out);
/* prompt_id, or the XXH3 of the canonical prompt as 16 hex digits, or "" when the row has no
 * prompt. */
void row_group(const struct row *r, struct buf *out);

/* ---- row_each.c: rows worked on by several threads ---- */

struct row_each {
    int64_t lanes; /* threads, each with a number from 0 */
    void *arg;
    /* Appends what is made of a row to out, where it begins at a multiple of 8.  Any thread, many
     * at once, one at a time of a lane. */
    void (*make)(void *arg, int64_t lane, const struct row *row, struct buf *out);
    /* Takes it, in the order of the rows and one at a time, on any thread.  r->row has its bytes,
     * file and number, and nothing that was parsed of it. */
    void (*take)(void *arg, struct row_reader *r, char *made);
};
/* Works on all rows; those that are none are bad, as in row_next(). */
void row_each(struct row_reader *r, struct row_each *each);

/* ---- row_edit.c: a row changed member by member; all other bytes stay ---- */

struct row_edit { /* a zeroed struct is ready; line is the row being made */
    struct buf line, spare, value;
};
void row_edit_begin(struct row_edit *e, const char *line, size_t len);
void row_edit_json(struct row_edit *e, const char *key, const char *value); /* NULL: dropped */
void row_edit_string(struct row_edit *e, const char *key, const char *s, size_t len);
void row_edit_release(struct row_edit *e);
/* Makes sample k of a pair (0: chosen, 1: rejected): response and reward instead of the two sides.
 */
void row_explode(const struct row *row, int64_t k, struct row_edit *e);
/* Makes the row being edited the k-th answer to its prompt: an old answer, its rewards, weight and
 * tag go. */
void row_answer(struct row_edit *e, const char *id, const char *prompt_id, int64_t k,
                const struct buf *text, const char *finish);
/* Makes the first n words of a text row its prompt and the rest its response: prompt and response
 * end to end are the text.  0, or -1 when the text has no more than n words. */
int row_cut_words(const struct row *row, int64_t n, struct row_edit *e);

/* ---- reshape.c: what becomes of a canonical row ---- */

struct reshape { /* set what is wanted, the rest zero */
    int explode; /* a pair becomes two samples */
    int64_t max_chars,
        prompt_words; /* texts are cut into pieces; into prompt and response; 0: not */
    struct buf made;  /* rows, a line each */
    struct json_doc *doc;
    struct row_edit edit;
};
/* Appends to made what becomes of the row, the k-th of several of one record (-1: the only one),
 * with id where it has none.  Returns why it is bad, or NULL; *dropped: why it is not wanted. */
const char *row_reshape(struct reshape *r, const char *line, size_t len, const char *id, int64_t k,
                        const char **dropped);
void reshape_release(struct reshape *r);

/* ---- texts.c: texts in one entry ---- */

/* Texts between lines that are exactly `separator` (NULL: the whole entry is one).  The newline
 * before a separator belongs to it, and nothing between two of them is no text. */
struct texts { /* set source, separator; the rest zero */
    struct source *source;
    const char *separator;
    int64_t number, line; /* of the last text in the entry, of its first line; from 1 */
    struct buf text;      /* it */
};
int texts_next(struct texts *t); /* 1 and t->text, or 0 at the end of the entry */
void texts_release(struct texts *t);
/* Appends s with \f, \n, \r, \t, \\ and \xHH replaced by what they stand for.  0, or -1: another
 * backslash. */
int text_unescape(struct buf *out, const char *s);
/* The first piece of a text: at most n characters (n >= 1) of the valid UTF-8 at s.  It ends at the
 * last border of paragraphs in the second half, else of sentences there, else at any white space,
 * else anywhere. White space at its end is not part of it, and *next is where the rest begins,
 * behind the white space. */
size_t text_piece(const char *s, size_t len, int64_t n, size_t *next);

/* ---- elements.c: values in a JSON array, one at a time ---- */

struct elements { /* set source; the rest zero */
    struct source *source;
    int64_t number;  /* of the last element; from 1 */
    int at;          /* where in the array */
    struct buf text; /* the element: JSON on one line, if it is JSON */
};
/* The next element of the array that the open entry is: 1 and e->text, not parsed yet; 0 at the end
 * of the entry; -1: *why the entry is no array, about where element number is. */
int elements_next(struct elements *e, const char **why);
void elements_release(struct elements *e);

/* ---- import.c: what people have becomes canonical rows ---- */

/* Recognises the JSON object in row (parsed by row_parse_json) by its fields, or takes it for the
 * form of this name (import_forms), and appends one or more canonical rows to out, a line each.  An
 * object that is canonical already is copied byte for byte.  Returns NULL, or why it cannot be
 * done. */
const char *import_row(const struct row *row, const char *form, struct buf *out);
extern const char import_differ[]; /* of a pair that is well made and of no use */
extern const char import_forms[];  /* "rows|hh|..." */
/* Why a canonical row has nothing to learn from (an empty prompt, response, ...), or NULL. */
const char *import_empty(const struct row *row);

/* ---- dialogue.c: several turns in one value ---- */

/* Cuts a dialogue, a string of "\n\nHuman:" and "\n\nAssistant:" turns or a list of {role,
 * content}, before its last turn, which must be the assistant's: appends the turns before as a list
 * of {role, content} (JSON) to prompt, and the last one's text to reply.  White space around the
 * turns of a string is not part of them.  Returns NULL, or why not. */
const char *dialogue_cut(struct json v, struct buf *prompt, struct buf *reply);
extern const char dialogue_unanswered[]; /* why not: the last turn is not the assistant's */
/* The same for a prompt that ends in "\n\nAssistant:", which is left off. */
const char *dialogue_prompt(struct json v, struct buf *prompt);
/* Whether v is a string that begins with a turn of Human or Assistant. */
int dialogue_is_hh(struct json v);

/* ---- tags.c ---- */

/* The tag of tags.json that the given share of the training rows had at most, ordered by mean
 * reward: 0.95 asks for a high reward, 0.05 for a low one.  NULL when there is no file or no tag;
 * the caller frees. */
char *tags_pick(const char *path, double share);

/* ---- part.c: rows that are costly to make ---- */

/* Output that a killed tool goes on with: lines gather in PATH.part and become PATH in
 * part_close().  key says all that decides the lines; when it is the one of a part file that is
 * there, *lines of them are done and are kept; key NULL always begins anew.  Standard output and
 * devices are written straight, from the first line. */
struct part;
struct part *part_open(const char *path, const char *key, int64_t *lines);
void part_write(struct part *p, const void *bytes, size_t n); /* whole lines */
void part_close(struct part *p);

/* ---- tok*.c: tokenizers ---- */

/* A byte-pair tokenizer in Hugging Face's tokenizer.json.  Ids and text are those of the Hugging
 * Face `tokenizers` package.  Byte-level BPE with a pattern (GPT-2's, or one in the file) is read
 * and trained; byte-fallback BPE ("Metaspace": Llama, Mistral) is read. */
struct tok;
struct tok *tok_parse(const char *json, size_t len, const char *who); /* dies (2) on the unknown */
/* A tokenizer.json; a file of ranks of tiktoken's whose vocabulary is known; a tekken.json; a
 * SentencePiece model (BPE); GPT-2's vocab.json (or encoder.json) with its merges beside it; or a
 * folder, set, checkpoint or run that has one.  A tokenizer_config.json beside it says what bos and
 * eos are. */
struct tok *tok_open(const char *path);
void tok_free(struct tok *t);
const struct buf *tok_json(const struct tok *t);   /* its tokenizer.json */
const struct buf *tok_config(const struct tok *t); /* its tokenizer_config.json; empty: none */
const char *tok_hash(const struct tok *t);         /* XXH3-64 of them, 16 hex digits */
int64_t tok_size(const struct tok *t);             /* ids are below this */
struct ids { /* a zeroed struct is empty; the caller owns id until ids_release() */
    int32_t *id;
    int64_t n, cap;
};
void ids_add(struct ids *v, int32_t id);
void ids_release(struct ids *v);
/* Appends the ids of text, without bos and eos; special tokens in the text are recognised only
 * where `special`.  Bytes that are not UTF-8 count as U+FFFD.  A tokenizer remembers words, so it
 * serves one thread at a time; tok_twin() makes another one for another thread, which shares what
 * the first has read and is freed before it. */
void tok_encode(struct tok *t, const char *text, size_t len, int special, struct ids *out);
struct tok *tok_twin(const struct tok *t);
/* The same for a part of a longer text: its beginning; what follows an added token; what follows
 * other text, so that nothing is put before it. */
enum tok_place { TOK_FIRST, TOK_NEXT, TOK_WITHIN };
void tok_encode_at(struct tok *t, const char *text, size_t len, int special, enum tok_place place,
                   struct ids *out);
/* Appends the text of n ids; what is not UTF-8 becomes U+FFFD, ids that are no tokens are skipped.
 */
void tok_decode(struct tok *t, const int32_t *id, int64_t n, int skip_special, struct buf *out);
int64_t tok_id(const struct tok *t, const char *token); /* -1 when there is no such token */
/* The ids that begin and end a text, -1 for none: what the file's post_processor puts there;
 * without one, the first that exists of <|bos|> <s> <bos> <|begin_of_text|> and DeepSeek's, and of
 * <|eos|>
 * </s> <eos> <|end_of_text|> <|endoftext|> and DeepSeek's. */
int64_t tok_bos(const struct tok *t);
int64_t tok_eos(const struct tok *t);
/* bos, or the token that tokenizer_config.json calls so though no text begins with it. */
int64_t tok_bos_token(const struct tok *t);
int tok_is_added(const struct tok *t, int64_t id); /* found in a text before anything else */

/* Trains a byte-level BPE (GPT-2's pattern) on pieces of text and returns tokenizer.json text: 64
 * reserved special tokens first (<|bos|>, <|eos|>, <|pad|>, <|user|>, <|assistant|>, <|system|>,
 * <|end|>, <|rw_0|>..<|rw_9|>, then <|reserved_N|>), 256 bytes, then merges.  Deterministic: ties
 * go to the pair whose text sorts first. */
struct tok_trainer;
/* memory: bytes for words and their counts; when it is full, the rarest words so far are forgotten.
 */
struct tok_trainer *tok_trainer_new(int64_t memory);
void tok_trainer_add(struct tok_trainer *t, const char *text, size_t len);
/* Returns how many occurrences of words were forgotten, and frees t. */
int64_t tok_trainer_finish(struct tok_trainer *t, int64_t vocab, struct buf *json);

/* ---- chat.c: how a row becomes tokens ---- */

/* Templates by name: "plain" (bos prompt response eos, nothing between), "chat" (<|bos|>, then
 * <|user|> ... <|end|> turns of the reserved tokens), and those of models, whose ids are those of
 * transformers' apply_chat_template(): chat_list.c.  The last assistant turn is the target; with
 * text rows everything after bos is. */
struct chat;
const struct chat *chat_find(const char *name); /* dies (2) listing the names */
/* The one that the tokenizer's chat_template is, or dies (2). */
const struct chat *chat_recognise(const struct tok *t);
const char *chat_name(const struct chat *c);
/* Appends the row's tokens and their target flags (1: learnt), a byte a token.  tag goes before the
 * answer, masked, and is the only text whose special tokens count.  The answer is r->response; for
 * a pair the caller sets response and response_len to one side, then the other.  Returns NULL, or
 * why the row cannot be rendered (a static sentence); then nothing is appended. */
const char *chat_render(const struct chat *c, struct tok *t, const struct row *r, struct ids *token,
                        struct buf *target);
/* A rendered row.  A zeroed struct is empty; rendered_release() frees it. */
struct rendered {
    struct ids token;     /* (n) */
    struct buf target;    /* (n) 1: learnt */
    int64_t loose, tight; /* what may go from the front: tokens [loose, tight) are the prompt, or of
                           * a row without one the text; not bos, tag, or what begins the answer */
};
const char *chat_render_row(const struct chat *c, struct tok *t, const struct row *r,
                            struct rendered *out); /* replaces what was there */
/* The same of a document that is tokens already. */
const char *rendered_of_tokens(const struct tok *t, const int32_t *token, const uint8_t *target,
                               int64_t n, struct rendered *out);
void rendered_release(struct rendered *d);
int rendered_equal(const struct rendered *a, const struct rendered *b); /* the same tokens */
/* overlong.c.  Makes one document, or the two of a pair, fit into seq tokens: "left" takes tokens
 * from the front, the same number of both, and never of an answer; any other policy but "drop" from
 * the end, of the longer document first.  Returns NULL, or why nothing sensible is left. */
const char *overlong_cut(struct rendered *d, int64_t docs, int64_t seq, const char *policy);
int64_t rendered_learnt(const struct rendered *d, int64_t from, int64_t n); /* tokens that are */
/* control.c.  Whether what the row's author wrote (not its tag) spells a special token of t. */
int row_spells_control(const struct row *r, const struct tok *t);
/* Whether it spells the words that tell its own tag from other text, where the tag is one in words:
 * "<rm_score>". */
int row_spells_tag(const struct row *r);
/* row_docs.c.  A row's document, or a pair's chosen and rejected one, with what goes along.  A
 * zeroed struct is empty; row_docs_release() frees it. */
enum { ROW_PAIR = 1, ROW_REWARD = 2, ROW_MARGIN = 4, ROW_REF_LOGP = 8 };
struct row_docs {
    int64_t n; /* 1 or 2 */
    struct rendered doc[2];
    unsigned has;                                  /* ROW_PAIR | ... */
    double weight, margin, reward[2], ref_logp[2]; /* 0 where it has none; reward NaN */
    const char *tag;                               /* of the row, or NULL */
    int all_learnt;                                /* but for the first token */
};
/* control: what becomes of control tokens that the row's own text spells: error, escape, allow.
 * Returns NULL, or why the row is bad. */
const char *row_docs_render(struct row_docs *d, const struct chat *c, struct tok *t,
                            const struct row *row, const char *control);
const char *row_docs_fault(const struct row_docs *d); /* what is wrong with its numbers, or NULL */
void row_docs_release(struct row_docs *d);
/* Appends it, which begins at a multiple of 8; the loaded one is good while the bytes are, and not
 * released. */
void row_docs_save(const struct row_docs *d, struct buf *out);
void row_docs_load(struct row_docs *d, char *saved);
/* The same up to where the response begins: what moe-sample continues.  tag may be NULL. */
const char *chat_render_prompt(const struct chat *c, struct tok *t, const struct row *r,
                               const char *tag, struct ids *token);
int64_t chat_stop(const struct chat *c, struct tok *t); /* the id that ends a response */

#endif
