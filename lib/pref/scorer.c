/* scorer.c -- the scorers that need no model: a lexicon and an outside command. */
#include "pref/pref.h"

#include <stdlib.h>

const char scorer_stop[] = "the scorer wants no more rows";

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

static const char *lexicon_feed(void *scorer, const struct row *r)
{
    struct words *w = scorer;
    size_t len;
    const char *s = pref_answer(r, &len);
    if (!s)
        return "no response or text to score";
    numbers_add(&w->reward, lexicon_score(w->lexicon, s, len));
    return NULL;
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

static const char *command_feed(void *scorer, const struct row *r)
{
    return coproc_feed(scorer, r->line, r->len) ? scorer_stop : NULL;
}

static double *command_end(void *scorer, struct spool *rows)
{
    return coproc_finish(scorer, rows);
}

const struct scorer scorer_lexicon = {lexicon_begin, lexicon_feed, lexicon_end, 0};
const struct scorer scorer_command = {command_begin, command_feed, command_end, 0};
