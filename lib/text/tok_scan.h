/* tok_scan.h -- hand-written scanners that stand in for patterns known by their text. */
#ifndef TEXT_TOK_SCAN_H
#define TEXT_TOK_SCAN_H

#include <stddef.h>

/* The next match in s[from, n), never empty, as regex_next; 0 when there is none. */
typedef int tok_scan(const unsigned char *s, size_t n, size_t from, size_t *start, size_t *end);
extern const struct tok_scanner {
    const char *pattern;
    tok_scan *scan;
} tok_scanners[]; /* the last one's pattern is NULL */
/* The scanner of a pattern, or NULL where PCRE2 has to run it. */
tok_scan *tok_scan_of(const char *pattern, size_t len);

#endif
