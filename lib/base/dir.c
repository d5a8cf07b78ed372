/* dir.c -- paths, folders, and a folder that appears whole.
 *
 * The work goes on in PARENT/.NAME.tmp under a lock on that folder.  Publishing is one rename; over
 * an older folder it is an exchange, so that the name never stands for nothing. */
#include "base.h"
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int path_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

int path_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

char *path_resolved(const char *path)
{
    struct stat st;
    char *real = !lstat(path, &st) && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
    return real ? real : xstrdup(path);
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return xasprintf("%s%s%s", dir, n && dir[n - 1] != '/' ? "/" : "", name);
}

void make_dirs(const char *path)
{
    char *s = xstrdup(path);
    for (char *p = s + (*s == '/');; p++)
        if (*p == '/' || !*p) {
            char c = *p;
            *p = 0;
            if (*s && mkdir(s, 0777) && errno != EEXIST)
                die("%s:", s);
            *p = c;
            if (!c)
                break;
        }
    if (*s && !path_is_dir(s))
        die("%s: not a folder", s);
    free(s);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    if (remove(path) && errno != ENOENT)
        die("%s:", path);
    return 0;
}

static int remove_below(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    return f->level ? remove_one(path, st, kind, f) : 0;
}

static int sync_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    if (kind != FTW_F && kind != FTW_DP)
        return 0;
    if (kind == FTW_F && !S_ISREG(st->st_mode))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd))
        die("%s:", path);
    close(fd);
    return 0;
}

static void walk(const char *path,
                 int (*visit)(const char *, const struct stat *, int, struct FTW *))
{
    /* Contents before their folder, symbolic links not followed. */
    if (nftw(path, visit, 32, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        die("%s:", path);
}

void remove_tree(const char *path)
{
    walk(path, remove_one);
}

void fsync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some network file systems have no fsync for folders; they order renames themselves. */
    if (fd < 0 || (fsync(fd) && errno != EINVAL))
        die("%s:", path);
    close(fd);
}

/* ---- folders under way ---- */

struct pending { /* a folder between dir_begin() and dir_publish(), and its lock */
    struct pending *next;
    int fd;
    char *temp;
};
static struct pending *pendings;
static pthread_mutex_t pendings_lock = PTHREAD_MUTEX_INITIALIZER;

/* Ends the lock on temp, if this process holds one. */
static void pending_end(const char *temp)
{
    temp_drop(temp);
    pthread_mutex_lock(&pendings_lock);
    for (struct pending **p = &pendings; *p; p = &(*p)->next)
        if (!strcmp((*p)->temp, temp)) {
            struct pending *d = *p;
            *p = d->next;
            close(d->fd);
            free(d->temp);
            free(d);
            break;
        }
    pthread_mutex_unlock(&pendings_lock);
}

static void pending_add(const char *temp, int fd)
{
    struct pending *d = xmalloc(sizeof(*d));
    pthread_mutex_lock(&pendings_lock);
    *d = (struct pending){pendings, fd, xstrdup(temp)};
    pendings = d;
    pthread_mutex_unlock(&pendings_lock);
    temp_add(temp);
}

/* path without slashes at its end; of a symbolic link, the folder it names. */
static char *trimmed(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *name = xstrndup(path, n), *folder = path_resolved(name);
    free(name);
    return folder;
}

/* Makes temp where it is missing, and locks it.  Another process may publish or remove it between
 * the open and the lock, so it counts only if it is still the folder of that name. */
static int make_locked(const char *temp, const char *path)
{
    for (;;) {
        struct stat held, named;
        if (mkdir(temp, 0777) && errno != EEXIST)
            die("%s:", path);
        int fd = open(temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            die("%s:", temp);
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            if (errno == EWOULDBLOCK)
                die_with(EXIT_AGAIN, "another process is writing %s", path);
            die("lock %s:", temp);
        }
        if (!fstat(fd, &held) && !stat(temp, &named) && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev)
            return fd;
        close(fd);
    }
}

void dir_spare(const char *path, const char *what, int (*part)(const char *name))
{
    DIR *d = opendir(path);
    if (!d && errno != ENOENT && errno != ENOTDIR)
        die("open %s:", path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (*e->d_name != '.' ? !part(e->d_name) : strspn(e->d_name, ".") != strlen(e->d_name))
            die_misused("%s: exists and has %s in it, which no %s has: not replaced", path,
                        e->d_name, what);
    if (d)
        closedir(d);
}

char *dir_begin(const char *path)
{
    char *clean = trimmed(path), *slash = strrchr(clean, '/');
    int parent = slash ? (int)(slash + 1 - clean) : 0;
    char *temp = xasprintf("%.*s.%s.tmp", parent, clean, clean + parent);
    if (path_exists(clean) && !path_is_dir(clean))
        die("%s: not a folder", clean);
    pending_end(temp);
    int fd = make_locked(temp, clean);
    walk(temp, remove_below);
    pending_add(temp, fd);
    free(clean);
    return temp;
}

void dir_publish(const char *temp, const char *path)
{
    char *clean = trimmed(path), *slash = strrchr(clean, '/');
    char *parent = slash ? xstrndup(clean, (size_t)(slash + 1 - clean)) : xstrdup(".");
    walk(temp, sync_one);
    if (!rename(temp, clean)) {
        fsync_dir(parent);
    } else if (errno == EEXIST || errno == ENOTEMPTY) {
        /* Locked before it takes the temporary name, so that nobody begins to work in it. */
        int old = open(clean, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (old < 0 || (flock(old, LOCK_EX | LOCK_NB) && errno != EWOULDBLOCK))
            die("%s:", clean);
        if (renameat2(AT_FDCWD, temp, AT_FDCWD, clean, RENAME_EXCHANGE))
            die("%s: cannot be replaced in one step; remove it first:", clean);
        fsync_dir(parent);
        remove_tree(temp);
        close(old);
    } else {
        die("%s:", clean);
    }
    pending_end(temp);
    free(parent);
    free(clean);
}
