/* internal.h -- what the files of lib/base share with each other and nobody else. */
#ifndef BASE_INTERNAL_H
#define BASE_INTERNAL_H

#include <locale.h>
#include <stdatomic.h>
#include <stdint.h>

/* Temporary files and folders that die() removes.  The path is copied; only the process that added
 * it removes it, so a forked child that dies leaves its parent's work alone. */
void temp_add(const char *path);
void temp_drop(const char *path);

/* Ends the process as SIGPIPE would: the reader has gone, and that needs no words. */
_Noreturn void die_of_pipe(void);

/* Whether a progress line stands on the terminal and must be cleared before a message. */
extern atomic_int progress_drawn;

/* The "C" locale, for numbers that must not depend on where a program runs. */
locale_t locale_plain(void);

/* What path names: of a symbolic link that leads somewhere, where; else a copy.  Caller frees. */
char *path_resolved(const char *path);

int64_t cores_usable(void); /* by this process: its affinity mask */

#endif
