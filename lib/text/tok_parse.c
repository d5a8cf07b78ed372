/* tok_parse.c -- tokenizer.json to a tokenizer: vocabulary, merges, added tokens, then the steps.
 *
 * What the `tokenizers` package reads gives its ids, or is refused by name. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>

/* Highest id a file may use: a hole costs memory. */
enum { ID_MAX = 1 << 24 };

/* Gives id its token; the arrays grow as ids come. */
void token_set(struct tok *t, const char *who, const char *name, size_t len, int64_t id)
{
    if (id < 0 || id > ID_MAX)
        die_misused("%s: token \"%s\" has the id %lld", who, name, (long long)id);
    if (id >= t->cap) {
        int64_t cap = MAX(id + 1, 2 * t->cap);
        t->token = xrealloc(t->token, (size_t)cap * sizeof *t->token);
        t->special = xrealloc(t->special, (size_t)cap);
        memset(t->token + t->cap, 0, (size_t)(cap - t->cap) * sizeof *t->token);
        memset(t->special + t->cap, 0, (size_t)(cap - t->cap));
        t->cap = cap;
    }
    t->size = MAX(t->size, id + 1);
    struct buf *old = &t->token[id];
    if (old->data && (old->len != len || memcmp(old->data, name, len)))
        die_misused("%s: \"%s\" and \"%s\" both have the id %lld", who, old->data, name,
                    (long long)id);
    if (!old->data)
        buf_add(old, name, len);
    t->longest = MAX(t->longest, len);
}

/* Of an object's own members: not of the vocabulary, which is read into a map anyway. */
static void refuse_twice(struct json object, const char *who)
{
    struct map seen = {0};
    struct json_iter i;

    for (json_iter_init(&i, object); json_iter_next(&i);) {
        int32_t *place = map_put(&seen, i.key, i.key_len);
        if (*place >= 0)
            die_misused("%s: there are two \"%s\"", who, i.key);
        *place = 0;
    }
    map_release(&seen);
}

static void read_vocab(struct tok *t, struct json model, const char *who)
{
    struct json vocab;
    struct json_iter i;
    int64_t id;

    if (!json_get(model, "vocab", &vocab) || json_type(vocab) != JSON_OBJECT)
        die_misused("%s: the model has no \"vocab\"", who);
    for (json_iter_init(&i, vocab); json_iter_next(&i);) {
        if (json_int(i.value, &id))
            die_misused("%s: token \"%s\" has no integer id", who, i.key);
        token_set(t, who, i.key, i.key_len, id);
        int32_t *place = map_put(&t->ids, i.key, i.key_len);
        if (*place >= 0)
            die_misused("%s: token \"%s\" is twice in \"vocab\"", who, i.key);
        *place = (int32_t)id;
    }
}

/* A merge is "left right", or in newer files ["left", "right"]. */
static int merge_parts(struct json v, struct buf part[2])
{
    struct json_iter i;
    const char *s, *blank;
    size_t len;
    int n = 0;

    buf_reset(&part[0]);
    buf_reset(&part[1]);
    if (json_type(v) == JSON_STRING) {
        s = json_string(v, &len);
        blank = memchr(s, ' ', len);
        if (!blank || memchr(blank + 1, ' ', len - (size_t)(blank + 1 - s)))
            return 0;
        buf_add(&part[0], s, (size_t)(blank - s));
        buf_add(&part[1], blank + 1, len - (size_t)(blank + 1 - s));
        return 1;
    }
    if (json_type(v) != JSON_ARRAY || json_count(v) != 2)
        return 0;
    for (json_iter_init(&i, v); json_iter_next(&i); n++) {
        if (!(s = json_string(i.value, &len)))
            return 0;
        buf_add(&part[n], s, len);
    }
    return 1;
}

static void read_merges(struct tok *t, struct json model, const char *who)
{
    struct json merges;
    struct json_iter i;
    struct buf part[2] = {{0}};
    int32_t rank = 0;

    if (!json_get(model, "merges", &merges) || json_type(merges) != JSON_ARRAY)
        die_misused("%s: the model has no \"merges\"", who);
    pairs_init(&t->merges, (size_t)json_count(merges));
    for (json_iter_init(&i, merges); json_iter_next(&i); rank++) {
        if (!merge_parts(i.value, part))
            die_misused("%s: merge %d is no pair of tokens", who, rank + 1);
        struct merge pair = {map_get(&t->ids, part[0].data, part[0].len),
                             map_get(&t->ids, part[1].data, part[1].len), rank, 0};
        buf_add(&part[0], part[1].data, part[1].len);
        pair.id = map_get(&t->ids, part[0].data, part[0].len);
        if (pair.left < 0 || pair.right < 0 || pair.id < 0)
            die_misused("%s: merge %d needs \"%s\" and its parts in the vocabulary", who, rank + 1,
                        part[0].data);
        pairs_put(&t->merges, pair);
    }
    buf_release(&part[0]);
    buf_release(&part[1]);
}

