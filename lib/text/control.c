/* control.c -- whether a row's own texts spell tokens that steer a model: one that did could end
 * its turn, speak as another role, or pass for a row of high reward. */
#include "text/tok.h"

#include <string.h>

static const char mark[] = "<rm_score>"; /* begins a tag in words */

/* t NULL: the mark. */
static int spells(const struct tok *t, const char *s, size_t n)
{
    if (!t)
        return memmem(s, n, mark, sizeof mark - 1) != NULL;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        for (int64_t k = t->added_at[c]; k < t->added_at[c + 1]; k++) {
            const struct buf *text = &t->added[k].text;
            if (t->added[k].special && text->len <= n - i && !memcmp(s + i, text->data, text->len))
                return 1;
        }
    }
    return 0;
}

static int value_spells(const struct tok *t, struct json v)
{
    size_t len;
    const char *s = json_string(v, &len);
    struct json_iter i;
    struct json content;

    if (s)
        return spells(t, s, len);
    for (json_iter_init(&i, v); json_iter_next(&i);)
        if (json_get(i.value, "content", &content) && value_spells(t, content))
            return 1;
    return 0;
}

static int row_spells(const struct row *r, const struct tok *t)
{
    const struct {
        const char *s;
        size_t len;
    } texts[] = {{r->response, r->response_len},
                 {r->chosen, r->chosen_len},
                 {r->rejected, r->rejected_len},
                 {r->text, r->text_len}};

    if (r->has_prompt && value_spells(t, r->prompt))
        return 1;
    for (int64_t i = 0; i < ARRAY_LEN(texts); i++)
        if (texts[i].s && spells(t, texts[i].s, texts[i].len))
            return 1;
    return 0;
}

int row_spells_control(const struct row *r, const struct tok *t)
{
    return row_spells(r, t);
}

int row_spells_tag(const struct row *r)
{
    return r->tag && strstr(r->tag, mark) && row_spells(r, NULL);
}
