/* pref.h -- judging rows by their rewards: groups of answers to one prompt, selection (FA), weights
 * (RWR), tags (CA), pairs, duplicates, rewards by lexicon or by an outside command, and whether a
 * difference between two arms is more than chance.
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
/* Of the answer; of a pair, that of the shorter and of the longer side; 0 without either. */
void pref_lengths(const struct row *r, int64_t *least, int64_t *most);

/* A share of the groups, "1-9/10" or "10/10": a keyed hash deals groups into `of` equal parts. */
struct pref_part {
    int64_t first, last, of;
};
int pref_part_parse(struct pref_part *p, const char *s); /* 0 or -1 */
int pref_part_has(const struct pref_part *p, uint64_t key, uint64_t group);

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
/* Before the first row: spool_at() will be wanted, 8 bytes a row. */
void spool_index(struct spool *s);
void spool_add(struct spool *s, const struct row *r, double reward, int64_t length);
int64_t spool_count(const struct spool *s);
void spool_rewind(struct spool *s);
int spool_next(struct spool *s, struct spool_row *out); /* 1, or 0 at the end */
/* The i-th row, good until the next spool_at(); spool_next() is not disturbed.  After a rewind. */
void spool_at(struct spool *s, int64_t i, struct spool_row *out);
/* "FILE:LINE" of the i-th row, for messages; it reads the spool from the start.  Caller frees. */
char *spool_where(struct spool *s, int64_t i);
void spool_free(struct spool *s);

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

/* ---- agree.c: how often a judge agrees with the choice in pairs ---- */

struct pref_agree { /* a zeroed struct is empty; longer and agree count a tie as half a pair */
    int64_t pairs, scored; /* all, and those with both rewards */
    double longer, agree;  /* the chosen answer is longer; has the greater reward */
};
/* Of a pair, with the names of the fields that hold its rewards. */
void pref_agree_add(struct pref_agree *t, const struct row *r, const char *chosen,
                    const char *rejected);
/* Wilson's 95 % interval of a share of n trials, within 0 and 1; NaN when n is 0. */
struct interval share_interval(double share, int64_t n);

/* ---- select.c: which rows stay ---- */

enum pref_verdict { PREF_KEPT, PREF_LOW, PREF_NOT_TOP_K, PREF_NOT_TOP_FRAC, PREF_NOT_TOP_SHARE,
                    PREF_BELOW_QUANTILE, PREF_SMALL_GROUP, PREF_FLAT_GROUP, PREF_DUPLICATE,
                    PREF_NEAR_DUPLICATE, PREF_ALONE, PREF_TIED,
                    PREF_NARROW, PREF_SAME_TEXT, PREF_UNPAIRED, PREF_VERDICTS };
extern const char *const pref_verdict_name[PREF_VERDICTS]; /* the reason in the accounts */

struct pref_item {
    uint64_t group;
    double score; /* greater is better; NaN where there is none */
    int64_t at;   /* which row of the input, from 0 */
};
struct pref_set {
    struct pref_item *item; /* (n), in no lasting order: the functions below sort it */
    uint8_t *verdict;       /* (rows), by input order */
    int64_t n, rows, cap;   /* n: those still to be judged, all of them unless pref_set_settle() */
};
void pref_set_add(struct pref_set *s, uint64_t group, double score);
void pref_set_release(struct pref_set *s);
/* Takes the rows that are marked out of the set: whoever judges next does not see them. */
void pref_set_settle(struct pref_set *s);
/* The orders: input; group, then input; group, then the best first; the best first. */
void pref_set_sort_place(struct pref_set *s);
void pref_set_sort_group(struct pref_set *s);
void pref_set_sort_group_score(struct pref_set *s);
void pref_set_sort_score(struct pref_set *s);
/* Where the group ends that begins at item i. */
int64_t pref_set_group_end(const struct pref_set *s, int64_t i);
/* Each judges all rows and marks those it does not choose, unless they are marked already: calling
 * several gives the intersection.  Ties go to the row that came first. */
void pref_select_above(struct pref_set *s, double threshold, int inclusive);
/* Above the q-quantile of the scores, which it returns. */
double pref_select_quantile(struct pref_set *s, double q, int inclusive);
void pref_select_top_k(struct pref_set *s, int64_t k);      /* in each group */
void pref_select_top_frac(struct pref_set *s, double frac);  /* ceil(frac * n) of all */
void pref_select_top_share(struct pref_set *s, double frac); /* of each group */
void pref_select_groups(struct pref_set *s, int64_t least);  /* those of at least so many rows */
/* Groups whose best score is at least `spread` above their worst. */
void pref_select_spread(struct pref_set *s, double spread);
int64_t pref_set_kept(const struct pref_set *s);
/* The number of groups, and of those with a kept row. */
int64_t pref_set_groups(struct pref_set *s, int64_t *kept);
/* Means of the scores by group, in ascending order of group, without the scores that are NaN and
 * the groups that have no other.  The caller frees *group and *mean. */
