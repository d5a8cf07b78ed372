/* opt_value.c -- the values of options: reading them from text and writing them as text.
 *
 * What is written can be read again: --print-config yields a file for --config. */
#include "internal.h"
#include "opt_table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Whole numbers count something, so only a seed may be below 0. */
static int64_t parse_int(const char *who, const char *text, int may_be_negative)
{
    static const char suffix[] = "kmgt";
    char *end;
    const char *s;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end == text || strchr(" \t\n\v\f\r", *text))
        die_misused("%s: \"%s\" is not an integer", who, text);
    if (*end && !end[1] && (s = strchr(suffix, *end | 0x20))) {
        if (__builtin_mul_overflow(n, 1ll << 10 * (s - suffix + 1), &n))
            errno = ERANGE;
        end++;
    }
    if (*end)
        die_misused("%s: \"%s\" is not an integer, which k, m, g or t may follow", who, text);
    if (errno)
        die_misused("%s: \"%s\" is too large", who, text);
    if (n < 0 && !may_be_negative)
        die_misused("%s %s: must be 0 or more", who, text);
    return n;
}

static double parse_real(const char *who, const char *text)
{
    char *end;
    double x = strtod_l(text, &end, locale_plain());
    if (end == text || *end || isnan(x) || strchr(" \t\n\v\f\r", *text))
        die_misused("%s: \"%s\" is not a number", who, text);
    return x;
}

static int parse_flag(const char *who, const char *text)
{
    static const char *const words[] = {"0", "1", "no", "yes", "false", "true", "off", "on"};
    if (!text)
        return 1;
    for (int i = 0; i < ARRAY_LEN(words); i++)
        if (!strcasecmp(text, words[i]))
            return i & 1;
    die_misused("%s: \"%s\" is neither 0 nor 1", who, text);
}

static void check_choice(const char *who, const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (len && strcspn(c, "|") == len && !memcmp(c, text, len))
            return;
    die_misused("%s: \"%s\" is none of %s", who, text, choices);
}

void opt_value_free(const struct opt *o)
{
    struct strv *list = o->value;
    if (o->type == OPT_T_CHOICE || o->type == OPT_T_STR)
        free(*(char **)o->value);
    for (int64_t i = 0; o->type == OPT_T_LIST && i < list->n; i++)
        free((char *)list->v[i]);
    if (o->type == OPT_T_LIST)
        free(list->v);
}

void opt_value_set(const struct opt *o, const char *who, const char *text, int fresh)
{
    struct strv *list = o->value;
    switch (o->type) {
    case OPT_T_FLAG:
        *(int *)o->value = parse_flag(who, text);
        break;
    case OPT_T_INT:
    case OPT_T_SEED:
        *(int64_t *)o->value = parse_int(who, text, o->type == OPT_T_SEED);
        break;
    case OPT_T_REAL:
        *(double *)o->value = parse_real(who, text);
        break;
    case OPT_T_CHOICE:
        check_choice(who, o->arg, text);
        *(const char **)o->value = xstrdup(text);
        break;
    case OPT_T_STR:
        *(const char **)o->value = xstrdup(text);
        break;
    case OPT_T_LIST:
        if (fresh)
            *list = (struct strv){NULL, 0};
        list->v = xrealloc(list->v, (size_t)(list->n + 1) * sizeof(*list->v));
        list->v[list->n++] = xstrdup(text);
        break;
    }
}

char *opt_value_text(const struct opt *o)
{
    struct buf b = {0};
    const struct strv *list = o->value;
    double x;
    buf_reserve(&b, 0);
    switch (o->type) {
    case OPT_T_FLAG:
        buf_str(&b, *(int *)o->value ? "1" : "0");
        break;
    case OPT_T_INT:
    case OPT_T_SEED:
        buf_printf(&b, "%lld", (long long)*(int64_t *)o->value);
        break;
    case OPT_T_REAL:
        x = *(double *)o->value;
        if (isfinite(x))
            json_number(&b, x);
        else
            buf_str(&b, x > 0 ? "inf" : x < 0 ? "-inf" : "");
        break;
    case OPT_T_STR:
    case OPT_T_CHOICE:
        if (*(const char **)o->value)
            buf_str(&b, *(const char **)o->value);
        break;
    case OPT_T_LIST:
        for (int64_t i = 0; i < list->n; i++)
            buf_printf(&b, "%s%s", i ? ", " : "", list->v[i]);
        break;
    }
    return b.data;
}

