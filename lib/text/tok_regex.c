/* tok_regex.c -- pre-tokenizer patterns, run by PCRE2's just-in-time compiler.
 *
 * The patterns in tokenizer files are written for Oniguruma.  Two things would make PCRE2 cut
 * elsewhere: its \s has U+180E, and its Unicode tables may be older than those of the program the
 * ids must agree with.  So \s and the general categories are rewritten on the way in: \s to the
 * White_Space code points, a category to itself plus what Unicode 15 and 16 assigned to it.  Naming
 * a code point twice does no harm where PCRE2 already knows it. */

#include "text/tok.h"
#include "text/tok_scan.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

const char regex_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Letters, marks, digits, connectors and joiners: \w of Rust's regular expressions. */
const char regex_word[] =
    "(?!\\p{No}|[\\x{1d2c0}-\\x{1d2d3}])[\\p{L}\\p{M}\\p{N}_\\x{200c}\\x{200d}\\x{203f}\\x{2040}"
    "\\x{2054}"
    "\\x{24b6}-\\x{24e9}\\x{fe33}\\x{fe34}\\x{fe4d}-\\x{fe4f}\\x{ff3f}\\x{1f130}-\\x{1f149}"
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}]";

static const struct class
{
    const char *name;
    const char *more; /* hexadecimal, "from-to" or one code point */
} classes[] = {
    {"s", "9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"},
    {"L",
     "1c89-1c8a a7cb-a7cd a7da-a7dc 105c0-105f3 10d4a-10d65 10d6f-10d85 10ec2-10ec4 1123f-11240 "
     "11380-11389 1138b 1138e 11390-113b5 113b7 113d1 113d3 11bc0-11be0 11f02 11f04-11f10 "
     "11f12-11f33 1342f 13441-13446 13460-143fa 16100-1611d 16d40-16d6c 18cff 1b132 1b155 "
     "1df25-1df2a 1e030-1e06d 1e4d0-1e4eb 1e5d0-1e5ed 1e5f0 2b739 2ebf0-2ee5d 31350-323af"},
    {"Lu", "1c89 a7cb-a7cc a7da a7dc 10d50-10d65"},
    {"Ll", "1c8a a7cd a7db 10d70-10d85 1df25-1df2a"},
    {"Lm", "10d4e 10d6f 16d40-16d42 16d6b-16d6c 1e030-1e06d 1e4eb"},
    {"Lo", "105c0-105f3 10d4a-10d4d 10d4f 10ec2-10ec4 1123f-11240 11380-11389 1138b 1138e "
           "11390-113b5 113b7 113d1 113d3 11bc0-11be0 11f02 11f04-11f10 11f12-11f33 1342f "
           "13441-13446 13460-143fa 16100-1611d 16d43-16d6a 18cff 1b132 1b155 1e4d0-1e4ea "
           "1e5d0-1e5ed 1e5f0 2b739 2ebf0-2ee5d 31350-323af"},
    {"N", "10d40-10d49 116d0-116e3 11bf0-11bf9 11f50-11f59 16130-16139 16d70-16d79 1ccf0-1ccf9 "
          "1d2c0-1d2d3 1e4f0-1e4f9 1e5f1-1e5fa"},
    {"M",
     "897 cf3 ece 10d69-10d6d 10efc-10eff 11241 113b8-113c0 113c2 113c5 113c7-113ca 113cc-113d0 "
     "113d2 113e1-113e2 11f00-11f01 11f03 11f34-11f3a 11f3e-11f42 11f5a 13440 13447-13455 "
     "1611e-1612f 1e08f 1e4ec-1e4ef 1e5ee-1e5ef"},
    {"P", "1b4e-1b4f 1b7f 10d6e 113d4-113d5 113d7-113d8 11b00-11b09 11be1 11f43-11f4f 16d6d-16d6f "
          "1e5ff"},
    {"S",
     "2427-2429 2ffc-2fff 31e4-31e5 31ef 10d8e-10d8f 1cc00-1ccef 1cd00-1ceb3 1f6dc 1f774-1f776 "
     "1f77b-1f77f 1f7d9 1f8b2-1f8bb 1f8c0-1f8c1 1fa75-1fa77 1fa87-1fa89 1fa8f 1faad-1faaf "
     "1fabb-1fabf 1fac6 1face-1facf 1fada-1fadc 1fadf 1fae8-1fae9 1faf7-1faf8 1fbcb-1fbef"},
};

struct regex {
    tok_scan *scan; /* or NULL */
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    char *who;
    int is_twin; /* code and who are another's */
};

