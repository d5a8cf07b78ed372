/* table_json.c -- the list of slices, read from JSON and printed as JSON.
 *
 * What one rank says it wrote, the manifest merged from all ranks and what a reader looks things up
 * in are the same list in the same form, so there is one reader and one printer. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

/* ---- from JSON ---- */

static int member(struct json object, const char *key, enum json_type type, struct json *out)
{
    return json_get(object, key, out) && json_type(*out) == type;
}

/* A member that is an array of one or two counts; returns how many, or 0. */
static int dims_parse(struct json object, const char *key, int64_t out[2])
{
    struct json v;
    if (!member(object, key, JSON_ARRAY, &v) || json_count(v) < 1 || json_count(v) > 2)
        return 0;
    struct json_iter i;
    int n = 0;
    for (json_iter_init(&i, v); json_iter_next(&i); n++)
        if (json_int(i.value, &out[n]) || out[n] < 0 || out[n] > TABLE_NUMBER_MAX)
            return 0;
    return n;
}

/* Files lie in the checkpoint's folder or in its optim/, whatever a manifest from elsewhere says.
 */
static int file_name_sound(const char *name, size_t len)
{
    const char *base = strncmp(name, "optim/", 6) ? name : name + 6;
    return *base && *base != '.' && !strchr(base, '/') && strlen(name) == len;
}

static int64_t file_find(const struct table *t, int64_t from, const char *name)
{
    for (int64_t i = from; i < t->files; i++)
        if (!strcmp(t->file[i].name, name))
            return i;
    return -1;
}

/* files: where this document's files begin in the table. */
static int slice_parse(struct table *t, int64_t files, const struct slice *whole, int ndim,
                       struct json v)
{
    struct json file, tensor, hash;
    int64_t offset[2] = {0, 0}, shape[2] = {1, 1};
    size_t file_len, tensor_len, hash_len;
    if (json_type(v) != JSON_OBJECT || !member(v, "file", JSON_STRING, &file) ||
        !member(v, "tensor", JSON_STRING, &tensor) || !member(v, "xxh3", JSON_STRING, &hash) ||
        dims_parse(v, "offset", offset) != ndim || dims_parse(v, "shape", shape) != ndim)
        return -1;
    int64_t at = file_find(t, files, json_string(file, &file_len));
    const char *name = json_string(tensor, &tensor_len), *hex = json_string(hash, &hash_len);
    if (at < 0 || strlen(name) != tensor_len || hash_len != 16 || strlen(hex) != 16)
        return -1;
    if (ndim == 1)
        shape[1] = 1;
    struct slice *s = table_add(t, whole->set, whole->name);
    s->rows = whole->rows;
    s->cols = whole->cols;
    s->type = whole->type;
    s->r = (struct rect){offset[0], offset[1], shape[0], shape[1]};
    s->file = at;
    s->tensor = xstrdup(name);
    memcpy(s->hash, hex, 17);
    return 0;
}

static char *set_parse(struct table *t, int64_t files, const char *set, struct json tensors)
{
    struct json_iter i;
    for (json_iter_init(&i, tensors); json_iter_next(&i);) {
        struct json type, slices;
        int64_t shape[2] = {0, 0};
        size_t len;
        char *name = xstrndup(i.key, i.key_len);
        struct slice whole = {.set = (char *)set, .name = name};
        int ndim = json_type(i.value) == JSON_OBJECT ? dims_parse(i.value, "shape", shape) : 0;
        int sound = ndim && strlen(name) == i.key_len &&
                    member(i.value, "dtype", JSON_STRING, &type) &&
                    member(i.value, "slices", JSON_ARRAY, &slices) && json_count(slices) > 0;
        if (sound) {
            const char *s = json_string(type, &len);
            int known = dtype_parse(s, len);
            whole.rows = shape[0];
            whole.cols = shape[1];
            whole.type = (enum dtype)known;
            sound = known >= 0 && torch_dtype_known(whole.type) && (ndim == 1 || shape[1] > 0);
        }
        struct json_iter j;
        if (sound)
            for (json_iter_init(&j, slices); sound && json_iter_next(&j);)
                sound = !slice_parse(t, files, &whole, ndim, j.value);
        char *why = sound ? NULL : xasprintf("malformed entry of %s tensor \"%s\"", set, name);
        free(name);
        if (why)
            return why;
    }
    return NULL;
}

