/* tok_steps.c -- the steps in a tokenizer.json: what normalises, cuts, decodes and surrounds a
 * text.
 *
 * Each kind of step is a table from its name in the file to a function that reads it.  What is in
 * no table ends the tool by name: a step left out would give other ids, silently.  Truncation and
 * padding are settings of batches and not read. */

#include "text/tok.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct reader { /* what the readers of parts share */
    struct tok *t;
    const char *who;
};
struct step_kind {
    const char *name;
    void (*read)(struct reader *r, struct json v);
};

static int get_bool(struct json v, const char *key, int otherwise)
{
    struct json x;

    if (json_get(v, key, &x))
        json_bool(x, &otherwise); /* leaves it as it is when x is no boolean */
    return otherwise;
}

/* A string member; "" when it is absent or null. */
static struct buf get_string(struct json v, const char *key)
{
    struct buf b = {0};
    struct json x;
    size_t len;
    const char *s = json_get(v, key, &x) ? json_string(x, &len) : NULL;

    buf_add(&b, s ? s : "", s ? len : 0);
    return b;
}

static int64_t get_int(struct reader *r, struct json v, const char *key)
{
    struct json x;
    int64_t n;

    if (!json_get(v, key, &x) || json_int(x, &n))
        die_misused("%s: a part has no integer \"%s\"", r->who, key);
    return n;
}

/* An object of the kind {"type": ...}, or a Sequence of them, by the table. */
static void read_steps(struct reader *r, struct json v, const char *part, const char *list_key,
                       const struct step_kind *kinds, int64_t n)
{
    struct json list;
    struct json_iter i;

    if (json_type(v) == JSON_NULL)
        return;
    struct buf type = get_string(v, "type");
    if (!strcmp(type.data, "Sequence")) {
        if (!json_get(v, list_key, &list))
            die_misused("%s: a Sequence in \"%s\" has no \"%s\"", r->who, part, list_key);
        for (json_iter_init(&i, list); json_iter_next(&i);)
            read_steps(r, i.value, part, list_key, kinds, n);
        buf_release(&type);
        return;
    }
    for (int64_t k = 0; k < n; k++)
        if (!strcmp(type.data, kinds[k].name)) {
            buf_release(&type);
            kinds[k].read(r, v);
            return;
        }
    die_misused("%s: \"%s\" has the type %s, which is not supported", r->who, part, type.data);
}

static void *step_new(struct reader *r, void *steps, size_t size, int64_t *n, const char *part)
{
    if (*n == 8)
        die_misused("%s: \"%s\" has more than 8 steps", r->who, part);
    return (char *)steps + size * (size_t)(*n)++;
}
#define STEP_NEW(r, part) step_new(r, (r)->t->part, sizeof *(r)->t->part, &(r)->t->part##s, #part)

/* "pattern": {"String": ...} or {"Regex": ...} */
static struct buf get_pattern(struct reader *r, struct json v, int *is_regex)
{
    struct json pattern, x;

    *is_regex = 0;
    if (json_get(v, "pattern", &pattern)) {
        if (json_get(pattern, "String", &x))
            return get_string(pattern, "String");
        if ((*is_regex = json_get(pattern, "Regex", &x)))
            return get_string(pattern, "Regex");
    }
    die_misused("%s: a step has no \"pattern\" of String or Regex", r->who);
}

static struct buf get_literal(struct reader *r, struct json v)
{
    int is_regex;
    struct buf b = get_pattern(r, v, &is_regex);

    if (is_regex || !b.len)
        die_misused("%s: a Replace whose pattern is %s is not supported", r->who,
                    is_regex ? "a Regex" : "empty");
    return b;
}

/* ---- normalizer ---- */

