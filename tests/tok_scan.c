/* tok_scan.c -- each scanner cuts as PCRE2 does: on every character beside a letter, a digit, a
 * space and a sign, and on random text of characters that the patterns tell apart. */

#include "tap.h"

#include "text/tok.h"
#include "text/tok_scan.h"

#include <string.h>

/* Random characters, of pools that meet in one text; a space stands before and after many. */
static void random_text(struct buf *out, uint64_t text)
{
    static const uint32_t pools[][2] = {
        {0, 0x7f},          {'0', '9'},       {'A', 'z'},        {9, 13},          {0x20, 0x2f},
        {0x80, 0x3ff},      {0x3000, 0x3100}, {0x9f90, 0x9fb0},  {0x2000, 0x2060}, {0x900, 0x97f},
        {0x1d7c0, 0x1d800}, {0, 0xd7ff},      {0xe000, 0x10ffff}};
    static const char *const some[] = {"'s",   "'LL", "'\u017f", "'re", "'Ve",
                                       "\r\n", "  ",  " \n ",    "'"};
    uint32_t r[4];

    buf_reset(out);
    rng_bits(r, 1, text, 0);
    uint32_t one = r[0] % ARRAY_LEN(pools), two = r[1] % ARRAY_LEN(pools), n = 1 + r[2] % 40;
    for (uint32_t i = 1; i <= n; i++) {
        rng_bits(r, 1, text, i);
        const uint32_t *pool = pools[r[0] % 3 ? one : two];
        if (r[1] % 5 == 0)
            buf_str(out, some[r[2] % ARRAY_LEN(some)]);
        else if (r[1] % 5 == 1)
            buf_char(out, ' ');
        else
            utf8_add(out, pool[0] + r[2] % (pool[1] - pool[0] + 1));
    }
}

static int same_cuts(struct regex *scanner, struct regex *pcre2, const struct buf *text)
{
    size_t start[2] = {0}, end[2] = {0};

    for (size_t at = 0;; at = end[0]) {
        int found = regex_next(scanner, text->data, text->len, at, &start[0], &end[0]);
        if (found != regex_next(pcre2, text->data, text->len, at, &start[1], &end[1]))
            return 0;
        if (!found)
            return 1;
        if (start[0] != start[1] || end[0] != end[1] || end[0] == start[0])
            return 0;
    }
}

int main(void)
{
    enum { TEXTS = 200000 };
    struct buf pattern = {0}, text = {0};

    for (const struct tok_scanner *k = tok_scanners; k->pattern; k++) {
        /* In a group the pattern is another text, which has no scanner. */
        buf_reset(&pattern);
        buf_printf(&pattern, "(?:%s)", k->pattern);
        ok(tok_scan_of(k->pattern, strlen(k->pattern)) == k->scan &&
               !tok_scan_of(pattern.data, pattern.len),
           "a pattern is known by its text");
        struct regex *scanner = regex_new(k->pattern, strlen(k->pattern), 0, "scanner");
        struct regex *pcre2 = regex_new(pattern.data, pattern.len, 0, "pcre2");
        uint32_t c = 0;
        for (; c < 0x110000; c = c == 0xd7ff ? 0xe000 : c + 1) {
            buf_reset(&text);
            for (const char *p = "a1 .\n"; *p; p++) {
                buf_char(&text, *p);
                utf8_add(&text, c);
            }
            if (!same_cuts(scanner, pcre2, &text))
                break;
        }
        ok(c == 0x110000, "every character is cut as PCRE2 does (to U+%04X): %.40s", c, k->pattern);
        int64_t i = 0;
        for (; i < TEXTS; i++) {
            random_text(&text, (uint64_t)i);
            if (!same_cuts(scanner, pcre2, &text))
                break;
        }
        ok(i == TEXTS, "and random texts (the first %lld)", (long long)i);
        if (i < TEXTS)
            printf("# %s\n", text.data);
        regex_free(scanner);
        regex_free(pcre2);
    }
    buf_release(&pattern);
    buf_release(&text);
    return finish();
}
