/* base_io.c -- claims on published output: whole or not at all, whoever dies. */
#include "base/base.h"
#include "child.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

static int holds(const char *path, const char *text)
{
    if (!path_exists(path))
        return 0;
    struct buf b = read_file(path);
    int same = !strcmp(b.data, text);
    buf_release(&b);
    return same;
}

static void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static int entries(const char *path)
{
    DIR *d = opendir(path);
    int n = -2; /* . and .. */
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- files ---- */

static void write_and_die(void *arg)
{
    struct out *o = out_open("f");
    out_printf(o, "half");
    out_flush(o);
    die("enough");
}

static void write_and_be_killed(void *arg)
{
    struct out *o = out_open("f");
    out_printf(o, "half");
    out_flush(o);
    raise(*(const int *)arg);
}

static void just_die(void *arg)
{
    die("enough");
}

static void write_x(void *arg)
{
    write_text(arg, "x");
}

static void test_file(void)
{
    struct out *o = out_open("f");
    out_printf(o, "%s %d\n", "row", 1);
    ok(!path_exists("f") && path_exists(".f.tmp"), "nothing is at the name before out_close");
    ok(out_bytes(o) == 6 && !out_is_tty(o), "bytes are counted");
    struct ending e = child(write_x, (char *)"f");
    ok(ended(&e, 75, "base_io: another process is writing f\n"), "a second writer is refused");
    e = child(just_die, NULL);
    ok(path_exists(".f.tmp"), "a child that dies leaves its parent's temporary file");
    out_close(o);
    ok(holds("f", "row 1\n") && !path_exists(".f.tmp"), "out_close publishes");
    e = child(write_and_die, NULL);
    ok(e.status == 1 && holds("f", "row 1\n") && entries(".") == 1,
       "a writer that dies leaves the old file alone");
    e = child(write_and_be_killed, &(int){SIGTERM});
    ok(e.status == 128 + SIGTERM && holds("f", "row 1\n") && entries(".") == 1,
       "so does a writer that is stopped, and nothing of the new one is left");
    e = child(write_and_be_killed, &(int){SIGKILL});
    ok(e.status == 128 + SIGKILL && holds("f", "row 1\n"), "so does a writer that is killed");
    chmod("f", 0640);
    write_text("f", "new");
    struct stat st;
    ok(holds("f", "new") && entries(".") == 1, "the next writer cleans up after it");
    ok(!stat("f", &st) && (st.st_mode & 0777) == 0640, "a replaced file keeps its mode");
    if (symlink("f", "link"))
        die("link:");
    write_text("link", "through");
    ok(holds("f", "through") && !lstat("link", &st) && S_ISLNK(st.st_mode),
       "writing through a link replaces the file and keeps the link");
    make_dirs("a/b//c/");
    make_dirs("a/b/c");
    write_text("a/b/c/deep", "");
    ok(holds("a/b/c/deep", ""), "an empty file in another folder");
    e = child(write_x, (char *)"missing/f");
    ok(ended(&e, 1, "base_io: missing/f: No such file or directory\n"),
       "a missing folder is named");
    e = child(write_x, (char *)"a");
    ok(ended(&e, 1, "base_io: a: Is a directory\n"), "a folder is no file");
    struct buf big = {0};
    for (int i = 0; i < 100000; i++)
        buf_printf(&big, "%d\n", i);
    o = out_open("f");
    out_write(o, big.data, 7);
    out_write(o, big.data + 7, big.len - 8);
    out_write(o, big.data + big.len - 1, 1);
    out_printf(o, "%01000d", 0);
    out_close(o);
    struct buf back = read_file("f");
    ok(back.len == big.len + 1000 && !memcmp(back.data, big.data, big.len),
       "small and large pieces come out in order");
    buf_release(&back);
    buf_release(&big);
}

/* ---- streams ---- */

static void write_stream(void *arg)
{
    struct out *o = out_open(arg);
    for (int i = 0; i < 20000; i++)
        out_printf(o, "%d\n", i);
    out_close(o);
}

static void write_ignoring_pipe(void *arg)
{
    signal(SIGPIPE, SIG_IGN);
    out_open("left");
    write_stream(NULL);
}

static void read_missing(void *arg)
{
    read_file(arg);
}

static void test_stream(void)
{
    struct ending e = child(write_x, NULL);
    ok(e.status == 0 && !strcmp(e.out, "x"), "no name is standard output");
    e = child(write_x, (char *)"-");
    ok(e.status == 0 && !strcmp(e.out, "x"), "so is -");
    e = child(write_x, (char *)"/dev/stdout");
    ok(e.status == 0 && !strcmp(e.out, "x"), "and /dev/stdout");
    e = child(write_x, (char *)"/dev/full");
    ok(ended(&e, 1, "base_io: /dev/full: No space left on device\n"),
       "/dev/full is written straight");
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), pipes[2];
    e = child_to(full, write_x, NULL);
    close(full);
    ok(ended(&e, 1, "base_io: standard output: No space left on device\n"),
       "a full standard output is an error, even for one byte");
    if (pipe(pipes))
        die("pipe:");
    close(pipes[0]);
    e = child_to(pipes[1], write_stream, NULL);
    ok(ended(&e, 128 + SIGPIPE, ""), "a reader that went away ends the process quietly");
    e = child_to(pipes[1], write_ignoring_pipe, NULL);
    close(pipes[1]);
    ok(ended(&e, 128 + SIGPIPE, "") && !path_exists(".left.tmp"),
       "even where SIGPIPE is ignored, and temporary files go");
    e = child(read_missing, (char *)"missing");
    ok(ended(&e, 1, "base_io: missing: No such file or directory\n"), "read_file names the file");
    e = child(read_missing, (char *)".");
    ok(ended(&e, 1, "base_io: .: Is a directory\n"), "read_file refuses a folder");
    struct buf b = read_file("/proc/self/status");
    ok(b.len > 100 && b.len == strlen(b.data), "read_file reads what has no size");
    buf_release(&b);
    char *p = path_join("a/", "b"), *q = path_join("a", "b"), *r = path_join("", "b");
    ok(!strcmp(p, "a/b") && !strcmp(q, "a/b") && !strcmp(r, "b"), "path_join");
    free(p);
    free(q);
    free(r);
}