int64_t pref_set_means(struct pref_set *s, uint64_t **group, double **mean);
/* As sorted_quantile(), of the n greatest scores after pref_set_sort_score(), which puts NaN
 * last. */
double pref_set_quantile(const struct pref_set *s, int64_t n, double q);

/* ---- norm.c: rewards on a common scale ---- */

enum pref_norm_kind { PREF_NORM_NONE, PREF_NORM_GLOBAL, PREF_NORM_PROMPT, PREF_NORM_KINDS };
extern const char *const pref_norm_name[PREF_NORM_KINDS];
struct pref_norm {
    enum pref_norm_kind kind;
    double mean, sd; /* of all scores, sd with ddof 1 (0 for one row), of n rows */
    int64_t n;
};
void pref_norm_fit(struct pref_norm *n, const struct pref_set *s);
/* score := (score - mean) / sd, with the constants in n or those of each prompt.  Where sd is at
 * most 1e-8 there is no signal, and the scores become 0.  Returns the number of prompts (global: 0
 * or 1) to which that happened. */
int64_t pref_norm_apply(const struct pref_norm *n, struct pref_set *s);

/* ---- weigh.c: reward-weighted regression ---- */

enum pref_baseline { PREF_BASE_PROMPT, PREF_BASE_GLOBAL, PREF_BASE_NONE, PREF_BASES,
                     PREF_BASE_VALUE = PREF_BASES };
enum pref_weight_norm { PREF_MEAN1, PREF_SOFTMAX_PROMPT, PREF_RAW, PREF_WEIGHT_NORMS };
extern const char *const pref_baseline_name[PREF_BASES];
extern const char *const pref_weight_norm_name[PREF_WEIGHT_NORMS];
struct pref_rwr {
    double beta, max_weight; /* each above 0; INFINITY allowed */
    enum pref_baseline baseline;
    double base; /* PREF_BASE_VALUE */
    enum pref_weight_norm norm;
    /* What came of it: mean of all scores; (sum w)^2 / sum w^2; the largest; rows at the cap. */
    double mean, effective, largest;
    int64_t clipped;
};
/* score := min(exp((score - b) / beta), max_weight), normalised; b is the mean of the row's group
 * (of all rows for a group of one), of all rows, 0, or a value given.  softmax-prompt: a group's
 * weights add up to 1.  A weight may overflow only where it is not normalised:
 * INFINITY. */
void pref_weigh(struct pref_rwr *p, struct pref_set *s);

/* ---- tag.c: conditional alignment ---- */

enum { PREF_BINS_MAX = 10 }; /* as many tags as a tokenizer of ours reserves */
struct pref_tags {
    int64_t digits; /* of the score as text; 0: bins */
    int64_t bins;
    double edge[PREF_BINS_MAX - 1]; /* (bins - 1) ascending; edge[j] is the least of bin j + 1 */
};
/* Bins of as many rows each, as far as equal scores allow: they go where the middle of their ranks
 * does, floor(bins (below + equal / 2) / rows), and the best into the top bin. */
void pref_tags_fit(struct pref_tags *t, struct pref_set *s, int64_t bins);
/* The bin of a score: how many edges are not above it.  With digits the score in units of the last
 * one, rounded half to even. */
int64_t pref_tag_level(const struct pref_tags *t, double score);
/* Appends "<|rw_3|>", or " <rm_score>: 1.5 ": a period in any locale, and never -0.0. */
void pref_tag_text(const struct pref_tags *t, int64_t level, struct buf *out);
/* ---- tag_count.c: what the tags of training data stood for (tags.json) ---- */

struct tag_count;
struct tag_count *tag_count_new(void);
void tag_count_add(struct tag_count *c, const char *text, double reward); /* text NULL: no tag */
/* Appends the object of tags.json, tags by mean reward, or nothing when there was no tag.  Once, at
 * the end: it sorts what was counted. */
void tag_count_json(struct tag_count *c, struct buf *out);
void tag_count_free(struct tag_count *c);

/* Whether the prompt, response or text spells a control token, <|name|> or <rm_score>. */
int pref_has_control(const struct row *r);

/* ---- words.c ---- */

/* The word at *s (which is moved over blanks), or another single character; 0 at the end.  Words
 * are letters, digits and all beyond ASCII; in scripts that write no blanks, from U+2E80 up, each
 * character is one. */