/* Appends the members of a class, to stand inside brackets. */
static void class_members(struct buf *out, const struct class *c)
{
    unsigned from, to;
    int used;

    if (c->name[0] != 's')
        buf_printf(out, "\\p{%s}", c->name);
    for (const char *p = c->more; sscanf(p, "%x%n", &from, &used) == 1;) {
        p += used;
        to = from;
        if (*p == '-' && sscanf(p + 1, "%x%n", &to, &used) == 1)
            p += 1 + used;
        buf_printf(out, "\\x{%x}-\\x{%x}", from, to);
    }
}

/* The class that the escape at p names, or NULL; *used is the escape's length. */
static const struct class *class_at(const char *p, size_t n, int *negated, size_t *used)
{
    for (int64_t i = 0; i < ARRAY_LEN(classes); i++) {
        const struct class *c = &classes[i];
        char escape[8];
        int is_space = c->name[0] == 's';
        for (*negated = 0; *negated < 2; ++*negated) {
            snprintf(escape, sizeof escape, is_space ? "\\%c" : "\\%c{%s}",
                     is_space ? (*negated ? 'S' : 's') : (*negated ? 'P' : 'p'), c->name);
            *used = strlen(escape);
            if (n >= *used && !memcmp(p, escape, *used))
                return c;
        }
    }
    return NULL;
}

static void rewrite(struct buf *out, const char *p, size_t n, const char *who)
{
    int in_brackets = 0, negated;
    size_t used;

    for (size_t i = 0; i < n; i += used) {
        const struct class *c = class_at(p + i, n - i, &negated, &used);
        if (!c) {
            used = p[i] == '\\' && i + 1 < n ? 2 : 1;
            if (used == 1 && p[i] == '[')
                in_brackets = 1;
            if (used == 1 && p[i] == ']')
                in_brackets = 0;
            buf_add(out, p + i, used);
            continue;
        }
        if (in_brackets && negated)
            die_misused("%s: the pattern has %.*s inside brackets, which is not supported", who,
                        (int)used, p + i);
        if (!in_brackets)
            buf_str(out, negated ? "[^" : "[");
        class_members(out, c);
        if (!in_brackets)
            buf_char(out, ']');
    }
}

/* What one match uses. */
static void scratch(struct regex *r)
{
    r->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    r->context = pcre2_match_context_create(NULL);
    r->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL);
    if (!r->match || !r->context)
        die("out of memory");
    pcre2_jit_stack_assign(r->context, NULL, r->stack);
    /* Enough for a run of some million spaces, and an end for a pattern that would never stop. */
    pcre2_set_match_limit(r->context, 50000000);
}

struct regex *regex_new(const char *pattern, size_t len, int literal, const char *who)
{
    struct regex *r = xcalloc(1, sizeof *r);
    struct buf b = {0};
    PCRE2_SIZE at;
    int error;

    if (literal)
        buf_add(&b, pattern, len);
    else
        rewrite(&b, pattern, len, who);
    r->who = xstrdup(who);
    r->scan = literal ? NULL : tok_scan_of(pattern, len);
    r->code = pcre2_compile((PCRE2_SPTR)b.data, b.len,
                            PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP), &error, &at, NULL);
    if (!r->code) {
        PCRE2_UCHAR why[256];
        pcre2_get_error_message(error, why, sizeof why);
        die_misused("%s: pattern %.*s: %s", who, (int)len, pattern, (char *)why);
    }
    /* Without the compiler the interpreter runs; the answers are the same. */
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    scratch(r);
    buf_release(&b);
    return r;
}

struct regex *regex_twin(const struct regex *r)
{
    struct regex *twin = r ? xmemdup(r, sizeof *r) : NULL;

    if (!r)
        return NULL;
    twin->is_twin = 1;
    scratch(twin);
    return twin;
}

int regex_next(struct regex *r, const char *s, size_t n, size_t from, size_t *start, size_t *end)
{
    if (r->scan)
        return r->scan((const unsigned char *)s, n, from, start, end);
    while (from < n) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(r->match);
        int found =
            pcre2_match(r->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, r->match, r->context);
        if (found == PCRE2_ERROR_NOMATCH)
            return 0;
        if (found < 0) {
            PCRE2_UCHAR why[256];
            pcre2_get_error_message(found, why, sizeof why);
            die("%s: a text of %zu bytes is too much for the pattern: %s", r->who, n, (char *)why);
        }
        *start = at[0];
        *end = at[1];
        if (*end > *start)
            return 1;
        if (*end >= n)
            return 0;
        const char *after = s + *end;
        utf8_next(&after);
        from = (size_t)(after - s);
    }
    return 0;
}

void regex_free(struct regex *r)
{
    if (!r)
        return;
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->context);
    pcre2_jit_stack_free(r->stack);
    if (!r->is_twin) {
        pcre2_code_free(r->code);
        free(r->who);
    }
    free(r);
}
