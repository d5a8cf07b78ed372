/* die.c -- the last words of a process, and the temporary files it must not leave behind.
 *
 * A message is put together on the stack and written by one write(2), so that it needs no memory
 * and those of several threads or processes do not mix.  The process ends by _exit(): other threads
 * may still be working, and destructors would pull the floor from under them. */
#include "base.h"
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tool_name;

/* The list only grows, so that a signal may read it at any time. */
struct temp {
    struct temp *next;
    pid_t owner; /* 0: it is no longer there */
    char path[];
};
static struct temp *volatile temps;
static pthread_mutex_t temps_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t dying = PTHREAD_MUTEX_INITIALIZER;

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
    for (struct temp *t = temps; t; t = t->next)
        if (t->owner && !strcmp(t->path, path)) {
            t->owner = 0;
            break;
        }
    pthread_mutex_unlock(&temps_lock);
}

/* A file, or a folder with all that is in it, below the folder `at`.  System calls alone, for a
 * signal; what cannot be removed stays: a reason to end is there already. */
static void tree_remove(int at, const char *path)
{
    _Alignas(struct dirent64) char list[2048];
    int fd;
    ssize_t n;
    if (!unlinkat(at, path, 0) ||
        (fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        return;
    while ((n = getdents64(fd, list, sizeof list)) > 0)
        for (ssize_t i = 0; i < n;) {
            const struct dirent64 *e = (const void *)(list + i);
            if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
                tree_remove(fd, e->d_name);
            i += e->d_reclen;
        }
    close(fd);
    unlinkat(at, path, AT_REMOVEDIR);
}

static void temps_remove(void)
{
    for (struct temp *t = temps; t; t = t->next)
        if (t->owner == getpid())
            tree_remove(AT_FDCWD, t->path);
}

static void stopped(int signal_number)
{
    temps_remove();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* Signals that end a program end it as ever, but for what it would leave; those that whoever
 * started it has set aside stay so. */
__attribute__((constructor)) static void begin(void)
{
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    tool_name = program_invocation_short_name;
    signal(SIGXFSZ, SIG_IGN); /* a file too large is an error of write(), said and cleared away */
    for (int64_t i = 0; i < ARRAY_LEN(stops); i++)
        if (signal(stops[i], stopped) == SIG_IGN)
            signal(stops[i], SIG_IGN);
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