/* ---- folders ---- */

static void publish(const char *path, const char *text)
{
    char *temp = dir_begin(path), *f = path_join(temp, "f"), *sub = path_join(temp, "sub");
    make_dirs(sub);
    write_text(f, text);
    dir_publish(temp, path);
    free(f);
    free(sub);
    free(temp);
}

static void publish_x(void *arg)
{
    publish(arg, "x");
}

static void begin_and_die(void *arg)
{
    char *temp = dir_begin("d"), *f = path_join(temp, "partial");
    write_text(f, "half");
    die("enough");
}

static void begin_and_be_stopped(void *arg)
{
    char *temp = dir_begin("d"), *sub = path_join(temp, "a/b"), *f = path_join(sub, "partial");
    make_dirs(sub);
    write_text(f, "half");
    if (symlink("../../d", path_join(temp, "link")))
        die("link:");
    raise(SIGTERM);
}

static void test_dir(void)
{
    struct stat st;
    publish("d", "one");
    ok(holds("d/f", "one") && path_is_dir("d/sub") && !path_exists(".d.tmp"), "a folder appears");
    int old = open("d", O_RDONLY | O_CLOEXEC);
    publish("d/", "two");
    ok(holds("d/f", "two") && !path_exists(".d.tmp"), "a folder replaces the old one");
    ok(faccessat(old, "f", F_OK, 0), "and the old one is gone");
    close(old);
    struct ending e = child(begin_and_die, NULL);
    ok(e.status == 1 && holds("d/f", "two"), "a process that dies leaves the old folder");
    ok(!path_exists(".d.tmp"), "and nothing of the new one");
    e = child(begin_and_be_stopped, NULL);
    ok(e.status == 128 + SIGTERM && holds("d/f", "two") && !path_exists(".d.tmp"),
       "nor does one that is stopped, whatever it had in it");
    char *temp = dir_begin("d");
    ok(entries(temp) == 0, "the next one starts empty");
    e = child(publish_x, (char *)"d");
    ok(ended(&e, 75, "base_io: another process is writing d\n"),
       "a second writer of a folder is refused");
    free(temp);
    temp = dir_begin("d");
    ok(entries(temp) == 0, "the same process may begin again");
    dir_publish(temp, "d");
    free(temp);
    ok(path_is_dir("d") && entries("d") == 0, "an empty folder is a folder too");
    if (symlink("d", "dl"))
        die("dl:");
    publish("dl", "linked");
    ok(holds("d/f", "linked") && !lstat("dl", &st) && S_ISLNK(st.st_mode),
       "publishing through a link replaces the folder and keeps the link");
    write_text("plain", "x");
    e = child(publish_x, (char *)"plain");
    ok(e.status == 1 && strstr(e.err, "not a folder") && holds("plain", "x"),
       "a file is not replaced by a folder");
    if (symlink("../plain", "d/sub/out"))
        die("d/sub/out:");
    remove_tree("d");
    ok(!path_exists("d") && holds("plain", "x"), "remove_tree does not follow links");
    remove_tree("d");
    ok(1, "remove_tree of nothing is nothing");
}

int main(void)
{
    tool_name = "base_io";
    umask(022);
    enter_scratch();
    test_file();
    test_stream();
    test_dir();
    leave_scratch();
    return finish();
}
