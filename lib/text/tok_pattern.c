/* tok_pattern.c -- a pattern of a tokenizer file as PCRE2 must have it to match the same.
 *
 * The files' patterns are written for Oniguruma.  PCRE2's \s has U+180E, and its Unicode tables may
 * be older: \s, \d and the general categories are rewritten on the way in, \s to the White_Space
 * code points, a category to itself plus what Unicode 15 and 16 assigned to it.  Naming a code
 * point twice does no harm where PCRE2 already knows it.  What the two read differently, and what
 * few would write, is refused: only what is known to mean the same passes. */

#include "text/tok.h"

#include <ctype.h>
#include <string.h>

static const struct class
{
    char letter;      /* \s and \S, or 0 */
    const char *name; /* \p{L} and \P{L}, or NULL */
    const char *more; /* hexadecimal, "from-to" or one code point */
} classes[] = {
    {'s', NULL, "9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"},
    {0, "L",
     "1c89-1c8a a7cb-a7cd a7da-a7dc 105c0-105f3 10d4a-10d65 10d6f-10d85 10ec2-10ec4 1123f-11240 "
     "11380-11389 1138b 1138e 11390-113b5 113b7 113d1 113d3 11bc0-11be0 11f02 11f04-11f10 "
     "11f12-11f33 1342f 13441-13446 13460-143fa 16100-1611d 16d40-16d6c 18cff 1b132 1b155 "
     "1df25-1df2a 1e030-1e06d 1e4d0-1e4eb 1e5d0-1e5ed 1e5f0 2b739 2ebf0-2ee5d 31350-323af"},
    {0, "Lu", "1c89 a7cb-a7cc a7da a7dc 10d50-10d65"},
    {0, "Ll", "1c8a a7cd a7db 10d70-10d85 1df25-1df2a"},
    {0, "Lm", "10d4e 10d6f 16d40-16d42 16d6b-16d6c 1e030-1e06d 1e4eb"},
    {0, "Lt", ""},
    {0, "Lo",
     "105c0-105f3 10d4a-10d4d 10d4f 10ec2-10ec4 1123f-11240 11380-11389 1138b 1138e "
     "11390-113b5 113b7 113d1 113d3 11bc0-11be0 11f02 11f04-11f10 11f12-11f33 1342f "
     "13441-13446 13460-143fa 16100-1611d 16d43-16d6a 18cff 1b132 1b155 1e4d0-1e4ea "
     "1e5d0-1e5ed 1e5f0 2b739 2ebf0-2ee5d 31350-323af"},
    {0, "N",
     "10d40-10d49 116d0-116e3 11bf0-11bf9 11f50-11f59 16130-16139 16d70-16d79 1ccf0-1ccf9 "
     "1d2c0-1d2d3 1e4f0-1e4f9 1e5f1-1e5fa"},
    {'d', "Nd",
     "11bf0-11bf9 11f50-11f59 16130-16139 16d70-16d79 1ccf0-1ccf9 1e4f0-1e4f9 1e5f1-1e5fa "
     "10d40-10d49 116d0-116e3"},
    {0, "No", "1d2c0-1d2d3"},
    {0, "M",
     "897 cf3 ece 10d69-10d6d 10efc-10eff 11241 113b8-113c0 113c2 113c5 113c7-113ca 113cc-113d0 "
     "113d2 113e1-113e2 11f00-11f01 11f03 11f34-11f3a 11f3e-11f42 11f5a 13440 13447-13455 "
     "1611e-1612f 1e08f 1e4ec-1e4ef 1e5ee-1e5ef"},
    {0, "P",
     "1b4e-1b4f 1b7f 10d6e 113d4-113d5 113d7-113d8 11b00-11b09 11be1 11f43-11f4f 16d6d-16d6f "
     "1e5ff"},
    {0, "S",
     "2427-2429 2ffc-2fff 31e4-31e5 31ef 10d8e-10d8f 1cc00-1ccef 1cd00-1ceb3 1f6dc 1f774-1f776 "
     "1f77b-1f77f 1f7d9 1f8b2-1f8bb 1f8c0-1f8c1 1fa75-1fa77 1fa87-1fa89 1fa8f 1faad-1faaf "
     "1fabb-1fabf 1fac6 1face-1facf 1fada-1fadc 1fadf 1fae8-1fae9 1faf7-1faf8 1fbcb-1fbef"},
};

