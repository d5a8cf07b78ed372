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

/* Files that the manifest does not name could be taken for part of the model. */
static void files_check(const struct ckpt *k)
{
    const struct table *t = ckpt_table(k);
    int64_t n;
    char **name = shard_list(ckpt_path(k), &n);
    for (int64_t i = 0; i < n; i++) {
        int64_t f = 0;
        while (f < t->files && strcmp(t->file[f].name, name[i]))
            f++;
        if (f == t->files)
            die_damaged("%s/%s: not in manifest.json", ckpt_path(k), name[i]);
        int64_t slices = 0;
        for (int64_t s = 0; s < t->slices; s++)
            slices += t->slice[s].file == f;
        char *path = path_join(ckpt_path(k), name[i]);
        struct shard_file *file = shard_open(path);
        if (shard_header(file)->tensors != slices)
            die_damaged("%s: %lld tensors, manifest.json has %lld slices in it", path,
                        (long long)shard_header(file)->tensors, (long long)slices);
        shard_close(file);
        free(path);
        free(name[i]);
    }
    free(name);
}

void ckpt_check(struct ckpt *k)
{
    const struct table *t = ckpt_table(k);
    struct config c;
    struct buf data = {0};
    ckpt_config(k, &c);
    config_release(&c);
    files_check(k);
    for (int64_t i = 0; i < t->slices; i++) {
        const struct slice *s = &t->slice[i];
        struct param p = {.name = s->name, .rows = s->rows, .cols = s->cols};
        buf_reset(&data);
        buf_reserve(&data, (size_t)(s->r.rows * s->r.cols * dtype_size(s->type)));
        ckpt_get(k, s->set, &p, s->r, data.data, s->type);
    }
    buf_release(&data);
}
