/* opt_table.h -- between opt.c, which decides who sets an option, and opt_value.c, which knows what
 * a value looks like. */
#ifndef OPT_TABLE_H
#define OPT_TABLE_H

#include "base.h"

enum opt_source { OPT_FROM_PROGRAM, OPT_FROM_CONFIG, OPT_FROM_ENVIRONMENT, OPT_FROM_FLAG };

/* Sets an option from text, or dies (2) with who in front.  A flag's text may be NULL.  fresh: a
 * list starts anew. */
void opt_value_set(const struct opt *o, const char *who, const char *text, int fresh);
/* Frees a value that opt_value_set() made: what a later source or a repeated flag replaces. */
void opt_value_free(const struct opt *o);
/* The value as a person would type it, "" for none; the caller frees it.  Of a list, all of it. */
char *opt_value_text(const struct opt *o);
/* Appends " --name value" as a shell would read it, once for each element of a list. */
void opt_flags_text(struct buf *b, const struct opt *o);
void opt_shell_quote(struct buf *b, const char *s);
void opt_help(struct buf *b, const struct opt *table, const struct opt *common,
              const char *synopsis, const char *about);
/* A config file that sets every option of the table to its value. */
void opt_config(struct buf *b, const struct opt *table);
/* The name in the tables that word could be a slip of the finger for, or NULL. */
const char *opt_near(const char *word, size_t len, const struct opt *const tables[], int count);

#endif
