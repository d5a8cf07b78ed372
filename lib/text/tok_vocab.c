/* tok_vocab.c -- GPT-2's pair of files: a vocabulary (vocab.json, encoder.json) and its merges
 * (merges.txt, vocab.bpe).
 *
 * What the pair does not say stands in tokenizer_config.json: the pattern follows from the class,
 * added tokens are listed.  A token that is no byte and that no merge makes is special. */

#include "text/tok_file.h"
#include "text/tok_known.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *vocab, *merges;
} pairs[] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};

static const struct {
    const char *name;
    int64_t size; /* of the vocabulary, where that tells */
    const char *pattern, *normalizer;
} classes[] = {{"GPT2Tokenizer", 0, NULL, NULL},
               {"Qwen2Tokenizer", 151643, tok_qwen_pattern, tok_nfc}};

static size_t without(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && !strcmp(s + n - m, end) ? n - m : n;
}

/* The two files' paths; 0 when path is neither. */
static int find_pair(const char *path, char *file[2])
{
    for (int64_t i = 0; i < ARRAY_LEN(pairs); i++) {
        const char *const name[2] = {pairs[i].vocab, pairs[i].merges};
        for (int k = 0; k < 2; k++) {
            size_t n = without(path, name[k]);
            if (!path[n])
                continue;
            for (int j = 0; j < 2; j++)
                file[j] = xasprintf("%.*s%s", (int)n, path, name[j]);
            return 1;
        }
    }
    return 0;
}

static void read_vocab(struct tok_file *f, struct map *ids, const char *path)
{
    struct buf text = read_file(path);
    struct json_doc *doc = json_doc_new();
    struct json root;
    struct json_iter i;
    const char *why;
    int64_t id;

    if (json_parse(doc, text.data, text.len, &root, &why))
        die_misused("%s: no vocabulary: %s", path, why);
    if (json_type(root) != JSON_OBJECT)
        die_misused("%s: no vocabulary: no object", path);
    for (json_iter_init(&i, root); json_iter_next(&i);) {
        if (json_int(i.value, &id))
            die_misused("%s: token \"%s\" has no integer id", path, i.key);
        tok_file_token(f, id, i.key, i.key_len, path);
        *map_put(ids, i.key, i.key_len) = (int32_t)id;
    }
    json_doc_free(doc);
    buf_release(&text);
}

/* Reads the merges and marks what they make. */
static void read_merges(struct tok_file *f, const struct map *ids, uint8_t *made, const char *path)
{
    struct source *s = source_open((char *const[]){(char *)path}, 1);
    struct buf both = {0};
    char *line;
    size_t len;

    while (source_line(s, &line, &len)) {
        long long number = source_line_number(s);
        char *blank = memchr(line, ' ', len);
        if (!len || (number == 1 && !strncmp(line, "#version", 8)))
            continue;
        if (!blank)
            die_misused("%s:%lld: no pair of tokens", path, number);
        buf_reset(&both);
        buf_add(&both, line, (size_t)(blank - line));
        buf_str(&both, blank + 1);
        int32_t left = map_get(ids, line, (size_t)(blank - line));
        int32_t right = map_get(ids, blank + 1, len - (size_t)(blank + 1 - line));
        int32_t id = map_get(ids, both.data, both.len);
        if (left < 0 || right < 0 || id < 0)
            die_misused("%s:%lld: \"%s\" or a part of it is not in the vocabulary", path, number,
                        line);
        made[id] = 1;
        ids_add(&f->merge, left);
        ids_add(&f->merge, right);
    }
    source_close(s);
    buf_release(&both);
}

static void mark_bytes(const struct map *ids, uint8_t *made)
{
    for (int b = 0; b < 256; b++) {
        struct buf c = {0};
        utf8_add(&c, byte_level_char((uint8_t)b));
        int32_t id = map_get(ids, c.data, c.len);
        if (id >= 0)
            made[id] = 1;
        buf_release(&c);
    }
}

/* Which class the files are of: by the configuration, else by the size. */
static int64_t class_of(struct json config, int has_config, int64_t size, const char *path)
{
    struct json v;
    size_t len;
    const char *name =
        has_config && json_get(config, "tokenizer_class", &v) ? json_string(v, &len) : NULL;

    for (int64_t i = ARRAY_LEN(classes) - 1; i >= 0; i--) {
        if (name ? !strncmp(name, classes[i].name, without(name, "Fast")) &&
                       without(name, "Fast") == strlen(classes[i].name)
                 : !classes[i].size || classes[i].size == size)
            return i;
    }
    die_misused("%s: a vocabulary of the class %s is not supported without a tokenizer.json", path,
                name);
}

int tok_from_vocab(const struct buf *bytes, const char *path, struct buf *json)
{
    char *file[2], *config_path;
    struct tok_file f;
    struct map ids = {0};
    struct json_doc *doc;
    struct json config, v;
    struct buf text = {0};
    const char *why;
    int prefix;

    if (!find_pair(path, file))
        return 0;
    tok_file_init(&f);
    read_vocab(&f, &ids, file[0]);
    int64_t size = f.size;
    uint8_t *made = xcalloc((size_t)MAX(size, 1), 1);
    read_merges(&f, &ids, made, file[1]);
    mark_bytes(&ids, made);

    doc = json_doc_new();
    config_path = tok_beside(path, "tokenizer_config.json");
    if (config_path) {
        text = read_file(config_path);
        if (json_parse(doc, text.data, text.len, &config, &why))
            die_misused("%s: %s", config_path, why);
        if (json_get(config, "add_prefix_space", &v) && !json_bool(v, &prefix) && prefix)
            die_misused("%s: add_prefix_space is not supported without a tokenizer.json",
                        config_path);
    }
    int64_t class = class_of(config, config_path != NULL, size, path);
    for (int64_t i = 0; i < size; i++)
        if (f.name[i].data && !made[i])
            tok_file_added(&f, i)->special = 1;
    tok_file_config(&f, path);
    if (classes[class].normalizer)
        buf_str(&f.normalizer, classes[class].normalizer);
    tok_file_byte_level(&f, classes[class].pattern);
    tok_file_write(&f, json);

    json_doc_free(doc);
    buf_release(&text);
    free(config_path);
    free(made);
    map_release(&ids);
    tok_file_release(&f);
    free(file[0]);
    free(file[1]);
    return 1;
}
