/* coproc.c -- an outside command as a scorer: one row a line in, one number a line out, in order.
 *
 * The caller's thread writes rows and a second thread reads answers all the while, so a command may
 * answer each row at once, in batches, or only at the end of its input.  What the command did wrong
 * is decided at the end, from counts and its exit status, so that a message does not depend on
 * timing. */
#include "pref/pref.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* A command that has answered so many rows more than it was sent will never stop. */
enum { LEAD_MAX = 1 << 20 };

struct coproc {
    char *command;
    pid_t pid;
    FILE *rows, *answers;
    int deaf; /* the command has closed its input */
    pthread_t reader;
    void (*old_sigpipe)(int);
    _Atomic int64_t fed;
    /* The reader's until it is joined, but for `stopped`: how many answers it had when it ended, -1
     * before that. */
    _Atomic int64_t stopped;
    struct numbers answer;
    int wrong; /* it ended at an answer that is no number: */
    char wrong_text[64];
};

static int parse_answer(const char *line, int last, double *x)
{
    char *end;
    *x = strtod(line, &end);
    if (end == line || !isfinite(*x))
        return -1;
    end += strspn(end, " \t\r");
    return *end == '\n' || (!*end && last) ? 0 : -1;
}

static void *read_answers(void *arg)
{
    struct coproc *c = arg;
    char line[sizeof(c->wrong_text)];
    while (c->answer.n - c->fed <= LEAD_MAX && fgets(line, sizeof(line), c->answers)) {
        double x;
        if (parse_answer(line, feof(c->answers), &x)) {
            c->wrong = 1;
            line[strcspn(line, "\r\n")] = 0;
            strcpy(c->wrong_text, line);
            break;
        }
        numbers_add(&c->answer, x);
    }
    int early = !feof(c->answers);
    fclose(c->answers); /* whoever still writes is told that nobody reads on */
    if (early)
        kill(c->pid, SIGTERM);
    c->stopped = c->answer.n;
    return NULL;
}

struct coproc *coproc_open(const char *command)
{
    struct coproc *c = xcalloc(1, sizeof(*c));
    c->command = xstrdup(command);
    c->stopped = -1;
    int in[2], out[2]; /* seen from the command */
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        die("make a pipe to command '%s':", command);

    /* A command that stops reading must be an error with its name, not our silent death by SIGPIPE;
     * the command itself keeps the usual behaviour. */
    c->old_sigpipe = signal(SIGPIPE, SIG_IGN);
    sigset_t usual;
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigdefault(&attr, &usual);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    char *argv[] = {"sh", "-c", c->command, NULL};
    errno = posix_spawn(&c->pid, "/bin/sh", &files, &attr, argv, environ);
    if (errno)
        die("start command '%s':", command);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    close(in[0]);
    close(out[1]);

    c->rows = fdopen(in[1], "w");
    c->answers = fdopen(out[0], "r");
    if (!c->rows || !c->answers)
        die("open a pipe to command '%s':", command);
    errno = pthread_create(&c->reader, NULL, read_answers, c);
    if (errno)
        die("start a thread:");
    return c;
}

static void heard(struct coproc *c, int failed)
{
    if (failed && errno != EPIPE)
        die("write to command '%s':", c->command);
    c->deaf |= failed;
}

int coproc_feed(struct coproc *c, const char *line, size_t len)
{
    c->fed++;
    if (!c->deaf)
        heard(c, fwrite(line, 1, len, c->rows) != len || putc('\n', c->rows) == EOF);
    return c->stopped >= 0 && c->stopped < c->fed ? -1 : 0;
}

/* "ended", "exited with 3" or "was killed by signal 9" */
static char *ending(int status)
{
    if (WIFSIGNALED(status))
        return xasprintf("was killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status))
        return xasprintf("exited with %d", WEXITSTATUS(status));
    return xstrdup("ended");
}

double *coproc_finish(struct coproc *c, struct spool *rows)
{
    int64_t n = c->fed;
    if (!c->deaf)
        heard(c, fflush(c->rows) != 0);
    fclose(c->rows); /* the command's end of file */
    pthread_join(c->reader, NULL);
    int status;
    while (waitpid(c->pid, &status, 0) < 0)
        if (errno != EINTR)
            die("wait for command '%s':", c->command);
    signal(SIGPIPE, c->old_sigpipe);

    int64_t got = c->answer.n;
    if (c->wrong && got < n)
        die("command '%s': its answer to %s is no finite number: \"%s\"", c->command,
            spool_where(rows, got), c->wrong_text);
    if (c->wrong || got > n)
        die("command '%s': more answers than rows, of which there are %lld", c->command,
            (long long)n);
    if (got < n)
        die("command '%s' %s after %lld answers: none for %s", c->command, ending(status),
            (long long)got, spool_where(rows, got));
    if (status)
        die("command '%s' %s after it had answered all %lld rows", c->command, ending(status),
            (long long)n);
    double *answer = c->answer.v;
    free(c->command);
    free(c);
    return answer;
}
