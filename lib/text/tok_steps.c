/* tok_steps.c -- the steps in a tokenizer.json: what normalises, cuts, decodes and surrounds a
 * text.
 *
 * Each kind of step is a table from its name in the file to a function that reads it.  What is in
 * no table ends the tool by name: a step left out would give other ids, silently.  Truncation and
 * padding are settings of batches and not read. */

#include "text/tok_steps.h"

#include <string.h>

int step_bool(struct step_reader *r, struct json v, const char *key, int otherwise)
{
    struct json x;

    if (!json_get(v, key, &x) || json_type(x) == JSON_NULL)
        return otherwise;
    return tok_flag(v, key, r->who);
}

struct buf step_string(struct step_reader *r, struct json v, const char *key)
{
    struct buf b = {0};
    struct json x;
    size_t len;
    const char *s = json_get(v, key, &x) ? json_string(x, &len) : NULL;

    if (!s)
        die_misused("%s: a step has no \"%s\", a string", r->who, key);
    buf_add(&b, s, len);
    return b;
}

int64_t step_count(struct step_reader *r, struct json v, const char *key)
{
    struct json x;
    int64_t n;

    if (!json_get(v, key, &x) || json_int(x, &n) || n < 0)
        die_misused("%s: a step has no \"%s\", a whole number", r->who, key);
    return n;
}

struct buf step_char(struct step_reader *r, struct json v, const char *key)
{
    struct buf b = step_string(r, v, key);
    const char *p = b.data;

    if (b.len)
        utf8_next(&p);
    if (!b.len || p != b.data + b.len)
        die_misused("%s: a step has no \"%s\", a character", r->who, key);
    return b;
}

void *step_new(struct step_reader *r, void *steps, size_t size, int64_t *n, const char *part)
{
    if (*n == 8)
        die_misused("%s: \"%s\" has more than 8 steps", r->who, part);
    return (char *)steps + size * (size_t)(*n)++;
}

/* "pattern": {"String": ...} or {"Regex": ...} */
struct buf step_pattern(struct step_reader *r, struct json v, int *is_regex)
{
    struct json pattern, x;

    *is_regex = 0;
    if (json_get(v, "pattern", &pattern)) {
        if (json_get(pattern, "String", &x))
            return step_string(r, pattern, "String");
        if ((*is_regex = json_get(pattern, "Regex", &x)))
            return step_string(r, pattern, "Regex");
    }
    die_misused("%s: a step has no \"pattern\" of String or Regex", r->who);
}

struct buf step_literal(struct step_reader *r, struct json v)
{
    int is_regex;
    struct buf b = step_pattern(r, v, &is_regex);

    if (is_regex || !b.len)
        die_misused("%s: a Replace whose pattern is %s is not supported", r->who,
                    is_regex ? "a Regex" : "empty");
    return b;
}

/* Older files say add_prefix_space where newer ones say prepend_scheme. */
enum prefix step_scheme(struct step_reader *r, struct json v)
{
    static const char *const schemes[] = {"never", "first", "always"};
    int i = 0, prefix = step_bool(r, v, "add_prefix_space", 1);
    struct buf name = {0};
    struct json x;

    if (json_get(v, "prepend_scheme", &x))
        name = step_string(r, v, "prepend_scheme");
    else
        buf_str(&name, prefix ? "always" : "never");
    while (i < ARRAY_LEN(schemes) && strcmp(name.data, schemes[i]))
        i++;
    if (i == ARRAY_LEN(schemes) || (!prefix && i != PREFIX_NEVER))
        die_misused("%s: a Metaspace's prepend_scheme is %s, which is not supported%s", r->who,
                    name.data, prefix ? "" : " with add_prefix_space false");
    buf_release(&name);
    return (enum prefix)i;
}

/* An object of the kind {"type": ...}, or a Sequence of them, by the table. */
static void read_steps(struct step_reader *r, struct json v, const char *part, const char *list_key,
                       const struct step_kind *kinds)
{
    struct json list;
    struct json_iter i;

    struct buf type = step_string(r, v, "type");
    if (!strcmp(type.data, "Sequence")) {
        if (!json_get(v, list_key, &list) || json_type(list) != JSON_ARRAY)
            die_misused("%s: a Sequence in \"%s\" has no \"%s\"", r->who, part, list_key);
        for (json_iter_init(&i, list); json_iter_next(&i);)
            read_steps(r, i.value, part, list_key, kinds);
        buf_release(&type);
        return;
    }
    for (int64_t k = 0; kinds[k].name; k++)
        if (!strcmp(type.data, kinds[k].name)) {
            buf_release(&type);
            kinds[k].read(r, v);
            return;
        }
    die_misused("%s: \"%s\" has the type %s, which is not supported", r->who, part, type.data);
}

void tok_read_steps(struct tok *t, struct json root, const char *who)
{
    static const struct {
        const char *part, *list_key;
        const struct step_kind *kinds;
    } parts[] = {
        {"normalizer", "normalizers", step_normalizers},
        {"pre_tokenizer", "pretokenizers", step_pre_tokenizers},
        {"decoder", "decoders", step_decoders},
        {"post_processor", "processors", step_post_processors},
    };
    struct step_reader r = {t, who};
    struct json v;

    for (int64_t i = 0; i < ARRAY_LEN(parts); i++)
        if (json_get(root, parts[i].part, &v) && json_type(v) != JSON_NULL) {
            const char *twice = json_duplicate_key(v);
            if (twice)
                die_misused("%s: a step in \"%s\" has two \"%s\"", who, parts[i].part, twice);
            read_steps(&r, v, parts[i].part, parts[i].list_key, parts[i].kinds);
            t->has_decoder |= parts[i].kinds == step_decoders;
        }
}
