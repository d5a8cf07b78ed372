/* manifest.c -- what pref-filter did, as one JSON object: the constants that put other rows on the
 * same scale and into the same bins, and the figures a trainer or a reader wants to see.
 *
 * Numbers are written so that they read back to the same bits: a row is put into the same bin by
 * the run that made the edges and by every later one. */
#include "pref/pref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void member(struct buf *b, const char *name, double x)
{
    buf_printf(b, ",\"%s\":", name);
    json_number(b, x);
}

static void write_norm(struct buf *b, const struct pref_norm *n)
{
    buf_printf(b, ",\n\"norm\":{\"kind\":\"%s\"", pref_norm_name[n->kind]);
    if (n->kind == PREF_NORM_GLOBAL) {
        member(b, "mean", n->mean);
        member(b, "std", n->sd);
        buf_printf(b, ",\"n\":%lld", (long long)n->n);
    }
    buf_str(b, n->kind == PREF_NORM_NONE ? "}" : ",\"ddof\":1}");
}

static void write_reward(struct buf *b, struct numbers *reward)
{
    double sum = 0;
    sort_doubles(reward->v, reward->n);
    for (int64_t i = 0; i < reward->n; i++)
        sum += reward->v[i];
    buf_printf(b, ",\n\"reward\":{\"n\":%lld", (long long)reward->n);
    member(b, "mean", reward->n ? sum / (double)reward->n : NAN);
    member(b, "min", sorted_quantile(reward->v, reward->n, 0));
    member(b, "q95", sorted_quantile(reward->v, reward->n, 0.95));
    member(b, "max", sorted_quantile(reward->v, reward->n, 1));
    buf_char(b, '}');
}

static void write_rwr(struct buf *b, const struct pref_rwr *p, const struct pref_tally *t)
{
    buf_str(b, ",\n\"weight\":{\"beta\":");
    json_number(b, p->beta); /* infinity is null */
    member(b, "max", p->max_weight);
    if (p->baseline == PREF_BASE_VALUE)
        member(b, "baseline", p->base);
    else
        buf_printf(b, ",\"baseline\":\"%s\"", pref_baseline_name[p->baseline]);
    buf_printf(b, ",\"norm\":\"%s\"", pref_weight_norm_name[p->norm]);
    member(b, "mean_score", p->mean);
    member(b, "effective_sample_size", p->effective);
    buf_printf(b, ",\"clipped\":%lld", (long long)p->clipped);
    member(b, "largest", p->largest);
    member(b, "length_correlation", moments_correlation(&t->weight));
    buf_char(b, '}');
}

/* null: no such criterion. */
static void write_select(struct buf *b, const struct pref_plan *p)
{
    buf_printf(b, ",\n\"select\":{\"inclusive\":%d,\"top_k\":%lld", p->inclusive,
               (long long)p->top_k);
    member(b, "top_frac", p->top_frac);
    member(b, "top_frac_per_prompt", p->top_share);
    member(b, "min_reward", p->min_reward);
    member(b, "quantile", p->quantile);
    member(b, "threshold", isnan(p->quantile) ? NAN : p->threshold);
    buf_char(b, '}');
}

static void write_tag(struct buf *b, const struct pref_tags *t, int64_t level)
{
    struct buf text = {0};
    pref_tag_text(t, level, &text);
    json_quote(b, text.data, text.len);
    buf_release(&text);
}

