/* tok_open.c -- a tokenizer from a path: which file it is, of which format, and what the
 * tokenizer_config.json beside it says of the tokens that begin and end a text. */

#include "text/tok_file.h"

#include <stdlib.h>
#include <string.h>

/* In a folder, the first of these that is there. */
static const char *const inside[] = {"tokenizer.json",  "last/tokenizer.json", "tekken.json",
                                     "tokenizer.model", "vocab.json",          "encoder.json",
                                     "qwen.tiktoken"};

static int (*const readers[])(const struct buf *bytes, const char *path, struct buf *json) = {
    tok_from_vocab, tok_from_tiktoken, tok_from_tekken, tok_from_sentencepiece};

char *tok_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *beside = xasprintf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);

    if (strcmp(path, "-") && path_exists(beside))
        return beside;
    free(beside);
    return NULL;
}

/* The id of the token that a member names, as a string or as {"content": ...}; -1: none. */
static int64_t named(const struct tok *t, struct json config, const char *key, const char *path)
{
    struct json v;
    size_t len;

    if (!json_get(config, key, &v) || json_type(v) == JSON_NULL)
        return -1;
    if (json_type(v) == JSON_OBJECT)
        json_get(v, "content", &v);
    const char *name = json_string(v, &len);
    if (!name)
        die_misused("%s: \"%s\" names no token", path, key);
    if (tok_id(t, name) < 0)
        die_misused("%s: \"%s\" is \"%s\", which the tokenizer lacks", path, key, name);
    return tok_id(t, name);
}

/* Tokens that are added here alone would be text to us. */
static void check_added(const struct tok *t, struct json config, const char *path)
{
    struct json list, content;
    struct json_iter i;
    size_t len;
    char *end;

    if (!json_get(config, "added_tokens_decoder", &list) || json_type(list) != JSON_OBJECT)
        return;
    for (json_iter_init(&i, list); json_iter_next(&i);) {
        int64_t id = strtoll(i.key, &end, 10);
        const char *name =
            json_get(i.value, "content", &content) ? json_string(content, &len) : NULL;
        const struct buf *token = !*end && id >= 0 && id < t->size ? &t->token[id] : NULL;
        if (token && name && token->len == len && !memcmp(token->data, name, len))
            continue;
        if (!name || tok_id(t, name) != id)
            die_misused(
                "%s: added token \"%s\" has the id %s, which the tokenizer does not give it", path,
                name ? name : "", i.key);
    }
}

/* add_eos_token is not asked: a document always ends in eos, where there is one. */
static void read_config(struct tok *t, const char *path)
{
    struct json_doc *doc = json_doc_new();
    struct json root, v;
    const char *why;

    t->config = read_file(path);
    if (json_parse(doc, t->config.data, t->config.len, &root, &why))
        die_misused("%s: %s", path, why);
    if (json_type(root) != JSON_OBJECT)
        die_misused("%s: no object", path);
    check_added(t, root, path);
    int64_t eos = named(t, root, "eos_token", path);
    if (eos >= 0)
        t->eos = eos;
    t->bos_token = named(t, root, "bos_token", path);
    if (json_get(root, "add_bos_token", &v) && json_type(v) != JSON_NULL)
        t->bos = tok_flag(root, "add_bos_token", path) ? t->bos_token : -1;
    else if (json_get(root, "bos_token", &v) && json_type(v) == JSON_NULL)
        t->bos = -1;
    json_doc_free(doc);
}

struct tok *tok_open(const char *path)
{
    char *file = xstrdup(path), *config, *program;
    struct buf bytes = {0}, json = {0};
    int64_t known = 0;

    for (int64_t i = 0; path_is_dir(path) && i < ARRAY_LEN(inside); i++) {
        free(file);
        file = path_join(path, inside[i]);
        if (path_exists(file))
            break;
        if (i + 1 == ARRAY_LEN(inside))
            die_misused("%s: there is no tokenizer.json in it, nor another tokenizer", path);
    }
    struct source *s = source_open((char *const[]){file}, 1);
    source_entry(s, &bytes);
    while (known < ARRAY_LEN(readers) && !readers[known](&bytes, file, &json))
        known++;
    const struct buf *read = known < ARRAY_LEN(readers) ? &json : &bytes;
    struct tok *t = tok_parse(read->data, read->len, file);
    if ((config = tok_beside(file, "tokenizer_config.json")))
        read_config(t, config);
    if ((program = tok_beside(file, "chat_template.jinja")))
        t->chat_template = read_file(program);
    source_close(s);
    buf_release(&bytes);
    buf_release(&json);
    free(file);
    free(config);
    free(program);
    return t;
}