static void read_form(struct reader *r, int form)
{
    struct norm_step *s = STEP_NEW(r, norm);

    s->type = NORM_UNICODE;
    s->form = UTF8PROC_STABLE | form;
}
static void read_nfc(struct reader *r, struct json v)
{
    read_form(r, UTF8PROC_COMPOSE);
}
static void read_nfd(struct reader *r, struct json v)
{
    read_form(r, UTF8PROC_DECOMPOSE);
}
static void read_nfkc(struct reader *r, struct json v)
{
    read_form(r, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}
static void read_nfkd(struct reader *r, struct json v)
{
    read_form(r, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}
static void read_prepend(struct reader *r, struct json v)
{
    struct norm_step *s = STEP_NEW(r, norm);

    s->type = NORM_PREPEND;
    s->a = get_string(v, "prepend");
}
static void read_norm_replace(struct reader *r, struct json v)
{
    struct norm_step *s = STEP_NEW(r, norm);

    s->type = NORM_REPLACE;
    s->a = get_literal(r, v);
    s->b = get_string(v, "content");
}
static const struct step_kind normalizers[] = {
    {"NFC", read_nfc},   {"NFD", read_nfd},         {"NFKC", read_nfkc},
    {"NFKD", read_nfkd}, {"Prepend", read_prepend}, {"Replace", read_norm_replace},
};

/* ---- pre_tokenizer ---- */

static void read_split(struct reader *r, struct json v)
{
    static const char *const behaviors[] = {
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext",
    };
    struct split_step *s = STEP_NEW(r, split);
    struct buf name = get_string(v, "behavior");
    int is_regex, found = 0;
    struct buf pattern = get_pattern(r, v, &is_regex);

    for (int i = 0; i < ARRAY_LEN(behaviors) && !found; i++)
        if ((found = !strcmp(name.data, behaviors[i])))
            s->behavior = (enum behavior)i;
    if (!found)
        die_misused("%s: a Split's behavior is %s, which is not supported", r->who, name.data);
    s->invert = get_bool(v, "invert", 0);
    s->regex = regex_new(pattern.data, pattern.len, !is_regex, r->who);
    buf_release(&name);
    buf_release(&pattern);
}
static void read_digits(struct reader *r, struct json v)
{
    struct split_step *s = STEP_NEW(r, split);
    const char *pattern = get_bool(v, "individual_digits", 0) ? "\\p{N}" : "\\p{N}+";

    s->regex = regex_new(pattern, strlen(pattern), 0, r->who);
}
static void read_byte_level(struct reader *r, struct json v)
{
    struct split_step *s = STEP_NEW(r, split);

    s->prefix = get_bool(v, "add_prefix_space", 1) ? PREFIX_ALWAYS : PREFIX_NEVER;
    if (get_bool(v, "use_regex", 1))
        s->regex = regex_new(regex_gpt2, strlen(regex_gpt2), 0, r->who);
    r->t->byte_level = 1;
}

/* Older files say add_prefix_space where newer ones say prepend_scheme. */
static enum prefix get_scheme(struct reader *r, struct json v)
{
    static const char *const schemes[] = {"never", "first", "always"};
    struct buf name = get_string(v, "prepend_scheme");
    int i = 0;

    if (!name.len)
        buf_str(&name, get_bool(v, "add_prefix_space", 1) ? "always" : "never");
    while (i < ARRAY_LEN(schemes) && strcmp(name.data, schemes[i]))
        i++;
    if (i == ARRAY_LEN(schemes))
        die_misused("%s: a Metaspace's prepend_scheme is %s, which is not supported", r->who,
                    name.data);
    buf_release(&name);
    return (enum prefix)i;
}
static void read_metaspace(struct reader *r, struct json v)
{
    struct split_step *s = STEP_NEW(r, split);

    s->prefix = get_scheme(r, v);
    s->space = get_string(v, "replacement");
    s->behavior = SPLIT_WITH_NEXT;
    if (!s->space.len)
        die_misused("%s: a Metaspace has no \"replacement\"", r->who);
    if (get_bool(v, "split", 1))
        s->regex = regex_new(s->space.data, s->space.len, 1, r->who);
}
static const struct step_kind pre_tokenizers[] = {
    {"Split", read_split},
    {"Digits", read_digits},
    {"ByteLevel", read_byte_level},
    {"Metaspace", read_metaspace},
};

/* ---- decoder ---- */

static struct decode_step *decode_new(struct reader *r, int type)
{
    struct decode_step *s = STEP_NEW(r, decode);

    s->type = type;
    return s;
}
static void read_decode_bytes(struct reader *r, struct json v)
{
    decode_new(r, DECODE_BYTE_LEVEL);
}
static void read_decode_replace(struct reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_REPLACE);

    s->a = get_literal(r, v);
    s->b = get_string(v, "content");
}
static void read_decode_fallback(struct reader *r, struct json v)
{
    decode_new(r, DECODE_BYTE_FALLBACK);
}
static void read_decode_fuse(struct reader *r, struct json v)
{
    decode_new(r, DECODE_FUSE);
}
static void read_decode_strip(struct reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_STRIP);

    s->a = get_string(v, "content");
    s->start = get_int(r, v, "start");
    s->stop = get_int(r, v, "stop");
    if (!s->a.len)
        die_misused("%s: a Strip has no \"content\"", r->who);
}
static void read_decode_metaspace(struct reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_METASPACE);

    s->a = get_string(v, "replacement");
    s->prefix = get_scheme(r, v);
    if (!s->a.len)
        die_misused("%s: a Metaspace has no \"replacement\"", r->who);
}
static const struct step_kind decoders[] = {
    {"ByteLevel", read_decode_bytes},       {"Replace", read_decode_replace},
    {"ByteFallback", read_decode_fallback}, {"Fuse", read_decode_fuse},
    {"Strip", read_decode_strip},           {"Metaspace", read_decode_metaspace},
};

