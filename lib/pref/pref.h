/* pref.h -- judging rows by their rewards: groups of answers to one prompt, selection (FA), rewards
 * by lexicon or by an outside command, and whether a difference between two arms is more than
 * chance.
 *
 * Selection needs the whole input, and the input may be far larger than memory: the bytes of the
 * rows wait in a spool on disk, and 24 bytes a row in memory (struct pref_item) decide. */
#ifndef PREF_H
#define PREF_H

#include "base/base.h"
#include "text/text.h"

/* ---- group.c: which rows belong together, what they are worth, how long they are ---- */

/* Rows of one group share a prompt: the hash of row_group(); of the text where there is no prompt.
 * Returns NULL, or why the row has no group (a static sentence, as in the next function). */
const char *pref_group(const struct row *r, struct buf *scratch, uint64_t *group);
/* The finite number in the row's member `field`. */
const char *pref_reward(const struct row *r, const char *field, double *reward);
/* What a scorer reads and a length counts: the response, else the text, else NULL. */
const char *pref_answer(const struct row *r, size_t *len);
int64_t pref_length(const struct row *r); /* of the answer, in characters; -1 without one */

/* A share of the groups, "1-9/10" or "10/10": a keyed hash deals groups into `of` equal parts. */
struct pref_part {
    int64_t first, last, of;
};
int pref_part_parse(struct pref_part *p, const char *s); /* 0 or -1 */
int pref_part_has(const struct pref_part *p, uint64_t key, uint64_t group);

/* ---- select.c: which rows stay ---- */

enum pref_verdict { PREF_KEPT, PREF_LOW, PREF_NOT_TOP_K, PREF_NOT_TOP_FRAC, PREF_VERDICTS };
extern const char *const pref_verdict_name[PREF_VERDICTS]; /* the reason in the accounts */

struct pref_item {
    uint64_t group;
    double score; /* greater is better; NaN where the method reads none */
    int64_t at;   /* which row of the input, from 0 */
};
struct pref_set {
    struct pref_item *item; /* (n), in no lasting order: the functions below sort it */
    uint8_t *verdict;       /* (n), by input order */
    int64_t n, cap;
};
void pref_set_add(struct pref_set *s, uint64_t group, double score);
void pref_set_release(struct pref_set *s);
/* Each judges all rows and marks those it does not choose, unless they are marked already: calling
 * several gives the intersection.  Ties go to the row that came first. */
void pref_select_above(struct pref_set *s, double threshold, int inclusive);
void pref_select_top_k(struct pref_set *s, int64_t k);      /* in each group */
void pref_select_top_frac(struct pref_set *s, double frac); /* ceil(frac * n) of all */
int64_t pref_set_kept(const struct pref_set *s);
/* The number of groups, and of those with a kept row. */
int64_t pref_set_groups(struct pref_set *s, int64_t *kept);
/* Means of the scores by group, in ascending order of group.  The caller frees *group and *mean. */
int64_t pref_set_means(struct pref_set *s, uint64_t **group, double **mean);

/* ---- spool.c: the input, waiting on disk until it is judged ---- */

struct spool; /* an unlinked file in $TMPDIR (default /var/tmp, which is not in memory) */
struct spool_row {
    char *line; /* NUL-terminated, writable, good until the next call */
    size_t len;
    const char *file; /* good as long as the spool */
    int64_t number, length;
    double reward;
};
struct spool *spool_new(void);
void spool_add(struct spool *s, const struct row *r, double reward, int64_t length);
int64_t spool_count(const struct spool *s);
void spool_rewind(struct spool *s);
int spool_next(struct spool *s, struct spool_row *out); /* 1, or 0 at the end */
/* "FILE:LINE" of the i-th row, for messages; it reads the spool from the start.  Caller frees. */
char *spool_where(struct spool *s, int64_t i);
void spool_free(struct spool *s);

/* ---- scorer.c: what gives rows their rewards ---- */

extern const char scorer_stop[];
struct scorer {
    void *(*begin)(const char *arg);
    /* NULL; why the row is bad and was not taken; or scorer_stop: no use in going on, end() says why. */
    const char *(*feed)(void *scorer, const struct row *r);
    double *(*end)(void *scorer, struct spool *rows); /* one a row taken; the caller frees */
    int pairs; /* takes pairs too, and gives two numbers for each: chosen, rejected */
};
extern const struct scorer scorer_lexicon, scorer_command;

/* ---- lexicon.c: a reward that anyone can check by hand ---- */

struct lexicon;
/* Lines `word TAB number`; further columns are ignored, as are blank lines and comments (# ...).  A
 * word that stands twice has its last value.  Dies on anything else. */
struct lexicon *lexicon_open(const char *path);
int64_t lexicon_size(const struct lexicon *x); /* distinct words */
/* The sum of the valences of the words, over the square root of their number; 0 without words.
 * Words are runs of letters and apostrophes, in lower case. */
double lexicon_score(const struct lexicon *x, const char *text, size_t len);
void lexicon_free(struct lexicon *x);

/* ---- coproc.c: a reward from an outside command ---- */

struct coproc; /* sh -c COMMAND: one row a line in, one number a line out, in order */
struct coproc *coproc_open(const char *command);
/* Hands a row to the command; its answers are read meanwhile by a thread, so neither side can block
 * the other for good.  Returns -1 when no answer to this row will come: time to finish. */
int coproc_feed(struct coproc *c, const char *line, size_t len);
/* Ends the command's input, waits for it and returns its answers, one for each row of the spool, or
 * dies with the command and the row.  The caller frees the answers; c is gone. */
double *coproc_finish(struct coproc *c, struct spool *rows);

/* ---- stat.c: lists, moments, quantiles, and the bootstrap ---- */

struct numbers { /* a growing list; a zeroed struct is empty, the caller frees v */
    double *v;
    int64_t n, cap;
};
void numbers_add(struct numbers *a, double x);

struct moments { /* of pairs (x, y), in one pass (Welford) */
    int64_t n;
    double mean_x, mean_y, xx, yy, xy;
};
void moments_add(struct moments *m, double x, double y);
double moments_sd(const struct moments *m);          /* of x, ddof 1; NaN below two */
double moments_correlation(const struct moments *m); /* NaN where either does not vary */
void sort_doubles(double *v, int64_t n);
/* Linear between the two nearest ranks, as numpy.quantile does; NaN when n is 0. */
double sorted_quantile(const double *v, int64_t n, double q);

struct interval {
    double mean, low, high; /* NaN when there is nothing to draw from */
};
/* The mean of v and the 95 % percentile interval of the mean under resampling.  Draw j of resample
 * i is a pure function of (key, i, j): threads do not change it. */
struct interval bootstrap_mean(const double *v, int64_t n, int64_t resamples, uint64_t key,
                               int64_t threads);
/* The differences mean_b - mean_a of the groups both have, as they come from
 * pref_set_means().  Returns how many; out has room for min(n_a, n_b). */
int64_t paired_differences(const uint64_t *group_a, const double *mean_a, int64_t n_a,
                           const uint64_t *group_b, const double *mean_b, int64_t n_b, double *out);

#endif
