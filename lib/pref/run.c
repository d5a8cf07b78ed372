/* run.c -- two passes over rows: taken in one by one, judged all together, written or accounted
 * for.
 *
 * Where nothing depends on other rows there is no second pass: rows are written as they are taken,
 * and no memory grows. */
#include "pref/pref.h"

#include <math.h>
#include <string.h>

void pref_run_start(struct pref_run *run, const char *output)
{
    run->streams = run->method->streams && !run->plan->min_group && !run->dedup;
    run->out = out_open(output);
    if (run->streams)
        return;
    run->spool = spool_new();
    if (run->dedup || run->method->pairs)
        spool_index(run->spool);
}

void pref_run_take(struct pref_run *run, const struct row *r, uint64_t group, double score)
{
    double reward = NAN;
    if (run->streams) {
        if (run->full && !pref_reward(r, run->plan->field, &reward))
            numbers_add(&run->tally.reward, reward);
        out_write(run->out, r->line, r->len);
        out_write(run->out, "\n", 1);
        run->kept++;
        return;
    }
    if (pref_reward(r, run->plan->field, &reward))
        reward = NAN;
    pref_set_add(&run->set, group, score);
    if (run->dedup)
        dedup_add(run->dedup, r, group, reward);
    spool_add(run->spool, r, reward, pref_length(r));
}

/* Accounts for a row that was judged and not kept; of a repeated answer, what was kept for it. */
static void drop(struct pref_run *run, const struct spool_row *row, int64_t i)
{
    struct buf more = {0};
    int verdict = run->set.verdict[i];
    if (run->reader->rejects && (verdict == PREF_DUPLICATE || verdict == PREF_NEAR_DUPLICATE))
        dedup_describe(run->dedup, i, run->spool, &more);
    run->reader->row =
        (struct row){.line = row->line, .len = row->len, .file = row->file, .number = row->number};
    row_drop_with(run->reader, pref_verdict_name[verdict], more.len ? more.data : "");
    buf_release(&more);
}

/* Writes the row, with the member of the method where that has one. */
static void emit(struct pref_run *run, const struct pref_item *it, struct spool_row *row)
{
    static struct row_edit edit;
    static struct buf value;
    if (!run->method->member) {
        row->line[row->len] = '\n';
        out_write(run->out, row->line, row->len + 1);
        return;
    }
    buf_reset(&value);
    int has = run->method->value(run->plan, it, hash_xxh3(row->line, row->len), &value);
    row_edit_begin(&edit, row->line, row->len);
    row_edit_json(&edit, run->method->member, has ? value.data : NULL);
    buf_char(&edit.line, '\n');
    out_write(run->out, edit.line.data, edit.line.len);
    if (!strcmp(run->method->member, "tag"))
        pref_tally_tag(&run->tally, &run->plan->tags, it, row, has, run->full);
}

static void second_pass(struct pref_run *run)
{
    struct spool_row row;
    const struct pref_item *next = run->set.item; /* in the order of the input */
    spool_rewind(run->spool);
    for (int64_t i = 0; spool_next(run->spool, &row); i++) {
        pref_tally_in(&run->tally, &row);
        if (run->set.verdict[i] != PREF_KEPT) {
            drop(run, &row, i);
            continue;
        }
        while (next->at != i) /* a row that is in no pair has its item still */
            next++;
        pref_tally_kept(&run->tally, next, &row, run->full);
        if (!run->method->pairs)
            emit(run, next, &row);
    }
}

void pref_run_judge(struct pref_run *run)
{
    if (run->streams)
        return;
    int64_t left, prompts = pref_set_groups(&run->set, &left);
    spool_rewind(run->spool);
    if (run->dedup)
        dedup_judge(run->dedup, &run->set, run->spool);
    int64_t flat = pref_judge(run->plan, run->method, &run->set);
    if (flat && run->plan->norm.kind == PREF_NORM_GLOBAL)
        warn("the rewards do not differ: their z-scores are 0");
    else if (flat)
        say("the rewards of %lld prompts do not differ: their z-scores are 0", (long long)flat);
    if (run->method->pairs)
        pref_pairs_write(&run->plan->pairs, &run->set, run->spool, run->out);
    second_pass(run);
    run->kept = pref_set_kept(&run->set);
    pref_set_groups(&run->set, &left);
    pref_report(run->plan, run->method, &run->tally, prompts, left, run->kept);
}

void pref_run_release(struct pref_run *run)
{
    if (run->spool)
        spool_free(run->spool);
    dedup_free(run->dedup);
    pref_set_release(&run->set);
    pref_tally_release(&run->tally);
}
