/* utf8.c -- well-formed UTF-8 (Unicode 15, table 3-7): one decoder that everything else stands on.
 */

#include "text/text.h"

/* Length of the well-formed sequence at s, or 0; *bad is then the length of the maximal subpart
 * that one U+FFFD stands for. */
static int sequence(const unsigned char *s, const unsigned char *end, uint32_t *c, int *bad)
{
    unsigned char b = *s, lo = 0x80, hi = 0xbf;
    int n;

    *bad = 1;
    if (b < 0x80) {
        *c = b;
        return 1;
    }
    if (b < 0xc2 || b > 0xf4)
        return 0;
    n = b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
    *c = b & (0x7f >> n);
    /* The first continuation byte has the tighter bounds: no overlong forms, no surrogates. */
    if (b == 0xe0)
        lo = 0xa0;
    if (b == 0xed)
        hi = 0x9f;
    if (b == 0xf0)
        lo = 0x90;
    if (b == 0xf4)
        hi = 0x8f;
    for (int i = 1; i < n; i++) {
        if (s + i >= end || s[i] < lo || s[i] > hi)
            return 0;
        *c = *c << 6 | (s[i] & 0x3f);
        *bad = i + 1;
        lo = 0x80, hi = 0xbf;
    }
    return n;
}

int utf8_valid(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + n;
    uint32_t c;
    int k, bad;

    for (; p < end; p += k)
        if (!(k = sequence(p, end, &c, &bad)))
            return 0;
    return 1;
}

void utf8_repair(struct buf *out, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + n;

    while (p < end) {
        uint32_t c;
        int bad, k = sequence(p, end, &c, &bad);
        if (k)
            buf_add(out, p, (size_t)k);
        else
            buf_str(out, "\xef\xbf\xbd");
        p += k ? k : bad;
    }
}

uint32_t utf8_next(const char **s)
{
    uint32_t c = 0;
    int bad;

    *s += sequence((const unsigned char *)*s, (const unsigned char *)*s + 4, &c, &bad);
    return c;
}

void utf8_add(struct buf *out, uint32_t c)
{
    if (c < 0x80) {
        buf_char(out, (char)c);
    } else if (c < 0x800) {
        buf_char(out, (char)(0xc0 | c >> 6));
        buf_char(out, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        buf_char(out, (char)(0xe0 | c >> 12));
        buf_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_char(out, (char)(0x80 | (c & 0x3f)));
    } else {
        buf_char(out, (char)(0xf0 | c >> 18));
        buf_char(out, (char)(0x80 | (c >> 12 & 0x3f)));
        buf_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_char(out, (char)(0x80 | (c & 0x3f)));
    }
}
