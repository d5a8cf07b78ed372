/* tags.c -- the tags a model was trained with (CA), by what rewards they stood for.
 *
 * shard-pack counts them into tags.json and moe-train keeps that with the model, so the target
 * asked for at use is one that was seen in training. */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

struct tag {
    char *text;
    int64_t count;
    double reward;
};

static int by_reward(const void *a, const void *b)
{
    const struct tag *x = a, *y = b;
    return (x->reward > y->reward) - (x->reward < y->reward);
}

static struct tag read_tag(struct json v, const char *path)
{
    struct tag t;
    struct json text, count, reward;
    size_t len;
    if (!json_get(v, "text", &text) || !json_get(v, "count", &count) ||
        !json_get(v, "reward", &reward) || !json_string(text, &len) || json_int(count, &t.count) ||
        json_real(reward, &t.reward))
        die_damaged("%s: a tag lacks its text, count or reward", path);
    t.text = xstrndup(json_string(text, &len), len);
    return t;
}

char *tags_pick(const char *path, double share)
{
    if (!path_exists(path))
        return NULL;
    struct buf file = read_file(path);
    struct json_doc *doc = json_doc_new();
    struct json root, list;
    struct json_iter i;
    struct tag *tag = NULL;
    char *found = NULL;
    const char *why;
    int64_t n = 0, total = 0, seen = 0;
    if (json_parse(doc, file.data, file.len, &root, &why) || !json_get(root, "tags", &list))
        die_damaged("%s: not the tags of a model", path);
    for (json_iter_init(&i, list); json_iter_next(&i); n++) {
        tag = xrealloc(tag, (size_t)(n + 1) * sizeof *tag);
        tag[n] = read_tag(i.value, path);
        total += tag[n].count;
    }
    if (n)
        qsort(tag, (size_t)n, sizeof *tag, by_reward);
    for (int64_t k = 0; k < n; k++) {
        seen += tag[k].count;
        if (!found && (double)seen >= share * (double)total)
            found = xstrdup(tag[k].text);
        free(tag[k].text);
    }
    free(tag);
    json_doc_free(doc);
    buf_release(&file);
    return found;
}
