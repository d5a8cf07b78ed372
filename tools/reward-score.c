/* reward-score.c -- rows -> the same rows with a reward.
 *
 * A scorer takes rows one by one and gives all rewards at the end; meanwhile the rows wait in a
 * spool.  That lets an outside command answer whenever it likes, lets a model score in batches of
 * its own, and keeps a row from being written before every row has its reward. */
#include "pref/pref.h"

#include <stdlib.h>
#include <string.h>

static const char *lexicon_path, *command, *field = "reward", *output;

static const struct opt options[] = {
    OPT_STR(0, "lexicon", &lexicon_path, "file", "score by the valence of words (word TAB number)"),
    OPT_STR(0, "command", &command, "cmd",
            "score by a command: a row a line in, a number a line out"),
    OPT_STR(0, "field", &field, "name", "the field to set"),
    OPT_STR('o', "output", &output, "file", "write here instead of stdout"),
    ROW_OPTIONS,
    OPT_END,
};

/* ---- scorers ---- */

struct words { /* answers at once */
    struct lexicon *lexicon;
    struct numbers reward;
};

static void *lexicon_begin(const char *path)
{
    struct words *w = xcalloc(1, sizeof(*w));
    w->lexicon = lexicon_open(path);
    return w;
}

static int lexicon_feed(void *scorer, const struct row *r)
{
    struct words *w = scorer;
    size_t len;
    const char *s = pref_answer(r, &len);
    numbers_add(&w->reward, lexicon_score(w->lexicon, s, len));
    return 0;
}

static double *lexicon_end(void *scorer, struct spool *rows)
{
    struct words *w = scorer;
    double *reward = w->reward.v;
    lexicon_free(w->lexicon);
    free(w);
    return reward;
}

static void *command_begin(const char *cmd)
{
    return coproc_open(cmd);
}

static int command_feed(void *scorer, const struct row *r)
{
    return coproc_feed(scorer, r->line, r->len);
}

static double *command_end(void *scorer, struct spool *rows)
{
    return coproc_finish(scorer, rows);
}

static const struct scorer {
    const char *name;
    const char *const *arg; /* the option's value, NULL when it was not given */
    int needs_answer;       /* a row needs a response or a text */
    void *(*begin)(const char *arg);
    int (*feed)(void *scorer, const struct row *r); /* -1: no use in going on, end() will say why */
    double *(*end)(void *scorer, struct spool *rows); /* (rows), the caller frees */
} scorers[] = {
    {"--lexicon", &lexicon_path, 1, lexicon_begin, lexicon_feed, lexicon_end},
    {"--command", &command, 0, command_begin, command_feed, command_end},
};

static const struct scorer *scorer_find(void)
{
    const struct scorer *found = NULL;
    for (int64_t i = 0; i < ARRAY_LEN(scorers); i++) {
        if (!*scorers[i].arg)
            continue;
        if (found)
            die_misused("%s and %s are two ways to score; choose one", found->name,
                        scorers[i].name);
        found = &scorers[i];
    }
    if (!found)
        die_misused("nothing to score by: give --lexicon or --command");
    return found;
}

/* Why the scorer cannot have this row, or NULL. */
static const char *unfit(const struct scorer *s, const struct row *r)
{
    struct json old;
    size_t len;
    if (s->needs_answer && !pref_answer(r, &len))
        return "no response or text to score";
    if (json_get(r->json, field, &old) && json_type(old) > JSON_REAL)
        return "the field to set is there and is no number";
    return NULL;
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options,
                          "reward-score --lexicon file | --command cmd [options] [rows ...]",
                          "Gives every row a reward.");
    const struct scorer *s = scorer_find();

    struct row_reader r;
    struct spool *spool = spool_new();
    struct progress p;
    row_reader_init(&r, argv + first, argc - first);
    void *scorer = s->begin(*s->arg);
    progress_start(&p, "scoring", "rows", 0);
    while (row_next(&r)) {
        const char *why = unfit(s, &r.row);
        if (why) {
            row_bad(&r, why);
            continue;
        }
        spool_add(spool, &r.row, 0, 0);
        if (s->feed(scorer, &r.row))
            break;
        progress_add(&p, 1);
    }
    progress_end(&p);
    double *reward = s->end(scorer, spool);

    struct out *out = out_open(output);
    struct moments m = {0};
    struct buf line = {0}, number = {0};
    struct spool_row row;
    spool_rewind(spool);
    for (int64_t i = 0; spool_next(spool, &row); i++) {
        buf_reset(&line);
        buf_reset(&number);
        json_number(&number, reward[i]);
        json_edit(&line, row.line, row.len, field, number.data);
        buf_char(&line, '\n');
        out_write(out, line.data, line.len);
        moments_add(&m, reward[i], 0);
    }
    if (m.n > 1)
        say("mean reward %.4g, standard deviation %.4g", m.mean_x, moments_sd(&m));
    row_reader_close(&r, m.n);
    out_close(out);
    free(reward);
    buf_release(&line);
    buf_release(&number);
    spool_free(spool);
    return EXIT_DONE;
}
