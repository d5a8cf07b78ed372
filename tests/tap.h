/* tap.h -- claims of the C tests, in the words prove reads: ok(condition, "what must hold", ...). */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdio.h>

static int tap_count, tap_failed;

__attribute__((format(printf, 2, 3))) static inline int ok(int holds, const char *fmt, ...)
{
    va_list ap;
    printf("%sok %d - ", holds ? "" : "not ", ++tap_count);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
    tap_failed += !holds;
    return holds;
}

static inline void skip(const char *what, const char *why)
{
    printf("ok %d - %s # SKIP %s\n", ++tap_count, what, why);
}

static inline int finish(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed != 0;
}

#endif
