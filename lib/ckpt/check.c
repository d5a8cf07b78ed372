/* check.c -- a checkpoint read whole, only to know that it is sound. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

int ckpt_is(const char *folder)
{
    char *name = path_join(folder, "manifest.json");
    struct json_doc *doc = json_doc_new();
    struct json root, v;
    const char *why, *schema = NULL;
    size_t n;
    int is = 0;
    if (path_exists(name)) {
        struct buf text = read_file(name);
        if (!json_parse(doc, text.data, text.len, &root, &why) && json_type(root) == JSON_OBJECT &&
            json_get(root, "schema", &v))
            schema = json_string(v, &n);
        is = schema && !strcmp(schema, "moeutils.ckpt");
        buf_release(&text);
    }
    json_doc_free(doc);
    free(name);
    return is;
}

/* Whether the file's header has the slice as the manifest has it; shard_check() holds the bytes to
 * the header. */
static int slice_agrees(const struct blob *b, const struct slice *s)
{
    const struct tensor *t = blob_find(b, s->tensor);
    char *key = xasprintf("xxh3.%s", s->tensor);
    const char *hash = blob_get(b, key);
    int agrees = t && hash && t->type == s->type && t->ndim == (s->cols ? 2 : 1) &&
                 t->shape[0] == s->r.rows && (!s->cols || t->shape[1] == s->r.cols) &&
                 !strcmp(hash, s->hash);
    free(key);
    return agrees;
}

/* name: of a shard in the checkpoint's folder.  What the manifest does not name could be taken for
 * part of the model. */
static void file_check(const struct ckpt *k, const char *name)
{
    const struct table *t = ckpt_table(k);
    char *path = path_join(ckpt_path(k), name);
    int64_t f = 0, slices = 0;
    while (f < t->files && strcmp(t->file[f].name, name))
        f++;
    if (f == t->files)
        die_damaged("%s: not in manifest.json", path);
    struct shard_file *file = shard_open(path);
    const struct blob *b = shard_header(file);
    for (int64_t i = 0; i < t->slices; i++) {
        const struct slice *s = &t->slice[i];
        if (s->file != f)
            continue;
        slices++;
        if (!slice_agrees(b, s))
            die_damaged("%s: tensor \"%s\" is not the one that manifest.json describes", path,
                        s->tensor);
    }
    if (b->tensors != slices)
        die_damaged("%s: %lld tensors, manifest.json has %lld slices in it", path,
                    (long long)b->tensors, (long long)slices);
    shard_close(file);
    shard_check(path);
    free(path);
}

void ckpt_check(struct ckpt *k)
{
    struct config c;
    int64_t n;
    ckpt_config(k, &c);
    config_release(&c);
    char **name = shard_list(ckpt_path(k), &n);
    for (int64_t i = 0; i < n; i++) {
        file_check(k, name[i]);
        free(name[i]);
    }
    free(name);
}
