/* header.c -- reads a header, strictly.
 *
 * Two bodies of rules.  header_parse() holds any safetensors file to what the format says, and
 * where readers of the format disagree about a header (duplicate keys, foreign fields, odd numbers)
 * it is refused, since two programs would see two files.  header_profile() holds files that claim
 * the profile of formats/shard.md to the rest of it: order, alignment, checksums. */
#include "shard/shard_priv.h"

#include <stdlib.h>
#include <string.h>

/* Outside of strings a header is made of these; what else JSON allows has no place in it. */
static char *tokens_check(const char *text, int64_t n)
{
    int in_string = 0;
    for (int64_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = 0;
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '-') {
            return xasprintf("header has a negative number at byte %lld", (long long)i);
        } else if (c == '.' || c == 'e' || c == 'E' || c == '+') {
            return xasprintf("header has a fraction or an exponent at byte %lld", (long long)i);
        } else if (!strchr("{}[]:,0123456789 \t\r\n", c)) {
            return xasprintf("header has a null, true or false at byte %lld", (long long)i);
        }
    }
    return NULL;
}

static char *name_check(const char *what, const char *s, size_t len, size_t max)
{
    if (len > max)
        return xasprintf("a %s of %zu bytes is longer than %zu", what, len, max);
    if (!len)
        return xasprintf("a %s is empty", what);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return xasprintf("a %s has a control character", what);
    return NULL;
}

static char *metadata_parse(struct blob *b, struct json object)
{
    if (json_type(object) != JSON_OBJECT)
        return xstrdup("__metadata__ is not an object");
    struct json_iter i;
    for (json_iter_init(&i, object); json_iter_next(&i);) {
        /* "xxh3." and a tensor's name of full length must fit. */
        char *why = name_check("metadata key", i.key, i.key_len, SHARD_NAME_MAX + 5);
        if (why)
            return why;
        size_t len;
        const char *value = json_string(i.value, &len);
        if (!value)
            return xasprintf("metadata \"%s\" is not a string", i.key);
        if (memchr(value, 0, len))
            return xasprintf("metadata \"%s\" has a NUL", i.key);
        blob_meta(b, i.key, value);
    }
    return NULL;
}

static char *shape_parse(struct tensor *t, struct json shape)
{
    if (json_type(shape) != JSON_ARRAY)
        return xasprintf("tensor \"%s\": shape is not a list", t->name);
    if (json_count(shape) > SHARD_DIMS)
        return xasprintf("tensor \"%s\" has more than %d dimensions", t->name, SHARD_DIMS);
    struct json_iter i;
    int empty = 0, overflow = 0;
    int64_t bytes = dtype_size(t->type);
    for (json_iter_init(&i, shape); json_iter_next(&i); t->ndim++) {
        int64_t d;
        if (json_int(i.value, &d) || d < 0)
            return xasprintf("tensor \"%s\": shape is not a list of counts", t->name);
        t->shape[t->ndim] = d;
        empty |= d == 0;
        overflow |= __builtin_mul_overflow(bytes, d, &bytes);
    }
    if (overflow && !empty)
        return xasprintf("tensor \"%s\": its size overflows", t->name);
    t->bytes = empty ? 0 : bytes;
    return NULL;
}

static char *offsets_parse(struct tensor *t, struct json pair)
{
    int64_t at[2];
    struct json_iter i;
    int n = 0;
    if (json_type(pair) != JSON_ARRAY || json_count(pair) != 2)
        return xasprintf("tensor \"%s\": data_offsets is not a list of two", t->name);
    for (json_iter_init(&i, pair); json_iter_next(&i); n++)
        if (json_int(i.value, &at[n]) || at[n] < 0)
            return xasprintf("tensor \"%s\": data_offsets are not counts", t->name);
    if (at[1] < at[0])
        return xasprintf("tensor \"%s\": data_offsets run backwards", t->name);
    if (at[1] - at[0] != t->bytes)
        return xasprintf("tensor \"%s\": %lld bytes by its shape, %lld by its offsets", t->name,
                         (long long)t->bytes, (long long)(at[1] - at[0]));
    t->at = at[0];
    return NULL;
}