/* An option of the model that would change the ids: absent, null, false, 0 or "" is fine. */
static void refuse(struct json model, const char *key, const char *who)
{
    struct json v;
    double x = 1;
    int yes = 1;
    size_t len;

    if (!json_get(model, key, &v) || json_type(v) == JSON_NULL)
        return;
    if (json_string(v, &len) && !len)
        return;
    if (!json_real(v, &x) && x == 0)
        return;
    if (!json_bool(v, &yes) && !yes)
        return;
    die_misused("%s: the model's \"%s\" is not supported", who, key);
}

int tok_flag(struct json v, const char *key, const char *who)
{
    struct json x;
    int yes = 0;

    if (json_get(v, key, &x) && json_type(x) != JSON_NULL && json_bool(x, &yes))
        die_misused("%s: \"%s\" is neither true nor false", who, key);
    return yes;
}

static void read_model(struct tok *t, struct json root, const char *who)
{
    struct json model, v;
    const char *type = "BPE", *unk;
    size_t len;

    if (!json_get(root, "model", &model) || json_type(model) != JSON_OBJECT)
        die_misused("%s: there is no \"model\": not a tokenizer.json", who);
    refuse_twice(model, who);
    if (json_get(model, "type", &v))
        type = json_string(v, &len);
    if (!type || strcmp(type, "BPE"))
        die_misused("%s: the model is %s; only BPE is supported", who, type ? type : "unnamed");
    refuse(model, "dropout", who);
    refuse(model, "continuing_subword_prefix", who);
    refuse(model, "end_of_word_suffix", who);
    t->byte_fallback = tok_flag(model, "byte_fallback", who);
    t->fuse_unk = tok_flag(model, "fuse_unk", who);
    t->ignore_merges = tok_flag(model, "ignore_merges", who);
    read_vocab(t, model, who);
    read_merges(t, model, who);
    if (!json_get(model, "unk_token", &v) || json_type(v) == JSON_NULL)
        return;
    if (!(unk = json_string(v, &len)))
        die_misused("%s: the model's \"unk_token\" is no string", who);
    if ((t->unk = map_get(&t->ids, unk, len)) < 0)
        die_misused("%s: the model's \"unk_token\" is \"%s\", which is not in \"vocab\"", who, unk);
}

static void bytes_init(struct tok *t)
{
    for (int b = 0; b < 256; b++) {
        struct buf c = {0};
        char name[8];
        utf8_add(&c, byte_level_char((uint8_t)b));
        memcpy(t->byte_char[b], c.data, c.len);
        t->byte_id[b] = map_get(&t->ids, c.data, c.len);
        snprintf(name, sizeof name, "<0x%02X>", b);
        t->fallback[b] = map_get(&t->ids, name, 6);
        buf_release(&c);
    }
}

/* What the file does not say is known by name. */
static int64_t first_of(const struct tok *t, const char *const *names, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (tok_id(t, names[i]) >= 0)
            return tok_id(t, names[i]);
    return -1;
}

struct tok *tok_parse(const char *json, size_t len, const char *who)
{
    static const char *const bos[] = {"<|bos|>", "<s>", "<bos>", "<|begin_of_text|>",
                                      "<｜begin▁of▁sentence｜>"};
    static const char *const eos[] = {"<|eos|>",         "</s>",          "<eos>",
                                      "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>"};
    struct tok *t = xcalloc(1, sizeof *t);
    struct json_doc *doc = json_doc_new();
    struct json root, v;
    const char *why, *version;
    size_t n;

    if (json_parse(doc, json, len, &root, &why))
        die_misused("%s: not a tokenizer.json: %s", who, why);
    if (json_type(root) != JSON_OBJECT)
        die_misused("%s: not a tokenizer.json: no object", who);
    refuse_twice(root, who);
    if (json_get(root, "version", &v) &&
        (!(version = json_string(v, &n)) || strcmp(version, "1.0")))
        die_misused("%s: \"version\" is not \"1.0\"", who);
    buf_add(&t->json, json, len);
    hash_hex(t->hash, hash_xxh3(json, len));
    t->unk = -1;
    t->bos = t->eos = t->bos_token = -1;
    read_model(t, root, who);
    bytes_init(t);
    tok_read_added(t, root, who);
    tok_read_steps(t, root, who);
    tok_index_added(t, who);
    for (int b = 0; b < 256 && t->byte_level && t->byte_fallback; b++)
        if (t->byte_id[b] < 0)
            die_misused("%s: byte_fallback beside ByteLevel is not supported where a byte has no "
                        "token",
                        who);
    if (t->bos < 0)
        t->bos = first_of(t, bos, ARRAY_LEN(bos));
    if (t->eos < 0)
        t->eos = first_of(t, eos, ARRAY_LEN(eos));
    json_doc_free(doc);
    return t;
}
