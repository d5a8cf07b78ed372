/* child.h -- run a function in a forked child and see how it ended and what it said. */
#ifndef CHILD_H
#define CHILD_H

#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct ending {
    int status; /* exit status, or 128 + the signal */
    char out[4096], err[4096];
};

static inline void slurp(FILE *f, char *to, size_t room)
{
    rewind(f);
    to[fread(to, 1, room - 1, f)] = 0;
    fclose(f);
}

/* stdout_fd: where the child's standard output goes, or -1 to see it in out.  A child whose
 * function returns exits with 0, without the parent's atexit handlers. */
static inline struct ending child_to(int stdout_fd, void (*fn)(void *), void *arg)
{
    struct ending e = {0};
    FILE *out = tmpfile(), *err = tmpfile();
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(stdout_fd >= 0 ? stdout_fd : fileno(out), STDOUT_FILENO);
        dup2(fileno(err), STDERR_FILENO);
        fn(arg);
        fflush(NULL);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    e.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    slurp(out, e.out, sizeof(e.out));
    slurp(err, e.err, sizeof(e.err));
    return e;
}

static inline struct ending child(void (*fn)(void *), void *arg)
{
    return child_to(-1, fn, arg);
}

/* Whether a child ended with status and said exactly err; shows what it did otherwise. */
static inline int ended(const struct ending *e, int status, const char *err)
{
    if (e->status == status && !strcmp(e->err, err))
        return 1;
    printf("# exit %d, stderr: %s", e->status, e->err);
    return 0;
}

/* A scratch folder, made the working folder.  leave_scratch() removes it. */
static char scratch[] = "/tmp/moeutils-test-XXXXXX";
static inline void enter_scratch(void)
{
    if (!mkdtemp(scratch) || chdir(scratch))
        die("%s:", scratch);
}
static inline void leave_scratch(void)
{
    if (chdir("/"))
        die("/:");
    remove_tree(scratch);
}

#endif
