/* tok_steps_in.c -- the steps on the way in: normalizer and pre_tokenizer. */

#include "text/tok_steps.h"

#include <string.h>
#include <utf8proc.h>

/* ---- normalizer ---- */

static void read_form(struct step_reader *r, int form)
{
    struct norm_step *s = STEP_NEW(r, norm);

    s->type = NORM_UNICODE;
    s->form = UTF8PROC_STABLE | form;
    s->plain = norm_plain(s->form);
}
static void read_nfc(struct step_reader *r, struct json v)
{
    read_form(r, UTF8PROC_COMPOSE);
}
static void read_nfd(struct step_reader *r, struct json v)
{
    read_form(r, UTF8PROC_DECOMPOSE);
}
static void read_nfkc(struct step_reader *r, struct json v)
{
    read_form(r, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}
static void read_nfkd(struct step_reader *r, struct json v)
{
    read_form(r, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}
static void read_prepend(struct step_reader *r, struct json v)
{
    struct norm_step *s = STEP_NEW(r, norm);

    s->type = NORM_PREPEND;
    s->a = step_string(v, "prepend");
}
static void read_norm_replace(struct step_reader *r, struct json v)
{
    struct norm_step *s = STEP_NEW(r, norm);
    int is_regex;

    s->type = NORM_REPLACE;
    s->a = step_pattern(r, v, &is_regex);
    s->b = step_string(v, "content");
    if (!s->a.len)
        die_misused("%s: a Replace whose pattern is empty is not supported", r->who);
    if (is_regex)
        s->regex = regex_new(s->a.data, s->a.len, 0, r->who);
}
const struct step_kind step_normalizers[] = {
    {"NFC", read_nfc},   {"NFD", read_nfd},         {"NFKC", read_nfkc},
    {"NFKD", read_nfkd}, {"Prepend", read_prepend}, {"Replace", read_norm_replace},
    {NULL, NULL},
};

/* ---- pre_tokenizer ---- */

static void read_split(struct step_reader *r, struct json v)
{
    static const char *const behaviors[] = {
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext",
    };
    struct split_step *s = STEP_NEW(r, split);
    struct buf name = step_string(v, "behavior");
    int is_regex, found = 0;
    struct buf pattern = step_pattern(r, v, &is_regex);

    for (int i = 0; i < ARRAY_LEN(behaviors) && !found; i++)
        if ((found = !strcmp(name.data, behaviors[i])))
            s->behavior = (enum behavior)i;
    if (!found)
        die_misused("%s: a Split's behavior is %s, which is not supported", r->who, name.data);
    s->invert = step_bool(v, "invert", 0);
    s->regex = regex_new(pattern.data, pattern.len, !is_regex, r->who);
    buf_release(&name);
    buf_release(&pattern);
}
static void read_digits(struct step_reader *r, struct json v)
{
    struct split_step *s = STEP_NEW(r, split);
    const char *pattern = step_bool(v, "individual_digits", 0) ? "\\p{N}" : "\\p{N}+";

    s->regex = regex_new(pattern, strlen(pattern), 0, r->who);
}
static void read_byte_level(struct step_reader *r, struct json v)
{
    struct split_step *s = STEP_NEW(r, split);

    s->prefix = step_bool(v, "add_prefix_space", 1) ? PREFIX_ALWAYS : PREFIX_NEVER;
    if (step_bool(v, "use_regex", 1))
        s->regex = regex_new(regex_gpt2, strlen(regex_gpt2), 0, r->who);
    r->t->byte_level = 1;
    r->bytes_at = r->t->splits;
}

static void read_metaspace(struct step_reader *r, struct json v)
{
    struct split_step *s = STEP_NEW(r, split);

    s->prefix = step_scheme(r, v);
    s->space = step_string(v, "replacement");
    s->behavior = SPLIT_WITH_NEXT;
    if (!s->space.len)
        die_misused("%s: a Metaspace has no \"replacement\"", r->who);
    if (step_bool(v, "split", 1))
        s->regex = regex_new(s->space.data, s->space.len, 1, r->who);
}
const struct step_kind step_pre_tokenizers[] = {
    {"Split", read_split},
    {"Digits", read_digits},
    {"ByteLevel", read_byte_level},
    {"Metaspace", read_metaspace},
    {NULL, NULL},
};