static char *tensor_parse(struct blob *b, const char *name, size_t name_len, struct json entry)
{
    char *why = name_check("tensor name", name, name_len, SHARD_NAME_MAX);
    if (why)
        return why;
    if (json_type(entry) != JSON_OBJECT)
        return xasprintf("tensor \"%s\" is not an object", name);

    struct json dtype, shape, offsets;
    if (!json_get(entry, "dtype", &dtype) || !json_get(entry, "shape", &shape) ||
        !json_get(entry, "data_offsets", &offsets))
        return xasprintf("tensor \"%s\" lacks dtype, shape or data_offsets", name);
    if (json_count(entry) != 3)
        return xasprintf("tensor \"%s\" has fields besides dtype, shape and data_offsets", name);

    size_t len;
    const char *type = json_string(dtype, &len);
    int found = type ? dtype_parse(type, len) : -1;
    if (found < 0)
        return xasprintf("tensor \"%s\": unknown dtype %s", name, type ? type : "(no string)");

    if ((b->tensors & (b->tensors - 1)) == 0)
        b->tensor = xrealloc(b->tensor, (size_t)MAX(8, 2 * b->tensors) * sizeof *b->tensor);
    struct tensor *t = &b->tensor[b->tensors++];
    *t = (struct tensor){.name = xstrdup(name), .type = (enum dtype)found};
    why = shape_parse(t, shape);
    return why ? why : offsets_parse(t, offsets);
}

static int by_place(const void *pa, const void *pb)
{
    const struct tensor *a = *(struct tensor *const *)pa, *b = *(struct tensor *const *)pb;
    if (a->at != b->at)
        return (a->at > b->at) - (a->at < b->at);
    return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Every byte of the data belongs to exactly one tensor.  An empty tensor may stand between two
 * others, not inside one. */
static char *coverage_check(const struct blob *b)
{
    struct tensor **order = xmalloc((size_t)(b->tensors + 1) * sizeof *order);
    for (int64_t i = 0; i < b->tensors; i++)
        order[i] = &b->tensor[i];
    if (b->tensors)
        qsort(order, (size_t)b->tensors, sizeof *order, by_place);
    char *why = NULL;
    int64_t end = 0;
    for (int64_t i = 0; i < b->tensors && !why; i++) {
        const struct tensor *t = order[i];
        if (t->at > end)
            why = xasprintf("hole: bytes %lld to %lld before tensor \"%s\" belong to no tensor",
                            (long long)end, (long long)t->at, t->name);
        else if (t->at < end)
            why = xasprintf("overlap: tensor \"%s\" begins at byte %lld, inside \"%s\"", t->name,
                            (long long)t->at, order[i - 1]->name);
        end = t->at + t->bytes;
    }
    free(order);
    return why;
}

char *header_parse(struct blob *b, const char *text, int64_t n)
{
    if (n < 2 || text[0] != '{')
        return xstrdup("not safetensors: the header does not begin with {");
    int64_t end = n;
    while (end > 1 && text[end - 1] == ' ')
        end--;
    if (text[end - 1] != '}')
        return xstrdup("the header does not end with } and spaces");

    struct json_doc *doc = json_doc_new();
    struct json root;
    const char *sentence, *twice;
    char *why = NULL;
    if (json_parse(doc, text, (size_t)n, &root, &sentence))
        why = xasprintf("header is not JSON: %s", sentence);
    else if ((twice = json_duplicate_key(root)))
        why = xasprintf("header has the key \"%s\" twice", twice);
    else
        why = tokens_check(text, n);

    struct json_iter i;
    if (!why)
        for (json_iter_init(&i, root); !why && json_iter_next(&i);) {
            if (i.key_len == 12 && !memcmp(i.key, "__metadata__", 12))
                why = metadata_parse(b, i.value);
            else
                why = tensor_parse(b, i.key, i.key_len, i.value);
        }
    if (!why)
        why = coverage_check(b);
    json_doc_free(doc);
    return why;
}

int64_t header_data_bytes(const struct blob *b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < b->tensors; i++)
        n += b->tensor[i].bytes;
    return n;
}

