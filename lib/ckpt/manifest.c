/* manifest.c -- what makes a folder a checkpoint: manifest.json, written last.
 *
 * Rank 0 merges what every rank says it wrote, proves that nothing is missing and nothing is there
 * twice, and only then writes the file that readers look for first. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    enum dtype type;
    const char *name;
} torch_types[] = {
    {DT_F32, "float32"}, {DT_BF16, "bfloat16"}, {DT_F16, "float16"}, {DT_F64, "float64"}};

int torch_dtype_known(enum dtype t)
{
    for (int64_t i = 0; i < ARRAY_LEN(torch_types); i++)
        if (torch_types[i].type == t)
            return 1;
    return 0;
}

const char *torch_dtype(enum dtype t)
{
    for (int64_t i = 0; i < ARRAY_LEN(torch_types); i++)
        if (torch_types[i].type == t)
            return torch_types[i].name;
    die("no weights are of type %s", dtype_name(t));
}

struct index {
    struct buf map;
    int64_t bytes;
};

struct index *index_new(void)
{
    return xcalloc(1, sizeof(struct index));
}

void index_free(struct index *x)
{
    buf_release(&x->map);
    free(x);
}

void index_add(struct index *x, const char *tensor, const char *file, int64_t bytes)
{
    buf_str(&x->map, x->map.len ? ",\n    " : "\n    ");
    json_quote(&x->map, tensor, strlen(tensor));
    buf_str(&x->map, ": ");
    json_quote(&x->map, file, strlen(file));
    x->bytes += bytes;
}

static void file_write(const char *dir, const char *name, const struct buf *text)
{
    char *path = path_join(dir, name);
    write_file(path, text->data, text->len);
    free(path);
}

void index_write(struct index *x, const char *dir)
{
    struct buf text = {0};
    buf_printf(&text, "{\n  \"metadata\": {\"total_size\": %lld},\n  \"weight_map\": {%s\n  }\n}\n",
               (long long)x->bytes, x->map.data ? x->map.data : "");
    file_write(dir, "model.safetensors.index.json", &text);
    buf_release(&text);
    index_free(x);
}

/* Only where every model tensor is one slice: the index cannot name two files for a tensor. */
static void whole_index_write(const struct table *t, const char *dir)
{
    struct index *x = index_new();
    int whole = 1;
    for (int64_t i = 0; i < t->slices; i++) {
        const struct slice *s = &t->slice[i];
        if (strcmp(s->set, "model"))
            continue;
        whole &= table_run(t, i) == i + 1;
        index_add(x, s->name, t->file[s->file].name, s->r.rows * s->r.cols * dtype_size(s->type));
    }
    if (whole)
        index_write(x, dir);
    else
        index_free(x);
}

static void part_merge(struct table *t, struct json_doc *doc, const char *part, const char *dir)
{
    struct json root;
    const char *why;
    if (json_parse(doc, part, strlen(part), &root, &why))
        die("%s: a rank's part of the manifest: %s", dir, why);
    char *fault = table_parse(t, root);
    if (fault)
        die("%s: a rank's part of the manifest: %s", dir, fault);
}

/* Beside the tensors, what a reader acts on: a model with another tokenizer, or with other tags,
 * says nothing of use and shows no fault. */
static const char *const read_files[] = {"config.json", "tokenizer.json", "tags.json"};

static void file_hash(const char *path, char hex[17])
{
    struct buf text = read_file(path);
    hash_hex(hex, hash_xxh3(text.data, text.len));
    buf_release(&text);
}

static void hashes_print(const char *dir, struct buf *out)
{
    buf_str(out, "\"hashes\":{");
    for (int64_t i = 0, n = 0; i < ARRAY_LEN(read_files); i++) {
        char *path = path_join(dir, read_files[i]), hex[17];
        if (path_exists(path)) {
            file_hash(path, hex);
            buf_printf(out, "%s\"%s\":\"%s\"", n++ ? "," : "", read_files[i], hex);
        }
        free(path);
    }
    buf_str(out, "}");
}

char *hashes_fault(const char *dir, struct json root)
{
    struct json list, v;
    size_t n;
    if (!json_get(root, "hashes", &list))
        return NULL;
    for (int64_t i = 0; i < ARRAY_LEN(read_files); i++) {
        const char *said = json_get(list, read_files[i], &v) ? json_string(v, &n) : NULL;
        char *path = path_join(dir, read_files[i]), *fault = NULL, hex[17];
        int there = path_exists(path);
        if (there)
            file_hash(path, hex);
        if (there && !said)
            fault = xasprintf("%s: not in manifest.json", path);
        else if (said && !there)
            fault = xasprintf("%s: missing", path);
        else if (said && strcmp(said, hex))
            fault = xasprintf("%s: not the one that belongs to the model: its hash is %s, the "
                              "manifest says %s",
                              path, hex, said);
        free(path);
        if (fault)
            return fault;
    }
    return NULL;
}

/* The manifest ends with its own hash: of its bytes, with these 16 digits read as 0. */
static const char seal_open[] = ",\n\"xxh3\":\"", seal_close[] = "\"}\n";
enum { SEAL_OPEN = sizeof seal_open - 1, SEAL_CLOSE = sizeof seal_close - 1 };

static void seal_hash(const struct buf *text, char hex[17])
{
    struct hash_stream *h = hash_stream_new();
    hash_stream_add(h, text->data, text->len - SEAL_CLOSE - 16);
    hash_stream_add(h, "0000000000000000", 16);
    hash_stream_add(h, seal_close, SEAL_CLOSE);
    hash_hex(hex, hash_stream_value(h));
    hash_stream_free(h);
}

static void seal(struct buf *text)
{
    char hex[17];
    buf_printf(text, "%s%016d%s", seal_open, 0, seal_close);
    seal_hash(text, hex);
    memcpy(text->data + text->len - SEAL_CLOSE - 16, hex, 16);
}

const char *seal_fault(const struct buf *text, struct json root)
{
    struct json v;
    size_t n;
    char hex[17];
    if (!json_get(root, "xxh3", &v))
        return NULL;
    const char *said = json_string(v, &n), *end = text->data + text->len;
    if (!said || n != 16 || memcmp(end - SEAL_CLOSE, seal_close, SEAL_CLOSE) ||
        memcmp(end - SEAL_CLOSE - 16 - SEAL_OPEN, seal_open, SEAL_OPEN))
        return "its own hash is not its last member";
    seal_hash(text, hex);
    return strcmp(hex, said) ? "damaged: its own hash is another" : NULL;
}

void ckpt_manifest_write(const char *dir, char *const *parts, int n, const char *state,
                         const struct config *c, enum dtype model_type)
{
    struct table t = {0};
    struct json_doc *doc = json_doc_new();
    for (int i = 0; i < n; i++)
        part_merge(&t, doc, parts[i], dir);
    json_doc_free(doc);
    char *fault = table_prove(&t);
    if (fault)
        die("%s: %s", dir, fault);

    struct buf text = {0};
    config_write(c, &text, torch_dtype(model_type));
    file_write(dir, "config.json", &text);
    whole_index_write(&t, dir);

    buf_reset(&text);
    buf_str(&text, "{\"schema\":\"moeutils.ckpt\",\"version\":1,\n\"state\":");
    buf_str(&text, state);
    buf_str(&text, ",\n");
    table_print(&t, &text);
    buf_str(&text, ",\n");
    hashes_print(dir, &text);
    seal(&text);
    file_write(dir, "manifest.json", &text);
    fsync_dir(dir);
    buf_release(&text);
    table_release(&t);
}
