/* report.c -- what a method did, in figures.
 *
 * Selection by reward favours easy prompts and long answers, and weights may leave little of a data
 * set; none of that shows in a count of rows, so it is always said. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Levels may be negative, groups are not. */
static const uint64_t level_zero = UINT64_C(1) << 63;

void pref_tally_in(struct pref_tally *t, const struct spool_row *row)
{
    if (isfinite(row->reward) && row->length >= 0)
        moments_add(&t->in, row->reward, (double)row->length);
}

void pref_tally_kept(struct pref_tally *t, const struct pref_item *it, const struct spool_row *row,
                     int full)
{
    if (isfinite(row->reward) && row->length >= 0)
        moments_add(&t->kept, row->reward, (double)row->length);
    if (row->length >= 0)
        moments_add(&t->weight, it->score, (double)row->length);
    if (full && isfinite(row->reward))
        numbers_add(&t->reward, row->reward);
}

void pref_tally_tag(struct pref_tally *t, const struct pref_tags *tags, const struct pref_item *it,
                    const struct spool_row *row, int tagged, int full)
{
    int64_t level = pref_tag_level(tags, it->score);
    t->untagged += !tagged;
    if (!tags->digits)
        t->in_bin[level]++;
    if (!tagged || !full)
        return;
    numbers_add(&t->score, it->score);
    pref_set_add(&t->tag, (uint64_t)level + level_zero, row->reward);
}

int64_t pref_tally_level(const struct pref_item *it)
{
    return (int64_t)(it->group - level_zero);
}

void pref_tally_release(struct pref_tally *t)
{
    free(t->reward.v);
    free(t->score.v);
    pref_set_release(&t->tag);
    *t = (struct pref_tally){0};
}

static void add_correlation(struct buf *b, const char *what, const struct moments *m)
{
    if (isfinite(moments_correlation(m)))
        buf_printf(b, ", %s correlation %.3f", what, moments_correlation(m));
}

static void report_weights(const struct pref_rwr *p, const struct pref_tally *t, int64_t kept)
{
    struct buf b = {0};
    buf_printf(&b, "weights: effective sample size %.1f of %lld, %.1f %% capped, greatest %.4g",
               p->effective, (long long)kept, 100 * (double)p->clipped / (double)kept, p->largest);
    add_correlation(&b, "weight-length", &t->weight);
    say("%s", b.data);
    buf_release(&b);
    if (p->effective < 0.1 * (double)kept)
        warn("the effective sample size is below 10 %% of the rows: a larger --beta spreads it");
}

static void report_tags(const struct pref_plan *p, const struct pref_tally *t)
{
    const struct pref_tags *tags = &p->tags;
    struct buf b = {0};
    int64_t empty = 0;
    if (!tags->digits)
        buf_str(&b, "rows by bin");
    for (int64_t i = 0; !tags->digits && i < tags->bins; i++) {
        buf_printf(&b, " %lld", (long long)t->in_bin[i]);
        empty += !t->in_bin[i];
    }
    say("%s%s%lld left without a tag", b.len ? b.data : "", b.len ? "; " : "",
        (long long)t->untagged);
    buf_release(&b);
    if (empty && !p->norm_known)
        warn("%lld of %lld bins are empty: equal rewards share one", (long long)empty,
             (long long)tags->bins);
}

void pref_report(const struct pref_plan *p, const struct pref_method *m, const struct pref_tally *t,
                 int64_t prompts, int64_t left, int64_t kept)
{
    struct buf b = {0};
    buf_printf(&b, "prompts %lld -> %lld", (long long)prompts, (long long)left);
    if (t->kept.n) {
        buf_printf(&b, ", mean reward %.4g -> %.4g", t->in.mean_x, t->kept.mean_x);
        buf_printf(&b, ", mean length %.4g -> %.4g", t->in.mean_y, t->kept.mean_y);
        add_correlation(&b, "length-reward", &t->in);
    }
    say("%s", b.data);
    buf_release(&b);
    if (!isnan(p->quantile))
        say("--quantile-threshold %g is a score of %.6g", p->quantile, p->threshold);
    if (kept && m->member && !strcmp(m->member, "weight"))
        report_weights(&p->rwr, t, kept);
    if (kept && m->member && !strcmp(m->member, "tag"))
        report_tags(p, t);
    if (m->pairs)
        say("pairs %lld of %lld prompts; not made: %lld tied, %lld below --min-margin, %lld of "
            "equal "
            "texts",
            (long long)p->pairs.pairs, (long long)p->pairs.prompts, (long long)p->pairs.tied,
            (long long)p->pairs.narrow, (long long)p->pairs.same);
}
