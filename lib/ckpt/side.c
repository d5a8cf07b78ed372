/* side.c -- the files that travel with a model in either direction, and what a folder of one may
 * have in it. */
#include "ckpt_priv.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* What belongs to a model beside its weights and config.json; whatever of it is there is copied.
 * Code is what config.json's "auto_map" has; tags.json is this project's: what the tags of the
 * training data stood for. */
static const struct {
    const char *name, *end; /* with end: whatever begins and ends so */
} side_files[] = {
    {"tokenizer.json"},
    {"tokenizer_config.json"},
    {"generation_config.json"},
    {"special_tokens_map.json"},
    {"added_tokens.json"},
    {"tokenizer.model"},
    {"tekken.json"},
    {"vocab.json"},
    {"vocab.txt"},
    {"merges.txt"},
    {"chat_template.jinja"},
    {"chat_template.json"},
    {"tags.json"},
    {"configuration_", ".py"},
    {"modeling_", ".py"},
    {"tokenization_", ".py"},
};

static int begins_ends(const char *name, const char *begin, const char *end)
{
    size_t n = strlen(name), b = strlen(begin), e = strlen(end);
    return n >= b + e && !strncmp(name, begin, b) && !strcmp(name + n - e, end);
}

static int is_side(const char *name)
{
    for (int64_t i = 0; i < ARRAY_LEN(side_files); i++)
        if (side_files[i].end ? begins_ends(name, side_files[i].name, side_files[i].end)
                              : !strcmp(name, side_files[i].name))
            return 1;
    return 0;
}

static int is_part(const char *name)
{
    static const char *const own[] = {"manifest.json", "config.json", "optim",
                                      "model.safetensors.index.json"};
    for (int64_t i = 0; i < ARRAY_LEN(own); i++)
        if (!strcmp(name, own[i]))
            return 1;
    return is_side(name) || begins_ends(name, "model", ".safetensors");
}

void ckpt_spare(const char *path)
{
    dir_spare(path, "checkpoint or Hugging Face folder", is_part);
}

struct ckpt_side {
    struct side_file {
        char *name;
        struct buf bytes;
    } * file;
    int64_t files;
};

struct ckpt_side *ckpt_side_read(const char *folder, const char *but)
{
    struct ckpt_side *s = xcalloc(1, sizeof *s);
    struct buf left = {0};
    struct dirent **e;
    int n = scandir(folder, &e, NULL, alphasort);
    if (n < 0)
        die("open %s:", folder);
    s->file = xmalloc((size_t)n * sizeof *s->file);
    for (int i = 0; i < n; i++) {
        char *name = e[i]->d_name, *path = path_join(folder, name);
        if (is_side(name) && !(but && !strcmp(name, but)))
            s->file[s->files++] = (struct side_file){xstrdup(name), read_file(path)};
        else if (*name != '.' && !is_part(name))
            buf_printf(&left, " %s", name);
        free(path);
        free(e[i]);
    }
    if (left.len)
        say("%s: not copied:%s", folder, left.data);
    buf_release(&left);
    free(e);
    return s;
}

void ckpt_side_write(const struct ckpt_side *s, const char *folder)
{
    for (int64_t i = 0; i < s->files; i++) {
        char *path = path_join(folder, s->file[i].name);
        write_file(path, s->file[i].bytes.data, s->file[i].bytes.len);
        free(path);
    }
}

void ckpt_side_free(struct ckpt_side *s)
{
    for (int64_t i = 0; i < s->files; i++) {
        free(s->file[i].name);
        buf_release(&s->file[i].bytes);
    }
    free(s->file);
    free(s);
}

void side_files_copy(const char *from, const char *to)
{
    struct ckpt_side *s = ckpt_side_read(from, NULL);
    ckpt_side_write(s, to);
    ckpt_side_free(s);
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

static void ids_check(const char *dir, const char *file, const struct config *c)
{
    struct json_doc *doc = json_doc_new();
    struct json root, model, list;
    const char *why;
    int64_t max = -1;
    char *name = path_join(dir, file);
    if (path_exists(name)) {
        struct buf text = read_file(name);
        if (json_parse(doc, text.data, text.len, &root, &why))
            die_damaged("%s: %s", name, why);
        if (json_type(root) != JSON_OBJECT)
            die_damaged("%s: not a JSON object", name);
        if (strcmp(file, "tokenizer.json"))
            max = id_max(root);
        else if (json_get(root, "model", &model) && json_type(model) == JSON_OBJECT &&
                 json_get(model, "vocab", &list))
            max = id_max(list);
        if (json_get(root, "added_tokens", &list))
            max = MAX(max, id_max(list));
        if (max >= c->vocab)
            die_damaged("%s: gives out token %lld; config.json's \"vocab_size\" is %lld, so the "
                        "embedding has no row for it",
                        name, (long long)max, (long long)c->vocab);
        buf_release(&text);
    }
    json_doc_free(doc);
    free(name);
}

void side_files_check(const char *dir, const struct config *c)
{
    static const char *const files[] = {"tokenizer.json", "vocab.json", "added_tokens.json"};
    char *first = path_join(dir, files[0]);
    int64_t n = path_exists(first) ? 1 : ARRAY_LEN(files); /* it has what is in the others */
    for (int64_t i = 0; i < n; i++)
        ids_check(dir, files[i], c);
    free(first);
}
