/* tok_regex.c -- matches patterns, by PCRE2's just-in-time compiler or a scanner written for one.
 */

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
    "(?!\\p{No})[\\p{L}\\p{M}\\p{N}_\\x{200c}\\x{200d}\\x{203f}\\x{2040}"
    "\\x{2054}"
    "\\x{24b6}-\\x{24e9}\\x{fe33}\\x{fe34}\\x{fe4d}-\\x{fe4f}\\x{ff3f}\\x{1f130}-\\x{1f149}"
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}]";

struct regex {
    tok_scan *scan; /* or NULL */
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    char *who;
    int is_twin; /* code and who are another's */
};

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
        pattern_for_pcre2(&b, pattern, len, who);
    r->who = xstrdup(who);
    r->scan = literal ? NULL : tok_scan_of(pattern, len);
    r->code = pcre2_compile((PCRE2_SPTR)b.data, b.len,
                            PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE),
                            &error, &at, NULL);
    if (!r->code) {
        PCRE2_UCHAR why[256];
        pcre2_get_error_message(error, why, sizeof why);
        die_misused("%s: pattern %.*s: %s", who, (int)len, pattern, (char *)why);
    }
    uint32_t may_be_empty = 0;
    pcre2_pattern_info(r->code, PCRE2_INFO_MATCHEMPTY, &may_be_empty);
    if (may_be_empty)
        die_misused("%s: the pattern \"%.*s\" also matches nothing, which is not supported", who,
                    (int)len, pattern);
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
