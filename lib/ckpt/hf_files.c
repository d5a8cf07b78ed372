/* hf_files.c -- which files of a Hugging Face folder hold its weights: model.safetensors or,
 * without it, those that model.safetensors.index.json names.  Others may lie beside them. */
#include "ckpt_priv.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const char single[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

static int has(const char *path, const char *name)
{
    char *full = path_join(path, name);
    int there = path_exists(full);
    free(full);
    return there;
}

int hf_is(const char *path)
{
    return has(path, single) || has(path, index_name);
}

void hf_index_each(const char *path, void (*use)(void *arg, const char *tensor, const char *file),
                   void *arg)
{
    if (has(path, single) || !has(path, index_name))
        return;
    char *name = path_join(path, index_name);
    struct json_doc *doc = json_doc_new();
    struct buf text = read_file(name);
    struct json root, map;
    struct json_iter i;
    size_t len;
    const char *why = NULL;
    if (json_parse(doc, text.data, text.len, &root, &why))
        die_damaged("%s: %s", name, why);
    if (json_type(root) != JSON_OBJECT || !json_get(root, "weight_map", &map) ||
        json_type(map) != JSON_OBJECT)
        die_damaged("%s: \"weight_map\" is missing or no object", name);
    for (json_iter_init(&i, map); json_iter_next(&i);) {
        const char *file = json_string(i.value, &len);
        if (!file)
            die_damaged("%s: the file of \"%s\" is no string", name, i.key);
        use(arg, i.key, file);
    }
    buf_release(&text);
    json_doc_free(doc);
    free(name);
}

struct names {
    const char *path;
    char **name;
    int64_t n;
};

static void name_add(void *arg, const char *tensor, const char *file)
{
    struct names *x = arg;
    for (int64_t i = 0; i < x->n; i++)
        if (!strcmp(x->name[i], file))
            return;
    if (!file[strspn(file, ".")] || strchr(file, '/'))
        die_damaged("%s: %s: \"%s\" is no file name", x->path, index_name, file);
    if (!has(x->path, file))
        die_damaged("%s/%s: missing", x->path, file);
    x->name = xrealloc(x->name, (size_t)(x->n + 1) * sizeof *x->name);
    x->name[x->n++] = xstrdup(file);
}

/* Says which weights there are instead, the first by name. */
static _Noreturn void none_refuse(const char *path)
{
    static const char *const ends[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf"};
    char *first = NULL;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        for (int64_t i = 0; i < ARRAY_LEN(ends); i++) {
            const char *end = strrchr(e->d_name, '.');
            if (end && !strcmp(end, ends[i]) && (!first || strcmp(e->d_name, first) < 0)) {
                free(first);
                first = xstrdup(e->d_name);
            }
        }
    if (first)
        die_damaged("%s: neither %s nor %s; there is %s, which %s", path, single, index_name, first,
                    has(path, first) ? "is not read" : "leads nowhere");
    die_damaged("%s: neither %s nor %s", path, single, index_name);
}

char **hf_files(const char *path, int64_t *n)
{
    struct names x = {.path = path};
    if (has(path, single))
        name_add(&x, NULL, single);
    else if (has(path, index_name))
        hf_index_each(path, name_add, &x);
    else
        none_refuse(path);
    if (!x.n)
        die_damaged("%s: %s names no files", path, index_name);
    *n = x.n;
    return x.name;
}