size_t word_next(const char **s, const char *end);
uint64_t word_hash(const char *s, size_t n); /* in ASCII lower case */
enum { DISTINCT_BITS = 14 };
struct distinct { /* how many different hashes; a zeroed struct has none */
    uint8_t longest[1 << DISTINCT_BITS];
    int64_t total;
};
/* Of the total, an estimate within about 1 %; NaN of nothing. */
double distinct_percent(const struct distinct *d);
void distinct_words(const char *s, size_t len, struct distinct *words, struct distinct *pairs);

/* ---- dedup.c: answers to one prompt that say the same ---- */

struct dedup; /* 40 bytes a row; near: and the words of one prompt's answers */
/* threshold: of the Jaccard index of two answers' word 5-grams; above 1, only equal answers. */
struct dedup *dedup_new(double threshold);
/* To be called for every row of the set, in order; NaN is the least reward. */
void dedup_add(struct dedup *d, const struct row *r, uint64_t group, double reward);
/* Marks every row that repeats one with a greater reward, or an earlier one with the same.  near
 * reads the rows from the spool, which must have an index. */
void dedup_judge(struct dedup *d, struct pref_set *s, struct spool *rows);
/* Appends the members "cluster", a hash of the row kept instead of this marked one, and "kept", its
 * id or FILE:LINE; a comma before each. */
void dedup_describe(struct dedup *d, int64_t at, struct spool *rows, struct buf *out);
void dedup_free(struct dedup *d);

/* ---- pairs.c: from scored answers to chosen and rejected ---- */

struct pref_pairs { /* what to make, and what came of it */
    int all; /* every pair of a prompt, not only the best and the worst */
    double min_margin;
    int64_t pairs, prompts, tied, narrow, same; /* tied to same: pairs that could not be */
};
/* Writes a row for each pair, prompts in the order of their first rows, and marks the rows that are
 * in no pair.  Reads the spool, which must have an index; holds one prompt's answers. */
void pref_pairs_write(struct pref_pairs *p, struct pref_set *s, struct spool *rows,
                      struct out *out);

/* ---- method.c: from rows to verdicts, and to what is written into the rows ---- */

struct pref_plan { /* what a person asked for; every method reads its part */
    const char *field;             /* that holds the reward */
    double min_reward, quantile;   /* fa; NaN: no quantile */
    double threshold;              /* what came of it: the reward at that quantile */
    double top_frac, top_share;    /* fa, random: of all rows, of each prompt's */
    int64_t top_k;                 /* fa, random; 0: all */
    int inclusive, allow_control;  /* fa; ca */
    struct pref_rwr rwr;
    struct pref_tags tags;         /* ca; of bins, 0: to be fitted */
    int64_t bins;                  /* ca: how many to fit */
    double clip;                   /* ca: scores beyond it count as it */
    double tag_drop;               /* ca: share of rows without a tag */
    struct pref_pairs pairs;
    struct pref_norm norm;
    int norm_known;                /* its constants are given, not to be fitted */
    int64_t min_group;
    double require_spread;
    int64_t seed;
};
struct pref_method {
    const char *name;
    /* Why the row cannot be used, or NULL; NULL for any. */
    const char *(*fit)(const struct pref_plan *p, const struct row *r);
    /* The row's score; or why it has none (a static sentence). */
    const char *(*score)(const struct pref_plan *p, const struct row *r, uint64_t group,
                         double *score);
    void (*judge)(struct pref_plan *p, struct pref_set *s);
    const char *member; /* of the row, that is written: */
    /* Appends its JSON; returns 0 when this row is to have none. */
    int (*value)(const struct pref_plan *p, const struct pref_item *it, uint64_t line_hash,
                 struct buf *out);
    int streams;      /* a row is judged by itself */
    int pairs;        /* it writes pairs instead of its rows */
    const char *uses; /* " top-k top-frac ": options that mean something to it, and not to all */
};
extern const struct pref_method pref_methods[];
extern const int64_t pref_methods_count;
const struct pref_method *pref_method_find(const char *name); /* NULL for none */
int pref_method_uses(const struct pref_method *m, const char *option);
/* Rules about groups first, whose rows are in no mean and no quantile; then the scale; then the
 * method.  Leaves the set settled in the order of the input.  Returns how many prompts (global: 0
 * or 1) had no spread to be normalised by. */
int64_t pref_judge(struct pref_plan *p, const struct pref_method *m, struct pref_set *s);

/* ---- report.c: what a method did, in figures ---- */

