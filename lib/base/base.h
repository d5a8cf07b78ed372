/* base.h -- what every tool and layer stands on: dying, memory, options, JSON, hashes,
 * counter-based random numbers, threads, progress and published output.
 *
 * Batch tools may die: a function here either does its work or ends the process with a message that
 * says who, what and which.  Functions that meet *data* (a row, a header) return -1 and a reason
 * instead, so that the tool can count the bad ones. */
#ifndef BASE_H
#define BASE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ARRAY_LEN(a) ((int64_t)(sizeof(a) / sizeof((a)[0])))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define PRINTF_LIKE(f, v) __attribute__((format(printf, f, v)))

/* ---- die.c: the exit statuses, the same in every tool (moeutils.7) ---- */

enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_MISUSED = 2,
    EXIT_BAD_DATA = 3, /* too much bad data; nothing was published */
    EXIT_DAMAGED = 4,  /* an input fails its checksum or is cut off */
    EXIT_AGAIN = 75,   /* state is saved: run the same command again */
};

extern const char *tool_name; /* "pref-cat"; set by opt_parse() */

/* Each prints "tool: message\n" on stderr; a final colon in fmt appends strerror(errno).  They exit
 * with 1, 2, 4, or the given status.  Temporary output is removed on the way out. */
_Noreturn void die(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void die_misused(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void die_damaged(const char *fmt, ...) PRINTF_LIKE(1, 2);
_Noreturn void die_with(int status, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What a dying process does last, given its exit status: one of many ends the others.  NULL:
 * nothing. */
void die_then(void (*fn)(int status));
void warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* As warn(), but silent under --quiet: counts and summaries. */
void say(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* ---- alloc.c: memory that is there or the process is not ---- */

void *xmalloc(size_t n);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
void *xmemdup(const void *p, size_t n);

/* A growable run of bytes; data is NUL-terminated whenever it is not NULL.  A zeroed struct is an
 * empty buffer.  The caller owns data until buf_release(). */
struct buf {
    char *data;
    size_t len, cap;
};
void buf_reserve(struct buf *b, size_t extra);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Appends s and blanks, in a column of so many characters; a negative width puts the blanks behind. */
void buf_cell(struct buf *b, const char *s, int64_t width);
int64_t utf8_count(const char *s, size_t n); /* the characters of valid UTF-8 */
void buf_reset(struct buf *b); /* length 0, memory kept */
void buf_release(struct buf *b);

/* ---- dtype.c: element types, under their safetensors names ---- */

enum dtype { DT_BOOL, DT_U8, DT_I8, DT_I16, DT_U16, DT_F16, DT_BF16, DT_I32, DT_U32, DT_F32,
             DT_I64, DT_U64, DT_F64, DT_F8_E4M3, DT_F8_E5M2, DT_COUNT };
int64_t dtype_size(enum dtype t); /* bytes */
const char *dtype_name(enum dtype t);
int dtype_parse(const char *s, size_t len); /* an enum dtype, or -1 */
/* Converts n elements between F32, F64, BF16 and F16, rounding to nearest even.  Dies on others. */
void dtype_convert(void *dst, enum dtype to, const void *src, enum dtype from, int64_t n);

/* ---- opt.c: options as a table beside their variables ---- */

enum opt_type { OPT_T_FLAG, OPT_T_INT, OPT_T_SEED, OPT_T_REAL, OPT_T_STR, OPT_T_CHOICE,
                OPT_T_LIST };
struct opt {
    int letter;        /* 0: none */
    const char *name;  /* "min-reward" */
    enum opt_type type;
    void *value;
    const char *arg;   /* what --help calls the argument; for a choice "a|b|c" */
    const char *help;
};
struct strv { /* values of an option given several times */
    const char **v;
    int64_t n;
};
/* OPT_INT counts something and is 0 or more, a seed is any integer. */
#define OPT_FLAG(l, name, var, help) {l, name, OPT_T_FLAG, (int *){var}, NULL, help}
#define OPT_INT(l, name, var, arg, help) {l, name, OPT_T_INT, (int64_t *){var}, arg, help}
#define OPT_SEED(var, help) {'s', "seed", OPT_T_SEED, (int64_t *){var}, "n", help}
#define OPT_REAL(l, name, var, arg, help) {l, name, OPT_T_REAL, (double *){var}, arg, help}
#define OPT_STR(l, name, var, arg, help) {l, name, OPT_T_STR, (const char **){var}, arg, help}
#define OPT_CHOICE(l, name, var, arg, help) {l, name, OPT_T_CHOICE, (const char **){var}, arg, help}
#define OPT_LIST(l, name, var, arg, help) {l, name, OPT_T_LIST, (struct strv *){var}, arg, help}
#define OPT_END {0, NULL, 0, NULL, NULL, NULL}

#define MOEUTILS_VERSION "0.1.0"
extern int opt_quiet, opt_verbose; /* -q, -v */

/* Parses options (getopt_long; "64k", "2m", "1g" are integers; a real whose default is NAN has no
 * value) and returns the index of the first operand in argv, which is permuted so that operands come
 * last.  Order of precedence: the file of --config (or $MOEUTILS_CONFIG), lines `long-name = value`;
 * then flags.  --help prints synopsis, about and the table with the current values as defaults; -h,
 * --version, --print-config, -q, -v and --lock FILE are in every tool.  Exits 2 on an unknown option
 * or a malformed value. */
int opt_parse(int argc, char **argv, const struct opt *table, const char *synopsis,
              const char *about);
/* Whether a flag, the config file or the environment set this option.  By long name. */
int opt_given(const char *name);
/* The command line after parsing as one string, for provenance: long options in table order with
 * non-default values, then operands.  Caller frees. */
char *opt_provenance(const struct opt *table);
int64_t opt_threads(void); /* $MOEUTILS_THREADS, else the cores this process may use */

/* ---- json.c, json_parse.cc (simdjson): reading; writing is buf_printf and json_quote ---- */

enum json_type { JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
struct json_doc; /* a parser and the memory of the last document it parsed */
struct json {    /* a value in a document; good until the document is parsed into again */
    const void *doc;
    size_t at;
};
struct json_doc *json_doc_new(void);
void json_doc_free(struct json_doc *d);
/* Parses one strict RFC 8259 document (UTF-8 checked).  Returns 0, or -1 with *why set to a static
 * sentence.  text need not be NUL-terminated or padded; it is copied. */
int json_parse(struct json_doc *d, const char *text, size_t len, struct json *root,
               const char **why);
enum json_type json_type(struct json v);
int json_get(struct json object, const char *key, struct json *out); /* 1 found, 0 not */
/* NUL-terminated, but may hold NULs: use *len.  NULL when v is not a string. */
const char *json_string(struct json v, size_t *len);
int json_int(struct json v, int64_t *out);  /* 0, or -1 when v is no integer of 64 bits */
int json_real(struct json v, double *out);  /* any number; 0 or -1 */
int json_bool(struct json v, int *out);
int64_t json_count(struct json v); /* elements of an array, members of an object */
struct json_iter {
    struct json value;
    const char *key; /* members only */
    size_t key_len;
    uint64_t state[4];
};
/* for (json_iter_init(&i, v); json_iter_next(&i);) */
void json_iter_init(struct json_iter *i, struct json container);
int json_iter_next(struct json_iter *i);
/* The first key that stands twice in one object anywhere below v, or NULL. */
const char *json_duplicate_key(struct json v);
/* Appends s as a quoted JSON string. */
void json_quote(struct buf *b, const char *s, size_t len);
/* Appends a double in the shortest form that reads back to the same bits; null when not finite. */
void json_number(struct buf *b, double x);
/* Serialises v compactly, keys in their order. */
void json_write(struct buf *b, struct json v);
/* Copies the object in text (one valid object, as json_parse accepts) to out with member key set to
 * the JSON text value, or dropped when value is NULL.  The bytes of all other members are kept. */
void json_edit(struct buf *out, const char *text, size_t len, const char *key, const char *value);

/* ---- hash.c ---- */

uint64_t hash_xxh3(const void *p, size_t n);
void hash_hex(char out[17], uint64_t h); /* 16 lower-case digits */
struct hash_stream; /* XXH3-64 over pieces */
struct hash_stream *hash_stream_new(void);
void hash_stream_add(struct hash_stream *h, const void *p, size_t n);
uint64_t hash_stream_value(const struct hash_stream *h);
void hash_stream_free(struct hash_stream *h);
void hash_sha256(char out[65], const void *p, size_t n);
int hash_sha256_file(char out[65], const char *path); /* 0 or -1 with errno */

/* ---- rng.c: Philox4x32-10 (Salmon et al., SC 2011).  A number is a pure function of its key and
 * counter, so nothing is ever saved and no rank's draw depends on another's. ---- */

uint64_t rng_key(uint64_t seed, const char *label); /* a key from a seed and a name */
void rng_bits(uint32_t out[4], uint64_t key, uint64_t counter_hi, uint64_t counter_lo);
/* x as bf16, up or down so that its mean is x: the low 16 of `bits` decide.  inf and nan stay. */
static inline uint16_t rng_round_bf16(float x, uint32_t bits)
{
    uint32_t y;
    memcpy(&y, &x, sizeof y);
    if ((y & 0x7f800000) != 0x7f800000)
        y += bits & 0xffff; /* a carry out of what is cut off raises the magnitude */
    else if (y & 0x7fffff)
        y |= 0x400000; /* a nan whose mark would be cut off */
    return (uint16_t)(y >> 16);
}
double rng_uniform(uint64_t key, uint64_t hi, uint64_t lo); /* in (0, 1), 53 bits */
double rng_normal(uint64_t key, uint64_t hi, uint64_t lo);  /* Box-Muller */
/* The i-th element of a keyed permutation of 0..n-1 (Feistel network with cycle walking). */
int64_t rng_permute(uint64_t key, int64_t n, int64_t i);

/* ---- par.c: threads ---- */

struct par; /* a pool: the caller and threads - 1 workers */
void par_check(int64_t threads); /* dies (2) where they are more than anybody can mean */
struct par *par_new(int64_t threads);
void par_free(struct par *p);
int64_t par_threads(const struct par *p);
/* Calls fn(arg, i) once for each i in 0..n-1, on the pool's threads in no order; returns when all
 * are done.  p NULL is the calling thread alone.  Not reentrant: fn must not call par_for on the
 * same pool. */
void par_for(struct par *p, int64_t n, void (*fn)(void *arg, int64_t i), void *arg);

/* ---- io.c: files, and output that is published whole or not at all ---- */

struct buf read_file(const char *path); /* whole file, dies if it cannot; "-" is stdin */
int path_exists(const char *path);
int path_is_dir(const char *path);
char *path_join(const char *dir, const char *name);
void make_dirs(const char *path); /* mkdir -p */
void remove_tree(const char *path);
void fsync_dir(const char *path);
int write_all(int fd, const void *p, size_t n); /* 0 or -1 with errno; retries short writes */

/* An output stream.  path NULL or "-" is stdout; what exists and is no regular file (a pipe, a
 * device) is written straight; otherwise bytes go to .NAME.tmp beside path, under a lock, and
 * appear at path by fsync + rename + fsync of the folder in out_close().  A process that dies
 * leaves the old file. */
struct out;
struct out *out_open(const char *path);
void out_write(struct out *o, const void *p, size_t n); /* a full disk is fatal */
void out_printf(struct out *o, const char *fmt, ...) PRINTF_LIKE(2, 3);
void out_flush(struct out *o);
/* Writes over n bytes at byte `at` of what was written; not of a pipe. */
void out_rewrite(struct out *o, int64_t at, const void *p, size_t n);
int out_is_tty(const struct out *o);
int64_t out_bytes(const struct out *o); /* written so far */
void out_close(struct out *o); /* publishes */

/* A folder that appears whole: work inside the returned path (PARENT/.NAME.tmp, emptied first and
 * locked), then dir_publish() fsyncs files and folder and renames it to path, replacing a folder
 * that is there.  Caller frees the string. */
char *dir_begin(const char *path);
void dir_publish(const char *tmp, const char *path);
/* Dies (2) when path is a folder with anything in it that is not a part of a `what`: to publish
 * there would remove what somebody keeps. */
void dir_spare(const char *path, const char *what, int (*part)(const char *name));
void write_file(const char *path, const void *p, size_t n); /* through struct out */
/* An exclusive lock held until exit; exits 75 when another process holds it. */
void lock_take(const char *path);

/* ---- progress.c ---- */

double clock_s(void); /* monotonic seconds */
struct progress {
    const char *what, *unit;
    double total, done, start_s, shown_s; /* total 0: unknown */
    double before; /* of done, from an earlier process: no part of the rate */
};
void progress_start(struct progress *p, const char *what, const char *unit, double total);
/* So much was done before: for work that goes on.  After progress_start(). */
void progress_resume(struct progress *p, double done);
void progress_add(struct progress *p, double n); /* draws at most 5 times a second, on a terminal */
void progress_end(struct progress *p);           /* clears the line */

#endif
