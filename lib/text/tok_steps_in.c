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
    s->a = step_string(r, v, "prepend");
}
static void read_norm_replace(struct step_reader *r, struct json v)
{
    struct norm_step *s = STEP_NEW(r, norm);
    int is_regex;

    s->type = NORM_REPLACE;
    s->a = step_pattern(r, v, &is_regex);
    s->b = step_string(r, v, "content");
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

/* A step behind ByteLevel would cut the alphabet of bytes. */
static struct split_step *split_new(struct step_reader *r)
{
    if (r->t->byte_level)
        die_misused("%s: \"pre_tokenizer\" has a ByteLevel that is not the last step", r->who);
    return STEP_NEW(r, split);
}
static void read_split(struct step_reader *r, struct json v)
{
    static const char *const behaviors[] = {
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    struct split_step *s = split_new(r);
    struct buf name = step_string(r, v, "behavior");
    int is_regex, found = 0;
    struct buf pattern = step_pattern(r, v, &is_regex);

    for (int i = 0; i < ARRAY_LEN(behaviors) && !found; i++)
        if ((found = !strcmp(name.data, behaviors[i])))
            s->behavior = (enum behavior)i;
    if (!found)
        die_misused("%s: a Split's behavior is %s, which is not supported", r->who, name.data);
    s->invert = step_bool(r, v, "invert", 0);
    s->regex = regex_new(pattern.data, pattern.len, !is_regex, r->who);
    buf_release(&name);
    buf_release(&pattern);
}
static void read_digits(struct step_reader *r, struct json v)
{
    /* By the tables of Unicode 17, as the library. */
    static const char numbers[] = "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]+";
    struct split_step *s = split_new(r);
    int single = step_bool(r, v, "individual_digits", 0);

    s->regex = regex_new(numbers, sizeof numbers - 1 - (size_t)single, 0, r->who);
}
static void read_byte_level(struct step_reader *r, struct json v)
{
    struct split_step *s = split_new(r);

    s->prefix = step_bool(r, v, "add_prefix_space", 1) ? PREFIX_ALWAYS : PREFIX_NEVER;
    if (step_bool(r, v, "use_regex", 1))
        s->regex = regex_new(regex_gpt2, strlen(regex_gpt2), 0, r->who);
    r->t->byte_level = 1;
}
/* Which piece is the first one is the library's own reckoning, plain only where nothing has been
 * put before the text or has changed it. */
static void check_first(const struct step_reader *r)
{
    int64_t changes = r->t->norms;

    for (int64_t i = 0; i + 1 < r->t->splits; i++)
        changes += r->t->split[i].prefix != PREFIX_NEVER;
    if (changes)
        die_misused("%s: a Metaspace's prepend_scheme is first, which is not supported behind a "
                    "normalizer or another prefix",
                    r->who);
}
static void read_metaspace(struct step_reader *r, struct json v)
{
    struct split_step *s = split_new(r);

    s->prefix = step_scheme(r, v);
    s->space = step_char(r, v, "replacement");
    s->behavior = SPLIT_WITH_NEXT;
    if (s->prefix == PREFIX_FIRST)
        check_first(r);
    if (step_bool(r, v, "split", 1))
        s->regex = regex_new(s->space.data, s->space.len, 1, r->who);
}
const struct step_kind step_pre_tokenizers[] = {
    {"Split", read_split},
    {"Digits", read_digits},
    {"ByteLevel", read_byte_level},
    {"Metaspace", read_metaspace},
    {NULL, NULL},
};
