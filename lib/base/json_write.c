/* json_write.c -- writing JSON text: strings, numbers, whole values.
 *
 * What is written reads back as the same value, whatever the locale. */
#include "base.h"
#include "internal.h"
#include "json_tape.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Whether one of n bytes needs an escape; all are looked at, which the compiler turns into vectors.
 */
static int any_escape(const char *s, size_t n)
{
    int any = 0;
    for (size_t i = 0; i < n; i++)
        any |= ((unsigned char)s[i] < 0x20) | (s[i] == '"') | (s[i] == '\\');
    return any;
}

void json_quote(struct buf *b, const char *s, size_t len)
{
    enum { BLOCK = 32 };
    static const char short_escape[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    size_t plain = 0; /* s[plain..i) needs no escape */
    buf_reserve(b, len + 2);
    buf_char(b, '"');
    for (size_t i = 0; i < len; i++) {
        while (len - i > BLOCK && !any_escape(s + i, BLOCK))
            i += BLOCK;
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_add(b, s + plain, i - plain);
        plain = i + 1;
        if (c >= 0x20)
            buf_printf(b, "\\%c", c);
        else if (short_escape[c])
            buf_printf(b, "\\%c", short_escape[c]);
        else
            buf_printf(b, "\\u%04x", c);
    }
    buf_add(b, s + plain, len - plain);
    buf_char(b, '"');
}

static locale_t plain;

static void plain_init(void)
{
    plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

locale_t locale_plain(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, plain_init);
    return plain;
}

void json_number(struct buf *b, double x)
{
    char s[32];
    if (!isfinite(x)) {
        buf_str(b, "null");
        return;
    }
    if (x == 0 && signbit(x)) { /* "-0" would be read as the integer */
        buf_str(b, "-0.0");
        return;
    }
    if (fabs(x) < 1e15 && x == floor(x)) {
        buf_printf(b, "%lld", (long long)x);
        return;
    }
    locale_t old = uselocale(locale_plain());
    /* 15 digits always survive, 17 always suffice; below DBL_MIN fewer may do. */
    for (int digits = fabs(x) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(s, sizeof(s), "%.*g", digits, x);
        if (strtod(s, NULL) == x)
            break;
    }
    uselocale(old);
    buf_str(b, s);
}

static void write_int(struct buf *b, struct json v)
{
    const struct json_doc *d = v.doc;
    int64_t n;
    if (!json_int(v, &n))
        buf_printf(b, "%lld", (long long)n);
    else /* beyond INT64_MAX, the number is the word behind its type */
        buf_printf(b, "%llu", (unsigned long long)d->tape[v.at + 1]);
}

static void write_members(struct buf *b, struct json v)
{
    struct json_iter i;
    int first = 1;
    for (json_iter_init(&i, v); json_iter_next(&i); first = 0) {
        if (!first)
            buf_char(b, ',');
        if (i.key) {
            json_quote(b, i.key, i.key_len);
            buf_char(b, ':');
        }
        json_write(b, i.value);
    }
}

void json_write(struct buf *b, struct json v)
{
    const char *s;
    size_t len;
    double x;
    int truth;
    switch (json_type(v)) {
    case JSON_NULL:
        buf_str(b, "null");
        break;
    case JSON_BOOL:
        json_bool(v, &truth);
        buf_str(b, truth ? "true" : "false");
        break;
    case JSON_INT:
        write_int(b, v);
        break;
    case JSON_REAL:
        json_real(v, &x);
        json_number(b, x);
        break;
    case JSON_STRING:
        s = json_string(v, &len);
        json_quote(b, s, len);
        break;
    case JSON_ARRAY:
        buf_char(b, '[');
        write_members(b, v);
        buf_char(b, ']');
        break;
    case JSON_OBJECT:
        buf_char(b, '{');
        write_members(b, v);
        buf_char(b, '}');
        break;
    }
}