static void write_tags(struct buf *b, const struct pref_plan *p, struct pref_tally *tally)
{
    const struct pref_tags *t = &p->tags;
    struct pref_set *tag = &tally->tag;
    struct numbers *score = &tally->score;
    sort_doubles(score->v, score->n);
    /* Of text, a tag that was seen in training, and more than once if there are many. */
    double top =
        score->n ? score->v[(int64_t)((double)(score->n - 1) * (t->digits ? 0.95 : 1))] : 0;
    if (t->digits)
        buf_printf(b, ",\n\"tag\":{\"mode\":\"text\",\"digits\":%lld", (long long)t->digits);
    else
        buf_printf(b, ",\n\"tag\":{\"mode\":\"bins\",\"bins\":%lld,\"edges\":[",
                   (long long)t->bins);
    for (int64_t j = 0; !t->digits && j < t->bins - 1; j++) {
        buf_str(b, j ? "," : "");
        json_number(b, t->edge[j]);
    }
    buf_str(b, t->digits ? "" : "]");
    member(b, "clip", p->clip);
    member(b, "drop", p->tag_drop);
    buf_printf(b, ",\"untagged\":%lld", (long long)tally->untagged);
    if (score->n) {
        buf_str(b, ",\"top\":");
        write_tag(b, t, pref_tag_level(t, top));
    }
    buf_str(b, ",\"tags\":[");
    pref_set_sort_group(tag);
    for (int64_t i = 0, j; i < tag->n; i = j) {
        double sum = 0;
        for (j = i; j < tag->n && tag->item[j].group == tag->item[i].group; j++)
            sum += tag->item[j].score;
        buf_str(b, i ? ",\n{\"tag\":" : "\n{\"tag\":");
        write_tag(b, t, pref_tally_level(&tag->item[i]));
        buf_printf(b, ",\"count\":%lld", (long long)(j - i));
        member(b, "reward_mean", sum / (double)(j - i));
        buf_char(b, '}');
    }
    buf_str(b, "]}");
}

void pref_manifest_write(const char *path, const struct pref_plan *p, const struct pref_method *m,
                         struct pref_tally *t, int64_t in, int64_t kept)
{
    struct buf b = {0};
    buf_printf(&b,
               "{\"tool\":\"pref-filter\",\"version\":\"%s\",\"method\":\"%s\",\"seed\":%lld,"
               "\n\"rows\":{\"in\":%lld,\"kept\":%lld}",
               MOEUTILS_VERSION, m->name, (long long)p->seed, (long long)in, (long long)kept);
    write_norm(&b, &p->norm);
    write_reward(&b, &t->reward);
    if (pref_method_uses(m, "top-k"))
        write_select(&b, p);
    if (m->member && !strcmp(m->member, "weight"))
        write_rwr(&b, &p->rwr, t);
    if (m->member && !strcmp(m->member, "tag"))
        write_tags(&b, p, t);
    buf_str(&b, "}\n");
    write_file(path, b.data, b.len);
    buf_release(&b);
}

static int get_real(struct json object, const char *key, double *x)
{
    struct json v;
    return json_get(object, key, &v) && !json_real(v, x);
}

static int read_norm(struct json root, struct pref_norm *norm)
{
    struct json v, kind, n;
    const char *name;
    size_t len;
    if (!json_get(root, "norm", &v) || !json_get(v, "kind", &kind) ||
        !(name = json_string(kind, &len)))
        return -1;
    int k = 0;
    while (k < PREF_NORM_KINDS && strcmp(name, pref_norm_name[k]))
        k++;
    *norm = (struct pref_norm){.kind = (enum pref_norm_kind)k};
    if (k != PREF_NORM_GLOBAL)
        return k < PREF_NORM_KINDS ? 0 : -1;
    return get_real(v, "mean", &norm->mean) && get_real(v, "std", &norm->sd) && norm->sd >= 0 &&
                   json_get(v, "n", &n) && !json_int(n, &norm->n)
               ? 0
               : -1;
}

static int read_bins(struct json root, struct pref_tags *t)
{
    struct json v, edges;
    struct json_iter i;
    *t = (struct pref_tags){0};
    if (!json_get(root, "tag", &v) || !json_get(v, "edges", &edges))
        return 0;
    t->bins = json_count(edges) + 1;
    if (t->bins < 2 || t->bins > PREF_BINS_MAX)
        return -1;
    int64_t j = 0;
    for (json_iter_init(&i, edges); json_iter_next(&i); j++)
        if (json_real(i.value, &t->edge[j]) || (j && t->edge[j] < t->edge[j - 1]))
            return -1;
    return 0;
}

void pref_manifest_read(const char *path, struct pref_norm *norm, struct pref_tags *tags)
{
    struct json_doc *doc = json_doc_new();
    struct buf text = read_file(path);
    struct json root;
    const char *why;
    if (json_parse(doc, text.data, text.len, &root, &why))
        die_misused("%s: %s", path, why);
    if (read_norm(root, norm))
        die_misused("%s: no constants of a normalisation; wanted what --manifest wrote", path);
    if (read_bins(root, tags))
        die_misused("%s: the edges of the bins are damaged", path);
    json_doc_free(doc);
    buf_release(&text);
}
