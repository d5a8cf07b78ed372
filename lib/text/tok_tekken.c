/* tok_tekken.c -- Mistral's tekken.json: tokens in base64 in the order of their ranks, with the
 * pattern; special tokens have the ids before them. */

#include "text/tok_file.h"

#include <string.h>

static const char *const usual[] = {"<unk>",
                                    "<s>",
                                    "</s>",
                                    "[INST]",
                                    "[/INST]",
                                    "[AVAILABLE_TOOLS]",
                                    "[/AVAILABLE_TOOLS]",
                                    "[TOOL_RESULTS]",
                                    "[/TOOL_RESULTS]",
                                    "[TOOL_CALLS]",
                                    "[IMG]",
                                    "<pad>",
                                    "[IMG_BREAK]",
                                    "[IMG_END]",
                                    "[PREFIX]",
                                    "[MIDDLE]",
                                    "[SUFFIX]",
                                    "[SYSTEM_PROMPT]",
                                    "[/SYSTEM_PROMPT]",
                                    "[TOOL_CONTENT]"};

static int64_t number(struct json config, const char *key, const char *path)
{
    struct json v;
    int64_t n;

    if (!json_get(config, key, &v) || json_int(v, &n) || n < 0)
        die_misused("%s: the tekken file has no \"%s\"", path, key);
    return n;
}

/* Those of the file, or the usual ones; the rest of n are numbered. */
static void add_specials(struct tok_file *f, struct json root, int64_t n, const char *path)
{
    struct json list, v;
    struct json_iter i;
    int64_t id;
    size_t len;
    int listed = json_get(root, "special_tokens", &list) && json_type(list) == JSON_ARRAY;

    for (int64_t k = 0; !listed && k < MIN(n, ARRAY_LEN(usual)); k++)
        tok_file_token(f, k, usual[k], strlen(usual[k]), path);
    if (listed)
        for (json_iter_init(&i, list); json_iter_next(&i);) {
            const char *name = json_get(i.value, "token_str", &v) ? json_string(v, &len) : NULL;
            if (!name || !json_get(i.value, "rank", &v) || json_int(v, &id) || id >= n)
                die_misused("%s: a special token has no \"token_str\" or no \"rank\" below %lld",
                            path, (long long)n);
            tok_file_token(f, id, name, len, path);
        }
    for (int64_t k = 0; k < n; k++) {
        char name[40];
        snprintf(name, sizeof name, "<SPECIAL_%lld>", (long long)k);
        if (!f->name[k].data)
            tok_file_token(f, k, name, strlen(name), path);
        tok_file_added(f, k)->special = 1;
        if (!strcmp(f->name[k].data, "<s>"))
            f->bos = k;
    }
}

int tok_from_tekken(const struct buf *bytes, const char *path, struct buf *json)
{
    struct json_doc *doc;
    struct json root, config, vocab, v;
    struct json_iter i;
    struct tok_ranked ranked;
    struct buf token = {0};
    const char *why, *pattern;
    size_t len;
    int64_t rank = 0;

    if (!bytes->len || bytes->data[0] != '{')
        return 0;
    doc = json_doc_new();
    if (json_parse(doc, bytes->data, bytes->len, &root, &why) ||
        !json_get(root, "config", &config) || !json_get(config, "pattern", &v) ||
        !(pattern = json_string(v, &len)) || !json_get(root, "vocab", &vocab) ||
        json_type(vocab) != JSON_ARRAY) {
        json_doc_free(doc);
        return 0;
    }
    int64_t specials = number(config, "default_num_special_tokens", path);
    int64_t size = number(config, "default_vocab_size", path);
    tok_ranked_init(&ranked);
    for (json_iter_init(&i, vocab); specials + rank < size && json_iter_next(&i); rank++) {
        const char *s = json_get(i.value, "token_bytes", &v) ? json_string(v, &len) : NULL;
        buf_reset(&token);
        if (!s || base64_decode(&token, s, len) || number(i.value, "rank", path) != rank)
            die_misused("%s: token %lld of \"vocab\" has no \"token_bytes\" in base64, or another "
                        "\"rank\"",
                        path, (long long)rank);
        tok_ranked_add(&ranked, specials + rank, &token, path);
    }
    if (!rank)
        die_misused("%s: the tekken file has no tokens", path);
    tok_ranked_finish(&ranked, path);
    add_specials(&ranked.file, root, specials, path);
    tok_file_config(&ranked.file, path);
    tok_file_byte_level(&ranked.file, pattern);
    tok_file_write(&ranked.file, json);
    tok_ranked_release(&ranked);
    buf_release(&token);
    json_doc_free(doc);
    return 1;
}
