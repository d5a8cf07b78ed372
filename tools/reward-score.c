/* reward-score.c -- rows -> the same rows with a reward.
 *
 * A scorer takes rows one by one and gives all rewards at the end; meanwhile the rows wait in a
 * spool.  That lets an outside command answer whenever it likes, lets a model score in blocks of
 * its own, and keeps a row from being written before every row has its reward. */
#include "model/model.h"
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *lexicon_path, *command, *model_path, *field, *output, *device = "cpu", *type = "f32";
static int logp, raw;
static int64_t threads;

static const struct opt options[] = {
    OPT_STR(0, "lexicon", &lexicon_path, "file", "score by the valence of words (word TAB number)"),
    OPT_STR(0, "command", &command, "cmd",
            "score by a command: a row a line in, a number a line out"),
    OPT_STR('m', "model", &model_path, "ckpt", "score by a reward model, or by any with --logp"),
    OPT_FLAG(0, "logp", &logp, "give the model's log-probability of the answer, as ref_logp"),
    OPT_FLAG(0, "raw", &raw, "a reward model's scores as they are, not normalised"),
    OPT_STR(0, "field", &field, "name", "the field to set (default reward, or ref_logp)"),
    OPT_CHOICE(0, "device", &device, "cpu|cuda", "where a model computes"),
    OPT_CHOICE(0, "type", &type, "f32|bf16", "a model's arithmetic; bf16: cuda"),
    OPT_INT('j', "threads", &threads, "n", "threads of a model; 0: all cores"),
    OPT_STR('o', "output", &output, "file", "write here instead of stdout"),
    ROW_OPTIONS,
    OPT_END,
};

static int is_pair(const struct row *r)
{
    return r->has_prompt && r->chosen && r->rejected;
}

/* ---- scoring by a model: documents wait in blocks, each is scored by itself ---- */

enum { BLOCK = 512 };
struct judge {
    struct tok *tok;
    const struct chat *chat;
    struct world *world;
    struct lane lane;
    struct model model;
    double mean, sd;  /* of a reward model's scores on its training data */
    struct ids token; /* of the block, end to end */
    struct buf target;
    int64_t at[BLOCK + 2], docs;
    struct numbers reward;
};

static double state_number(struct ckpt *k, const char *key, double otherwise)
{
    struct json v;
    double x;
    return json_get(ckpt_state(k), key, &v) && !json_real(v, &x) ? x : otherwise;
}

static void *judge_begin(const char *path)
{
    struct judge *j = xcalloc(1, sizeof *j);
    struct ckpt *k = ckpt_open(path);
    struct json v;
    size_t len;
    j->tok = tok_open(ckpt_path(k));
    const char *template = json_get(ckpt_state(k), "template", &v) ? json_string(v, &len) : NULL;
    j->chat = chat_find(template ? template : "plain");
    j->world = world_self();
    model_open(&j->model, &j->lane, j->world, k, device, type, threads);
    if (j->model.cfg.reward && logp)
        die_misused("%s is a reward model and has no log-probabilities", path);
    if (!j->model.cfg.reward && !logp)
        die_misused("%s is a language model and has no score head; --logp is what it can tell",
                    path);
    j->mean = raw || logp ? 0 : state_number(k, "reward_mean", 0);
    j->sd = raw || logp ? 1 : state_number(k, "reward_sd", 1);
    if (!(j->sd > 0)) /* all training data scored the same */
        j->sd = 1;
    ckpt_close(k);
    return j;
}

static void judge_block(struct judge *j)
{
    struct score_doc doc[BLOCK + 1];
    double score[BLOCK + 1];
    for (int64_t i = 0; i < j->docs; i++)
        doc[i] = (struct score_doc){j->token.id + j->at[i], (uint8_t *)j->target.data + j->at[i],
                                    j->at[i + 1] - j->at[i]};
    if (j->docs)
        model_scores(&j->model, doc, j->docs, score);
    for (int64_t i = 0; i < j->docs; i++) {
        if (!isfinite(score[i]))
            die("%s: the model's score of answer %lld is not finite", model_path,
                (long long)(j->reward.n + 1));
        numbers_add(&j->reward, (score[i] - j->mean) / j->sd);
    }
    j->token.n = j->docs = 0;
    buf_reset(&j->target);
}

static const char *judge_one(struct judge *j, const struct row *r)
{
    const char *why = chat_render(j->chat, j->tok, r, &j->token, &j->target);
    if (!why && j->token.n - j->at[j->docs] > j->model.cfg.positions)
        why = "longer than the model's positions";
    if (!why)
        j->at[++j->docs] = j->token.n;
    return why;
}

static const char *judge_feed(void *scorer, const struct row *r)
{
    struct judge *j = scorer;
    struct row one = *r;
    int64_t docs = j->docs;
    const char *why;
    if (!logp)
        one.tag = NULL; /* an answer is judged for itself, not for what was asked of its writer */
    if (is_pair(r)) {
        one.response = r->chosen, one.response_len = r->chosen_len;
        why = judge_one(j, &one);
        one.response = r->rejected, one.response_len = r->rejected_len;
        if (!why)
            why = judge_one(j, &one);
    } else {
        why = judge_one(j, &one);
    }
    if (why) { /* not half a pair */
        j->docs = docs;
        j->token.n = j->target.len = j->at[docs];
        return why;
    }
    if (j->docs >= BLOCK)
        judge_block(j);
    return NULL;
}

