/* side.c -- the files that travel with a model in either direction, and what a folder of one may
 * have in it. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

/* What belongs to a model beside its weights and config.json; whatever of it is there is copied.
 * tags.json is this project's: what the tags of the training data stood for. */
static const char *const side_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "tags.json",
};

static int is_part(const char *name)
{
    static const char *const own[] = {"manifest.json", "config.json", "optim",
                                      "model.safetensors.index.json"};
    size_t n = strlen(name), end = strlen(".safetensors");
    if (!strncmp(name, "model", 5) && n > end && !strcmp(name + n - end, ".safetensors"))
        return 1;
    for (int64_t i = 0; i < ARRAY_LEN(own); i++)
        if (!strcmp(name, own[i]))
            return 1;
    for (int64_t i = 0; i < ARRAY_LEN(side_files); i++)
        if (!strcmp(name, side_files[i]))
            return 1;
    return 0;
}

void ckpt_spare(const char *path)
{
    dir_spare(path, "checkpoint or Hugging Face folder", is_part);
}

void side_files_copy(const char *from, const char *to)
{
    for (int64_t i = 0; i < ARRAY_LEN(side_files); i++) {
        char *src = path_join(from, side_files[i]), *dst = path_join(to, side_files[i]);
        if (path_exists(src)) {
            struct buf bytes = read_file(src);
            write_file(dst, bytes.data, bytes.len);
            buf_release(&bytes);
        }
        free(src);
        free(dst);
    }
}

/* The greatest id of an object of ids by token, or of an array of {"id": ...}; -1 without any. */
static int64_t id_max(struct json list)
{
    struct json_iter i;
    int64_t max = -1, id;
    if (json_type(list) != JSON_OBJECT && json_type(list) != JSON_ARRAY)
        return max;
    for (json_iter_init(&i, list); json_iter_next(&i);) {
        struct json v = i.value;
        if (json_type(list) == JSON_ARRAY &&
            (json_type(v) != JSON_OBJECT || !json_get(v, "id", &v)))
            continue;
        if (!json_int(v, &id))
            max = MAX(max, id);
    }
    return max;
}

void side_files_check(const char *dir, const struct config *c)
{
    char *name = path_join(dir, "tokenizer.json");
    if (path_exists(name)) {
        struct json_doc *doc = json_doc_new();
        struct buf text = read_file(name);
        struct json root, model, list;
        const char *why;
        int64_t max = -1;
        if (json_parse(doc, text.data, text.len, &root, &why))
            die_damaged("%s: %s", name, why);
        if (json_type(root) != JSON_OBJECT)
            die_damaged("%s: not a JSON object", name);
        if (json_get(root, "model", &model) && json_type(model) == JSON_OBJECT &&
            json_get(model, "vocab", &list))
            max = id_max(list);
        if (json_get(root, "added_tokens", &list))
            max = MAX(max, id_max(list));
        if (max >= c->vocab)
            die_damaged("%s: gives out token %lld; config.json's \"vocab_size\" is %lld, so the "
                        "embedding has no row for it",
                        name, (long long)max, (long long)c->vocab);
        buf_release(&text);
        json_doc_free(doc);
    }
    free(name);
}
