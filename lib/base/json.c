/* json.c -- reading a parsed document.
 *
 * A value is an index on simdjson's tape (json_tape.h); nothing is copied out and every question is
 * a few loads. */
#include "base.h"
#include "json_tape.h"

#include <stdlib.h>
#include <string.h>

int json_parse(struct json_doc *d, const char *text, size_t len, struct json *root,
               const char **why)
{
    if (json_tape_parse(d, text, len, why))
        return -1;
    *root = (struct json){d, 1};
    return 0;
}

static uint64_t word(struct json v)
{
    return ((const struct json_doc *)v.doc)->tape[v.at];
}

static int tag(struct json v)
{
    return (int)(word(v) >> 56);
}

static struct json sibling(struct json v, size_t steps)
{
    return (struct json){v.doc, v.at + steps};
}

/* The tape index behind v. */
static size_t behind(struct json v)
{
    switch (tag(v)) {
    case '[':
    case '{':
        return (uint32_t)word(v);
    case 'l':
    case 'u':
    case 'd':
        return v.at + 2;
    default:
        return v.at + 1;
    }
}

static const char *text_of(struct json v, size_t *len)
{
    const uint8_t *s = ((const struct json_doc *)v.doc)->strings + (word(v) & 0xFFFFFFFFFFFFFFull);
    uint32_t n;
    memcpy(&n, s, 4);
    *len = n;
    return (const char *)s + 4;
}

enum json_type json_type(struct json v)
{
    switch (tag(v)) {
    case 't':
    case 'f':
        return JSON_BOOL;
    case 'l':
    case 'u':
        return JSON_INT;
    case 'd':
        return JSON_REAL;
    case '"':
        return JSON_STRING;
    case '[':
        return JSON_ARRAY;
    case '{':
        return JSON_OBJECT;
    default:
        return JSON_NULL;
    }
}

void json_iter_init(struct json_iter *i, struct json container)
{
    int t = tag(container), is_container = t == '[' || t == '{';
    *i = (struct json_iter){.value = container};
    i->state[0] = container.at + 1;                                   /* the next element or key */
    i->state[1] = is_container ? behind(container) - 1 : i->state[0]; /* the closing bracket */
    i->state[2] = t == '{';
}

int json_iter_next(struct json_iter *i)
{
    if (i->state[0] >= i->state[1])
        return 0;
    i->value.at = i->state[0];
    if (i->state[2]) {
        i->key = text_of(i->value, &i->key_len);
        i->value.at++;
    }
    i->state[0] = behind(i->value);
    return 1;
}

int json_get(struct json object, const char *key, struct json *out)
{
    size_t len = strlen(key);
    struct json_iter i;
    if (tag(object) != '{')
        return 0;
    for (json_iter_init(&i, object); json_iter_next(&i);)
        if (i.key_len == len && !memcmp(i.key, key, len)) {
            *out = i.value;
            return 1;
        }
    return 0;
}

const char *json_string(struct json v, size_t *len)
{
    return tag(v) == '"' ? text_of(v, len) : NULL;
}

int json_int(struct json v, int64_t *out)
{
    if (tag(v) != 'l') /* 'u' begins where int64_t ends */
        return -1;
    *out = (int64_t)word(sibling(v, 1));
    return 0;
}

int json_real(struct json v, double *out)
{
    int t = tag(v);
    uint64_t bits;
    if (t != 'l' && t != 'u' && t != 'd')
        return -1;
    bits = word(sibling(v, 1));
    if (t == 'd')
        memcpy(out, &bits, 8);
    else
        *out = t == 'l' ? (double)(int64_t)bits : (double)bits;
    return 0;
}

int json_bool(struct json v, int *out)
{
    int t = tag(v);
    if (t != 't' && t != 'f')
        return -1;
    *out = t == 't';
    return 0;
}

int64_t json_count(struct json v)
{
    static const uint32_t saturated = 0xFFFFFF;
    int t = tag(v);
    if (t != '[' && t != '{')
        return 0;
    int64_t n = (int64_t)(word(v) >> 32 & saturated);
    if (n == saturated) {
        struct json_iter i;
        n = 0;
        for (json_iter_init(&i, v); json_iter_next(&i);)
            n++;
    }
    return n;
}

struct key {
    const char *s;
    size_t len;
};

static int key_order(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return memcmp(x->s, y->s, x->len);
}

/* Sorted rather than compared pair by pair: a vocabulary has a hundred thousand keys. */
static const char *duplicate_in(struct json object)
{
    struct key few[64], *keys = few;
    int64_t count = json_count(object), n = 0;
    const char *found = NULL;
    struct json_iter i;
    if (count < 2)
        return NULL;
    if (count > ARRAY_LEN(few))
        keys = xmalloc((size_t)count * sizeof(*keys));
    for (json_iter_init(&i, object); json_iter_next(&i);)
        keys[n++] = (struct key){i.key, i.key_len};
    qsort(keys, (size_t)n, sizeof(*keys), key_order);
    for (int64_t k = 1; k < n && !found; k++)
        if (!key_order(&keys[k - 1], &keys[k]))
            found = keys[k].s;
    if (keys != few)
        free(keys);
    return found;
}

const char *json_duplicate_key(struct json v)
{
    const char *found = NULL;
    size_t end = behind(v);
    /* One walk along the tape meets every object below v; a key is a string, thus one word. */
    while (v.at < end && !found) {
        int t = tag(v);
        if (t == '{')
            found = duplicate_in(v);
        v.at = t == '{' || t == '[' ? v.at + 1 : behind(v);
    }
    return found;
}