static double *judge_end(void *scorer, struct spool *rows)
{
    struct judge *j = scorer;
    judge_block(j);
    double *reward = j->reward.v;
    model_release(&j->model);
    lane_release(&j->lane);
    world_free(j->world);
    tok_free(j->tok);
    ids_release(&j->token);
    buf_release(&j->target);
    free(j);
    return reward;
}

static const struct scorer scorer_model = {judge_begin, judge_feed, judge_end, 1};

/* ---- the tool ---- */

static const struct choice {
    const char *name, *const *arg; /* the option, and its value: NULL when it was not given */
    const struct scorer *scorer;
} choices[] = {
    {"--lexicon", &lexicon_path, &scorer_lexicon},
    {"--command", &command, &scorer_command},
    {"--model", &model_path, &scorer_model},
};

static const struct choice *choice_find(void)
{
    const struct choice *found = NULL;
    for (int64_t i = 0; i < ARRAY_LEN(choices); i++) {
        if (!*choices[i].arg)
            continue;
        if (found)
            die_misused("%s and %s are two ways to score; choose one", found->name,
                        choices[i].name);
        found = &choices[i];
    }
    if (!found)
        die_misused("nothing to score by: give --lexicon, --command or --model");
    if (found->scorer != &scorer_model && (logp || raw))
        die_misused("--logp and --raw go with --model");
    return found;
}

/* The fields that a row gets: one, or of a pair two. */
static char *names[2];
static int64_t values;

static void names_forget(void)
{
    values = 0;
    free(names[0]), free(names[1]);
    names[0] = names[1] = NULL;
}

static const char *names_fit(const struct scorer *s, const struct row *r)
{
    int64_t want = s->pairs && is_pair(r) ? 2 : 1;
    struct json old;
    if (!values) {
        values = want;
        names[0] = xasprintf("%s%s", field, want == 2 ? "_chosen" : "");
        names[1] = xasprintf("%s_rejected", field);
    }
    if (want != values)
        return "pairs and single answers are mixed";
    for (int64_t i = 0; i < values; i++)
        if (json_get(r->json, names[i], &old) && json_type(old) > JSON_REAL)
            return "the field to set is there and is no number";
    return NULL;
}

static void write_rows(struct spool *spool, const double *reward, struct moments *m)
{
    struct out *out = out_open(output);
    struct buf line = {0}, next = {0}, number = {0};
    struct spool_row row;
    spool_rewind(spool);
    while (spool_next(spool, &row)) {
        buf_reset(&line);
        buf_add(&line, row.line, row.len);
        for (int64_t i = 0; i < values; i++, reward++) {
            buf_reset(&number);
            buf_reset(&next);
            json_number(&number, *reward);
            json_edit(&next, line.data, line.len, names[i], number.data);
            struct buf swap = line;
            line = next, next = swap;
            moments_add(m, *reward, 0);
        }
        buf_char(&line, '\n');
        out_write(out, line.data, line.len);
    }
    buf_release(&line), buf_release(&next), buf_release(&number);
    if (m->n > 1)
        say("mean %s %.4g, standard deviation %.4g", field, m->mean_x, moments_sd(m));
    out_close(out);
}

int main(int argc, char **argv)
{
    int first =
        opt_parse(argc, argv, options,
                  "reward-score {--lexicon file | --command cmd | -m ckpt} [options] [rows ...]",
                  "Gives every row a reward.");
    const struct choice *c = choice_find();
    if (field && !*field)
        die_misused("--field is empty");
    if (!field)
        field = logp ? "ref_logp" : "reward";

    struct row_reader r;
    struct spool *spool = spool_new();
    struct progress p;
    row_reader_init(&r, argv + first, argc - first);
    void *scorer = c->scorer->begin(*c->arg);
    progress_start(&p, "scoring", "rows", 0);
    while (row_next(&r)) {
        const char *why = names_fit(c->scorer, &r.row);
        if (!why)
            why = c->scorer->feed(scorer, &r.row);
        if (why == scorer_stop) {
            spool_add(spool, &r.row, 0, 0);
            break;
        }
        if (why) {
            if (!spool_count(spool)) /* a bad row decides nothing */
                names_forget();
            row_bad(&r, why);
            continue;
        }
        spool_add(spool, &r.row, 0, 0);
        progress_add(&p, 1);
    }
    progress_end(&p);
    double *reward = c->scorer->end(scorer, spool);
    struct moments m = {0};
    int64_t kept = spool_count(spool);
    row_reader_close(&r, kept);
    write_rows(spool, reward, &m);
    free(reward);
    names_forget();
    spool_free(spool);
    return EXIT_DONE;
}