/* Appends the members of a class, to stand inside brackets. */
static void class_members(struct buf *out, const struct class *c)
{
    unsigned from, to;
    int used;

    if (c->name)
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
        char names[4][8] = {{'\\', c->letter}, {'\\', (char)toupper(c->letter)}};
        if (c->name) {
            snprintf(names[2], sizeof names[2], "\\p{%s}", c->name);
            snprintf(names[3], sizeof names[3], "\\P{%s}", c->name);
        }
        for (int k = 0; k < 4; k++) {
            *negated = k % 2;
            *used = strlen(names[k]);
            if (*used > 1 && n >= *used && !memcmp(p, names[k], *used))
                return c;
        }
    }
    return NULL;
}

struct walk {
    const char *p, *end, *who;
    int in_brackets, caseless;
};

_Noreturn static void refuse(const struct walk *w, size_t n)
{
    die_misused("%s: the pattern has %.*s, which is not supported", w->who,
                (int)MIN(n, (size_t)(w->end - w->p)), w->p);
}

static int begins(const struct walk *w, const char *with)
{
    size_t n = strlen(with);

    return (size_t)(w->end - w->p) >= n && !memcmp(w->p, with, n);
}

/* The length of the escape at w->p, which is no class. */
static size_t escape(const struct walk *w)
{
    unsigned char c = w->end - w->p > 1 ? (unsigned char)w->p[1] : 0;
    const char *close = begins(w, "\\x{") ? memchr(w->p, '}', (size_t)(w->end - w->p)) : NULL;

    if (close)
        return (size_t)(close + 1 - w->p);
    if (!ispunct(c) && (!c || !strchr(w->in_brackets ? "rnt" : "rntAz", c)))
        refuse(w, c == 'p' || c == 'P' ? 6 : 2);
    return 2;
}

/* The length of the quantifier in braces at w->p; 1 where it is a brace and no quantifier.  What
 * follows one is read otherwise here and there. */
static size_t braces(const struct walk *w)
{
    const char *p = w->p + 1;

    while (p < w->end && (isdigit((unsigned char)*p) || *p == ','))
        p++;
    if (p == w->end || *p != '}')
        return 1;
    if (w->p[1] == ',' || (p + 1 < w->end && strchr("+?*{", p[1])))
        refuse(w, (size_t)(p + 2 - w->p));
    return (size_t)(p + 1 - w->p);
}

/* The length of what opens a group at w->p. */
static size_t group(struct walk *w)
{
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};

    if (!begins(w, "(?") && !begins(w, "(*"))
        return 1;
    for (int64_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (begins(w, kinds[i])) {
            w->caseless |= kinds[i][2] == 'i';
            return strlen(kinds[i]);
        }
    refuse(w, 4);
}

/* The length of what is at w->p, which means the same to both. */
static size_t common(struct walk *w)
{
    if (*w->p == '\\')
        return escape(w);
    if (w->in_brackets) {
        if (*w->p == '[' || begins(w, "&&"))
            refuse(w, 2);
        w->in_brackets = *w->p != ']';
        return 1;
    }
    if (*w->p == '[') {
        if (begins(w, "[]") || begins(w, "[^]"))
            refuse(w, 3);
        w->in_brackets = 1;
        return begins(w, "[^") ? 2 : 1;
    }
    return *w->p == '(' ? group(w) : *w->p == '{' ? braces(w) : 1;
}

void pattern_for_pcre2(struct buf *out, const char *p, size_t n, const char *who)
{
    /* One character to Oniguruma where case does not count. */
    static const char *const folded[] = {"ss", "st", "ff", "fi", "fl"};
    struct walk w = {.p = p, .end = p + n, .who = who};
    int negated;
    size_t used;

    if (begins(&w, "(?i)")) { /* elsewhere it reaches over other alternatives */
        buf_str(out, "(?i)");
        w.caseless = 1;
        w.p += 4;
    }
    for (; w.p < w.end; w.p += used) {
        const struct class *c = class_at(w.p, (size_t)(w.end - w.p), &negated, &used);
        if (!c) {
            used = common(&w);
            buf_add(out, w.p, used);
            continue;
        }
        if (w.in_brackets && negated)
            die_misused("%s: the pattern has %.*s inside brackets, which is not supported", who,
                        (int)used, w.p);
        if (!w.in_brackets)
            buf_str(out, negated ? "[^" : "[");
        class_members(out, c);
        if (!w.in_brackets)
            buf_char(out, ']');
    }
    for (int64_t i = 0; w.caseless && i < ARRAY_LEN(folded); i++)
        for (const char *s = p; s + 1 < p + n; s++)
            if (!strncasecmp(s, folded[i], 2))
                die_misused("%s: a pattern with (?i and \"%s\" is not supported", who, folded[i]);
}