void opt_shell_quote(struct buf *b, const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-_=+,./:@%^";
    if (*s && !s[strspn(s, plain)]) {
        buf_str(b, s);
        return;
    }
    buf_char(b, '\'');
    for (; *s; s++)
        if (*s == '\'')
            buf_str(b, "'\\''");
        else
            buf_char(b, *s);
    buf_char(b, '\'');
}

/* Calls write(b, o, value) for each value: none for a string that is NULL and a real that is not a
 * number, several for a list. */
static void each_value(struct buf *b, const struct opt *o,
                       void (*write)(struct buf *, const struct opt *, const char *))
{
    const struct strv *list = o->value;
    int is_none = ((o->type == OPT_T_STR || o->type == OPT_T_CHOICE) && !*(char **)o->value) ||
                  (o->type == OPT_T_REAL && isnan(*(double *)o->value));
    if (o->type == OPT_T_LIST) {
        for (int64_t i = 0; i < list->n; i++)
            write(b, o, list->v[i]);
    } else if (!is_none) {
        char *text = opt_value_text(o);
        write(b, o, text);
        free(text);
    }
}

static void write_flag(struct buf *b, const struct opt *o, const char *value)
{
    buf_printf(b, " --%s", o->name);
    if (o->type == OPT_T_FLAG)
        return;
    buf_char(b, ' ');
    opt_shell_quote(b, value);
}

void opt_flags_text(struct buf *b, const struct opt *o)
{
    each_value(b, o, write_flag);
}

static void write_config(struct buf *b, const struct opt *o, const char *value)
{
    size_t n = strlen(value);
    buf_printf(b, "%s = ", o->name);
    /* Reading trims blanks and takes quotes, so what begins or ends with them is quoted. */
    if (!n || strchr(" \t\r\"", value[0]) || strchr(" \t\r", value[n - 1]) || strchr(value, '\n'))
        json_quote(b, value, n);
    else
        buf_str(b, value);
    buf_char(b, '\n');
}

void opt_config(struct buf *b, const struct opt *table)
{
    for (const struct opt *o = table; o->name; o++) {
        size_t before = b->len;
        each_value(b, o, write_config);
        if (b->len == before)
            buf_printf(b, "# %s =\n", o->name);
    }
}

static void help_lines(struct buf *b, const struct opt *table)
{
    enum { COLUMN = 30 }; /* where the words begin */
    for (const struct opt *o = table; o->name; o++) {
        size_t line = b->len;
        if (o->letter)
            buf_printf(b, "  -%c, --%s", o->letter, o->name);
        else
            buf_printf(b, "      --%s", o->name);
        if (o->type != OPT_T_FLAG)
            buf_printf(b, " %s", o->arg);
        if (b->len - line > COLUMN - 2) {
            buf_char(b, '\n');
            line = b->len;
        }
        buf_printf(b, "%*s%s", (int)(COLUMN - (b->len - line)), "", o->help);
        char *text = opt_value_text(o);
        if (*text && o->type != OPT_T_FLAG)
            buf_printf(b, " [%s]", text);
        else if (!strcmp(text, "1"))
            buf_str(b, " [on]");
        buf_char(b, '\n');
        free(text);
    }
}

void opt_help(struct buf *b, const struct opt *table, const struct opt *common,
              const char *synopsis, const char *about)
{
    buf_printf(b, "usage: %s\n%s%s\n", synopsis, about, table->name ? "\n" : "");
    help_lines(b, table);
    buf_str(b, "\nCommon options:\n");
    help_lines(b, common);
}
