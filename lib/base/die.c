/* die.c -- the last words of a process, and the temporary files it must not leave behind.
 *
 * A message is put together on the stack and written by one write(2), so that it needs no memory
 * and those of several threads or processes do not mix.  The process ends by _exit(): other threads
 * may still be working, and destructors would pull the floor from under them. */
#include "base.h"
#include "internal.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tool_name;

struct temp {
    struct temp *next;
    pid_t owner;
    char path[];
};
static struct temp *temps;
static pthread_mutex_t temps_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t dying = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void name_tool(void)
{
    tool_name = program_invocation_short_name;
    signal(SIGXFSZ, SIG_IGN); /* a file too large is an error of write(), said and cleared away */
}

void temp_add(const char *path)
{
    size_t n = strlen(path) + 1;
    struct temp *t = xmalloc(sizeof(*t) + n);
    memcpy(t->path, path, n);
    t->owner = getpid();
    pthread_mutex_lock(&temps_lock);
    t->next = temps;
    temps = t;
    pthread_mutex_unlock(&temps_lock);
}

void temp_drop(const char *path)
{
    pthread_mutex_lock(&temps_lock);
    for (struct temp **p = &temps; *p; p = &(*p)->next)
        if (!strcmp((*p)->path, path)) {
            struct temp *t = *p;
            *p = t->next;
            free(t);
            break;
        }
    pthread_mutex_unlock(&temps_lock);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    remove(path); /* what cannot be removed stays: a reason to die is there already */
    return 0;
}

static void temps_remove(void)
{
    pthread_mutex_lock(&temps_lock);
    for (struct temp *t = temps; t; t = t->next)
        if (t->owner == getpid())
            nftw(t->path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
    pthread_mutex_unlock(&temps_lock);
}

static void message(int error, const char *fmt, va_list ap)
{
    char line[4096];
    size_t room = sizeof(line) - 1, n = 0; /* the newline always fits */
    const char *clear = atomic_exchange(&progress_drawn, 0) ? "\r\033[K" : "";
    n += (size_t)snprintf(line, room, "%s%.64s: ", clear, tool_name);
    n += (size_t)vsnprintf(line + n, room - n, fmt, ap);
    if (n < room && fmt[0] && fmt[strlen(fmt) - 1] == ':')
        n += (size_t)snprintf(line + n, room - n, " %s", strerror(error));
    n = MIN(n, room - 1);
    line[n++] = '\n';
    if (write_all(STDERR_FILENO, line, n))
        return; /* there is nowhere left to say so */
}

static void (*last_act)(int status);

void die_then(void (*fn)(int status))
{
    last_act = fn;
}

static _Noreturn void end(int status)
{
    temps_remove();
    fflush(stdout); /* what a report has found so far */
    if (last_act)
        last_act(status);
    _exit(status);
}

static _Noreturn void vdie(int status, const char *fmt, va_list ap)
{
    int error = errno;
    pthread_mutex_lock(&dying); /* the first to die speaks; the others wait here for the end */
    message(error, fmt, ap);
    end(status);
}

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vdie(EXIT_FAILED, fmt, ap);
}

void die_misused(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vdie(EXIT_MISUSED, fmt, ap);
}

void die_damaged(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vdie(EXIT_DAMAGED, fmt, ap);
}

void die_with(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vdie(status, fmt, ap);
}

void warn(const char *fmt, ...)
{
    int error = errno;
    va_list ap;
    va_start(ap, fmt);
    message(error, fmt, ap);
    va_end(ap);
}

void say(const char *fmt, ...)
{
    int error = errno;
    va_list ap;
    if (opt_quiet)
        return;
    va_start(ap, fmt);
    message(error, fmt, ap);
    va_end(ap);
}

void die_of_pipe(void)
{
    sigset_t pipe_only;
    pthread_mutex_lock(&dying);
    temps_remove();
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    signal(SIGPIPE, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &pipe_only, NULL);
    raise(SIGPIPE);
    _exit(128 + SIGPIPE);
}