struct pref_tally {
    struct moments in, kept, weight; /* reward by length, and weight by length */
    struct numbers reward, score;    /* of the kept rows; of those with a tag, normalised */
    struct pref_set tag;             /* group: pref_tally_level(); score: the reward */
    int64_t untagged, in_bin[PREF_BINS_MAX];
};
void pref_tally_in(struct pref_tally *t, const struct spool_row *row);
/* full: for a manifest, too, which takes up to 40 bytes a row (here and in the next one). */
void pref_tally_kept(struct pref_tally *t, const struct pref_item *it, const struct spool_row *row,
                     int full);
void pref_tally_tag(struct pref_tally *t, const struct pref_tags *tags, const struct pref_item *it,
                    const struct spool_row *row, int tagged, int full);
int64_t pref_tally_level(const struct pref_item *it); /* of an item of t->tag */
void pref_tally_release(struct pref_tally *t);
/* Says what selection did to prompts (in all, and left), rewards and lengths, and what the method
 * has to add. */
void pref_report(const struct pref_plan *p, const struct pref_method *m, const struct pref_tally *t,
                 int64_t prompts, int64_t left, int64_t kept);

/* ---- run.c: a method over rows ---- */

struct pref_run { /* the caller's: plan, method, reader, dedup (or NULL), full; the rest zero */
    struct pref_plan *plan;
    const struct pref_method *method;
    struct row_reader *reader; /* for the accounts */
    struct dedup *dedup;
    int full; /* gather what a manifest tells */
    int streams;
    int64_t kept;
    struct pref_set set;
    struct spool *spool;
    struct out *out; /* to be closed by the caller, when the accounts are good */
    struct pref_tally tally;
};
void pref_run_start(struct pref_run *run, const char *output);
void pref_run_take(struct pref_run *run, const struct row *r, uint64_t group, double score);
/* When all rows were taken: judges, writes, accounts for the dropped and reports. */
void pref_run_judge(struct pref_run *run);
void pref_run_release(struct pref_run *run);

/* ---- manifest.c: what was done, for whoever does the same to other rows ---- */

void pref_manifest_write(const char *path, const struct pref_plan *p, const struct pref_method *m,
                         struct pref_tally *t, int64_t in, int64_t kept);
/* Takes the constants of a manifest, and its bins where it has some (else tags->bins is 0).  Dies
 * (2) on what is no manifest. */
void pref_manifest_read(const char *path, struct pref_norm *norm, struct pref_tags *tags);

/* ---- arm.c: a file of rows in figures, and beside another ---- */

enum { ARM_ROWS, ARM_PROMPTS, ARM_SCORED, ARM_MEAN, ARM_SD, ARM_LEAST, ARM_Q05, ARM_Q25, ARM_Q50,
       ARM_Q75, ARM_Q95, ARM_GREATEST, ARM_LENGTH, ARM_LENGTH_Q50, ARM_LENGTH_Q95,
       ARM_CORRELATION, ARM_WORDS, ARM_WORD_PAIRS, ARM_PAIRED, ARM_DIFFERENCE, ARM_LOW, ARM_HIGH,
       ARM_PAIRS, ARM_LONGER, ARM_AGREE, ARM_AGREE_LOW, ARM_AGREE_HIGH, ARM_METRICS };
extern const struct arm_metric {
    const char *label, *key;
    int decimals, sign; /* as it is printed; sign: with one */
    enum { ARM_OF_NONE, ARM_OF_REWARDS, ARM_OF_LENGTHS } of; /* it is the quantile q of these */
    double q;
} arm_metrics[ARM_METRICS];
struct arm {
    char *name;
    const char *path;
    double value[ARM_METRICS]; /* NaN: does not apply */
    uint64_t *group;           /* (groups) ascending, of the scored rows */
    double *mean;              /* (groups) */
    int64_t groups;
};
/* Reads path (NULL: stdin); field holds the reward; distinct: count words, too. */
void arm_read(struct arm *a, char *path, const char *field, int distinct);
/* The difference to the first arm by prompt, with a bootstrap over the prompts that both have. */
void arm_compare(struct arm *a, const struct arm *first, int64_t resamples, int64_t seed);
void arm_release(struct arm *a);

/* ---- show.c: rows for the eye ---- */

/* Writes the first n rows of a file (NULL: stdin) as text; what follows is not read.  A row is a
 * line of what it is and how it is rewarded, then its texts, each line behind the name of its part.
 * Control characters come as \u001b, so that no row commands a terminal. */
void rows_show(char *path, int64_t n, struct out *out);

/* ---- scorer.c: what gives rows their rewards ---- */

extern const char scorer_stop[];
struct scorer {
    void *(*begin)(const char *arg);
    /* NULL; why the row is bad and was not taken; or scorer_stop: no use in going on, end() says
     * why. */
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

#endif
