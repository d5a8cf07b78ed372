/* tok_steps.h -- what the readers of a tokenizer.json's steps share. */
#ifndef TEXT_TOK_STEPS_H
#define TEXT_TOK_STEPS_H

#include "text/tok.h"

struct step_reader {
    struct tok *t;
    const char *who; /* for messages */
};
/* A kind of step by its name in the file; the tables end with NULL. */
struct step_kind {
    const char *name;
    void (*read)(struct step_reader *r, struct json v);
};
extern const struct step_kind step_normalizers[], step_pre_tokenizers[]; /* tok_steps_in.c */
extern const struct step_kind step_decoders[], step_post_processors[];   /* tok_steps_out.c */

/* Members of a step; die (2) when they are missing or not supported. */
int step_bool(struct step_reader *r, struct json v, const char *key, int otherwise);
struct buf step_string(struct step_reader *r, struct json v, const char *key); /* to be released */
struct buf step_char(struct step_reader *r, struct json v, const char *key);
int64_t step_count(struct step_reader *r, struct json v, const char *key); /* at least 0 */
struct buf step_pattern(struct step_reader *r, struct json v, int *is_regex);
struct buf step_literal(struct step_reader *r, struct json v); /* a pattern that is no regex */
enum prefix step_scheme(struct step_reader *r, struct json v);
/* The next free step of t->norm, t->split or t->decode. */
#define STEP_NEW(r, part) step_new(r, (r)->t->part, sizeof *(r)->t->part, &(r)->t->part##s, #part)
void *step_new(struct step_reader *r, void *steps, size_t size, int64_t *n, const char *part);

#endif