char *table_parse(struct table *t, struct json root)
{
    struct json files, model, optimizer;
    const char *twice;
    if (json_type(root) != JSON_OBJECT)
        return xasprintf("not a JSON object");
    if ((twice = json_duplicate_key(root)))
        return xasprintf("\"%s\" stands twice in one object", twice);
    if (!member(root, "files", JSON_OBJECT, &files) ||
        !member(root, "model", JSON_OBJECT, &model) ||
        !member(root, "optimizer", JSON_OBJECT, &optimizer))
        return xasprintf("\"files\", \"model\" or \"optimizer\" is missing or no object");
    struct json_iter i;
    int64_t first = t->files, bytes;
    for (json_iter_init(&i, files); json_iter_next(&i);) {
        if (!file_name_sound(i.key, i.key_len) || json_int(i.value, &bytes) || bytes < 0)
            return xasprintf("malformed entry of file \"%s\"", i.key);
        table_file(t, i.key, bytes);
    }
    char *why = set_parse(t, first, "model", model);
    for (json_iter_init(&i, optimizer); !why && json_iter_next(&i);) {
        if (json_type(i.value) != JSON_OBJECT || !strcmp(i.key, "model") || !i.key_len)
            return xasprintf("malformed optimizer set \"%s\"", i.key);
        why = set_parse(t, first, i.key, i.value);
    }
    table_sort(t);
    return why;
}

/* ---- to JSON ---- */

void slice_dims_print(const struct slice *s, enum slice_dims which, struct buf *out)
{
    const int64_t dims[][2] = {[SLICE_GLOBAL] = {s->rows, s->cols},
                               [SLICE_OFFSET] = {s->r.row, s->r.col},
                               [SLICE_SHAPE] = {s->r.rows, s->r.cols}};
    buf_printf(out, "[%lld", (long long)dims[which][0]);
    if (s->cols)
        buf_printf(out, ",%lld", (long long)dims[which][1]);
    buf_char(out, ']');
}

static void quote(struct buf *out, const char *s)
{
    json_quote(out, s, strlen(s));
}

/* Slices lo..hi, of one set: {"NAME":{...},...}, a line a tensor. */
static void set_print(const struct table *t, int64_t lo, int64_t hi, struct buf *out)
{
    buf_char(out, '{');
    for (int64_t i = lo, j; i < hi; i = j) {
        const struct slice *s = &t->slice[i];
        j = table_run(t, i);
        buf_str(out, i == lo ? "\n" : ",\n");
        quote(out, s->name);
        buf_str(out, ":{\"shape\":");
        slice_dims_print(s, SLICE_GLOBAL, out);
        buf_printf(out, ",\"dtype\":\"%s\",\"slices\":[", dtype_name(s->type));
        for (; s < t->slice + j; s++) {
            buf_str(out, s == t->slice + i ? "{\"file\":" : ",{\"file\":");
            quote(out, t->file[s->file].name);
            buf_str(out, ",\"tensor\":");
            quote(out, s->tensor);
            buf_str(out, ",\"offset\":");
            slice_dims_print(s, SLICE_OFFSET, out);
            buf_str(out, ",\"shape\":");
            slice_dims_print(s, SLICE_SHAPE, out);
            buf_printf(out, ",\"xxh3\":\"%s\"}", s->hash);
        }
        buf_str(out, "]}");
    }
    buf_char(out, '}');
}

void table_print(const struct table *t, struct buf *out)
{
    buf_str(out, "\"files\":{");
    for (int64_t i = 0; i < t->files; i++) {
        buf_str(out, i ? ",\n" : "\n");
        quote(out, t->file[i].name);
        buf_printf(out, ":%lld", (long long)t->file[i].bytes);
    }
    struct buf model = {0}, optimizer = {0};
    for (int64_t i = 0, j; i < t->slices; i = j) {
        const char *set = t->slice[i].set;
        for (j = i; j < t->slices && !strcmp(set, t->slice[j].set);)
            j = table_run(t, j);
        if (!strcmp(set, "model")) {
            set_print(t, i, j, &model);
        } else {
            buf_str(&optimizer, optimizer.len ? ",\n" : "\n");
            quote(&optimizer, set);
            buf_char(&optimizer, ':');
            set_print(t, i, j, &optimizer);
        }
    }
    buf_printf(out, "},\n\"model\":%s,\n\"optimizer\":{%s}", model.len ? model.data : "{}",
               optimizer.len ? optimizer.data : "");
    buf_release(&model);
    buf_release(&optimizer);
}
