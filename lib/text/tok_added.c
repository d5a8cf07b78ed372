/* tok_added.c -- the tokens that a tokenizer.json adds to its model's: read, and put in the order
 * in which a text is searched for them.
 *
 * The `tokenizers` package gives a token that the model lacks the next free id, whatever the file
 * says; a file that says another is refused. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>

static void read_one(struct tok *t, struct json v, const char *who)
{
    struct added *a = &t->added[t->addeds];
    struct json x;
    const char *name = NULL;
    size_t len;
    int64_t id;

    if (json_get(v, "content", &x))
        name = json_string(x, &len);
    if (!name || !json_get(v, "id", &x) || json_int(x, &id))
        die_misused("%s: an added token has no \"content\" or no \"id\"", who);
    if (!len)
        return;
    a->special = tok_flag(v, "special", who);
    a->normalized = tok_flag(v, "normalized", who);
    a->lstrip = tok_flag(v, "lstrip", who);
    a->rstrip = tok_flag(v, "rstrip", who);
    a->single_word = tok_flag(v, "single_word", who);
    if (a->single_word && !t->word)
        t->word = regex_new(regex_word, strlen(regex_word), 0, who);
    token_set(t, who, name, len, id);
    a->id = (int32_t)id;
    t->special[id] = (uint8_t)a->special;
    buf_add(&a->name, name, len);
    buf_add(&a->text, name, len);
    t->addeds++;
}

void tok_read_added(struct tok *t, struct json root, const char *who)
{
    struct json list;
    struct json_iter i;
    struct map seen = {0};
    int64_t next = (int64_t)t->ids.n;

    if (!json_get(root, "added_tokens", &list) || json_type(list) == JSON_NULL)
        return;
    if (json_type(list) != JSON_ARRAY || json_duplicate_key(list))
        die_misused("%s: \"added_tokens\" is no array, or a token in it has a member twice", who);
    t->added = xcalloc((size_t)json_count(list) + 1, sizeof *t->added);
    for (json_iter_init(&i, list); json_iter_next(&i);) {
        int64_t before = t->addeds;
        read_one(t, i.value, who);
        if (t->addeds == before)
            continue;
        const struct added *a = &t->added[before];
        int32_t *place = map_put(&seen, a->name.data, a->name.len);
        if (*place >= 0)
            die_misused("%s: token \"%s\" is twice in \"added_tokens\"", who, a->name.data);
        *place = a->id;
        int64_t want = map_get(&t->ids, a->name.data, a->name.len);
        if (want < 0)
            want = next++;
        if (a->id != want)
            die_misused("%s: added token \"%s\" has the id %d, where the `tokenizers` package "
                        "gives it %lld",
                        who, a->name.data, a->id, (long long)want);
    }
    map_release(&seen);
}

static int added_order(const void *a, const void *b)
{
    const struct added *x = a, *y = b;
    int cx = (unsigned char)x->text.data[0], cy = (unsigned char)y->text.data[0];

    if (cx != cy)
        return cx < cy ? -1 : 1;
    if (x->text.len != y->text.len)
        return x->text.len > y->text.len ? -1 : 1;
    return memcmp(x->text.data, y->text.data, x->text.len);
}

/* Tokens are told apart by the text they are found by. */
static void refuse_same(const struct tok *t, const char *who)
{
    for (int64_t i = 0; i < t->addeds; i++)
        for (int64_t k = i + 1; k < t->addeds && !added_order(&t->added[i], &t->added[k]); k++)
            if (t->added[i].normalized == t->added[k].normalized)
                die_misused("%s: added tokens \"%s\" and \"%s\" are the same when normalised", who,
                            t->added[i].name.data, t->added[k].name.data);
}

static int is_special(const struct tok *t, const struct buf *name)
{
    for (int64_t i = 0; i < t->addeds; i++) {
        const struct added *a = &t->added[i];
        if (a->special && a->name.len == name->len && !memcmp(a->name.data, name->data, name->len))
            return 1;
    }
    return 0;
}

/* A normalised token is decoded from what it became, and is special under that name only. */
static void normalize(struct tok *t, struct added *a, const char *who)
{
    struct buf *token = &t->token[a->id];

    tok_normalize(t, a->name.data, a->name.len, &a->text);
    if (!a->text.len)
        die_misused("%s: added token \"%s\" is nothing when normalised", who, a->name.data);
    if (a->text.len == token->len && !memcmp(a->text.data, token->data, token->len))
        return;
    buf_reset(token);
    buf_add(token, a->text.data, a->text.len);
    t->special[a->id] = (uint8_t)is_special(t, token);
}

void tok_index_added(struct tok *t, const char *who)
{
    for (int64_t i = 0; i < t->addeds; i++) {
        struct added *a = &t->added[i];
        if (a->normalized)
            normalize(t, a, who);
        const unsigned char *text = (const unsigned char *)a->text.data;
        uint8_t **pair = &t->added_pair[a->normalized];
        if (!*pair)
            *pair = xcalloc(256, 32);
        if (a->text.len > 1)
            (*pair)[text[0] * 32 + text[1] / 8] |= (uint8_t)(1 << text[1] % 8);
        else
            memset(*pair + text[0] * 32, 0xff, 32);
    }
    if (t->addeds)
        qsort(t->added, (size_t)t->addeds, sizeof *t->added, added_order);
    refuse_same(t, who);
    for (int64_t c = 0, k = 0; c <= 256; c++) {
        while (k < t->addeds && (unsigned char)t->added[k].text.data[0] < c)
            k++;
        t->added_at[c] = k;
    }
}