int header_claims_profile(const struct blob *b)
{
    for (int64_t i = 0; i < b->keys; i++)
        if (!strncmp(b->key[i], "xxh3.", 5) ||
            (!strcmp(b->key[i], "schema") && !strncmp(b->value[i], "moeutils.", 9)))
            return 1;
    return 0;
}

static int is_hash(const char *s)
{
    return strlen(s) == 16 && strspn(s, "0123456789abcdef") == 16;
}

char *header_profile(const struct blob *b, const char *text, int64_t n)
{
    int in_stream = blob_get(b, "blob") != NULL;
    int64_t align = in_stream ? SHARD_STREAM_ALIGN : SHARD_FILE_ALIGN;
    const char *own = blob_get(b, "xxh3.header");
    int64_t at = header_hash_at(text, n);
    if (!own || !is_hash(own) || at < 0)
        return xstrdup("the header has no checksum xxh3.header");
    char hex[17];
    hash_hex(hex, header_hash(text, n, at));
    if (strcmp(own, hex))
        return xasprintf("header is damaged: it hashes to %s, not %s", hex, own);
    if ((8 + n) % align)
        return xasprintf("data begin at byte %lld, not at a multiple of %lld", (long long)(8 + n),
                         (long long)align);
    if (in_stream && (n > SHARD_HEADER_MAX_STREAM || b->tensors > SHARD_STREAM_TENSORS_MAX))
        return xasprintf("a header of %lld bytes and %lld tensors is too large for a stream",
                         (long long)n, (long long)b->tensors);

    int64_t end = 0, hashes = 0;
    for (int64_t i = 0; i < b->tensors; i++) { /* in their order by now */
        const struct tensor *t = &b->tensor[i];
        char key[SHARD_NAME_MAX + 8];
        snprintf(key, sizeof key, "xxh3.%s", t->name);
        const char *hash = blob_get(b, key);
        if (!strcmp(t->name, "header"))
            return xstrdup("a tensor has the reserved name \"header\"");
        if (!hash || !is_hash(hash))
            return xasprintf("tensor \"%s\" has no checksum", t->name);
        if (t->at != end)
            return xasprintf("tensor \"%s\" is not in its place: wide elements first, then by name",
                             t->name);
        end += t->bytes;
    }
    for (int64_t i = 0; i < b->keys; i++)
        hashes += !strncmp(b->key[i], "xxh3.", 5);
    if (hashes != b->tensors + 1)
        return xstrdup("a checksum names no tensor");
    return NULL;
}

char *tensor_verify(const struct blob *b, const struct tensor *t, uint64_t hash)
{
    char key[SHARD_NAME_MAX + 8], hex[17];
    snprintf(key, sizeof key, "xxh3.%s", t->name);
    const char *wanted = blob_get(b, key);
    hash_hex(hex, hash);
    if (!wanted || !strcmp(wanted, hex))
        return NULL;
    return xasprintf("tensor \"%s\" is damaged: it hashes to %s, not %s", t->name, hex, wanted);
}

char *meta_count(const struct blob *b, const char *key, int64_t *out)
{
    const char *s = blob_get(b, key);
    size_t n = s ? strlen(s) : 0;
    if (!n || n > 18 || strspn(s, "0123456789") != n || (n > 1 && *s == '0'))
        return xasprintf("metadata \"%s\" is %s, not a count", key, s ? s : "absent");
    *out = strtoll(s, NULL, 10);
    return NULL;
}
