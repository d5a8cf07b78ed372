/* tag_count.c -- what the tags of training data (CA) stood for: how many rows had each, and their
 * mean reward.
 *
 * The 95th percentile is that of all rewards, with a tag or without; so every reward is kept until
 * the end, eight bytes a row. */
#include "pref/pref.h"

#include <stdlib.h>
#include <string.h>

struct tag {
    char *text;
    int64_t rows;
    double sum;
};

struct tag_count {
    struct tag *tag; /* (tags) by text, until the end */
    int64_t tags;
    struct numbers reward;
};

struct tag_count *tag_count_new(void)
{
    return xcalloc(1, sizeof(struct tag_count));
}

/* The place of the tag, which is made where there is none. */
static struct tag *tag_find(struct tag_count *c, const char *text)
{
    int64_t lo = 0, hi = c->tags;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        int order = strcmp(c->tag[mid].text, text);
        if (!order)
            return &c->tag[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if ((c->tags & (c->tags - 1)) == 0) /* room for twice as many */
        c->tag = xrealloc(c->tag, (size_t)MAX(2 * c->tags, 1) * sizeof *c->tag);
    memmove(c->tag + lo + 1, c->tag + lo, (size_t)(c->tags++ - lo) * sizeof *c->tag);
    c->tag[lo] = (struct tag){.text = xstrdup(text)};
    return &c->tag[lo];
}

void tag_count_add(struct tag_count *c, const char *text, double reward)
{
    numbers_add(&c->reward, reward);
    if (!text)
        return;
    struct tag *t = tag_find(c, text);
    t->rows++;
    t->sum += reward;
}

static int by_mean(const void *pa, const void *pb)
{
    const struct tag *a = pa, *b = pb;
    double x = a->sum / (double)a->rows, y = b->sum / (double)b->rows;
    return x != y ? (x > y) - (x < y) : strcmp(a->text, b->text);
}

void tag_count_json(struct tag_count *c, struct buf *out)
{
    if (!c->tags)
        return;
    qsort(c->tag, (size_t)c->tags, sizeof *c->tag, by_mean);
    sort_doubles(c->reward.v, c->reward.n);
    buf_str(out, "{\"tags\":[");
    for (int64_t i = 0; i < c->tags; i++) {
        buf_str(out, i ? ",{\"text\":" : "{\"text\":");
        json_quote(out, c->tag[i].text, strlen(c->tag[i].text));
        buf_printf(out, ",\"count\":%lld,\"reward\":", (long long)c->tag[i].rows);
        json_number(out, c->tag[i].sum / (double)c->tag[i].rows);
        buf_char(out, '}');
    }
    buf_str(out, "],\"reward_p95\":");
    json_number(out, sorted_quantile(c->reward.v, c->reward.n, 0.95));
    buf_str(out, "}\n");
}

void tag_count_free(struct tag_count *c)
{
    for (int64_t i = 0; i < c->tags; i++)
        free(c->tag[i].text);
    free(c->tag);
    free(c->reward.v);
    free(c);
}