/* ---- post_processor: only what it puts around a text ---- */

static void read_nothing(struct reader *r, struct json v)
{
}
static void read_template(struct reader *r, struct json v)
{
    struct json single, x;
    struct json_iter i;
    int after = 0;

    if (!json_get(v, "single", &single))
        die_misused("%s: a TemplateProcessing has no \"single\"", r->who);
    for (json_iter_init(&i, single); json_iter_next(&i);) {
        if (json_get(i.value, "Sequence", &x))
            after = 1;
        if (!json_get(i.value, "SpecialToken", &x))
            continue;
        struct buf name = get_string(x, "id");
        *(after ? &r->t->eos : &r->t->bos) = tok_id(r->t, name.data);
        buf_release(&name);
    }
}
/* "cls": [name, id] before and "sep": [name, id] after. */
static void read_cls_sep(struct reader *r, struct json v)
{
    static const char *const keys[] = {"cls", "sep"};
    int64_t *const ids[] = {&r->t->bos, &r->t->eos};
    struct json pair;
    struct json_iter i;

    for (int k = 0; k < 2; k++)
        if (json_get(v, keys[k], &pair))
            for (json_iter_init(&i, pair); json_iter_next(&i);)
                json_int(i.value, ids[k]);
}
static const struct step_kind post_processors[] = {
    {"ByteLevel", read_nothing},
    {"TemplateProcessing", read_template},
    {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
};

void tok_read_steps(struct tok *t, struct json root, const char *who)
{
    const struct {
        const char *part, *list_key;
        const struct step_kind *kinds;
        int64_t n;
    } parts[] = {
        {"normalizer", "normalizers", normalizers, ARRAY_LEN(normalizers)},
        {"pre_tokenizer", "pretokenizers", pre_tokenizers, ARRAY_LEN(pre_tokenizers)},
        {"decoder", "decoders", decoders, ARRAY_LEN(decoders)},
        {"post_processor", "processors", post_processors, ARRAY_LEN(post_processors)},
    };
    struct reader r = {t, who};
    struct json v;

    for (int64_t i = 0; i < ARRAY_LEN(parts); i++)
        if (json_get(root, parts[i].part, &v))
            read_steps(&r, v, parts[i].part, parts[i].list_key, parts[i].kinds, parts[i].n);
}
