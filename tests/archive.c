/* archive.c -- archives as sources: what libarchive wrote comes back entry by entry, and no cut and
 * no changed byte does worse than end with a status. */

#include "child.h"
#include "tap.h"
#include "text/text.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>

static const char gz[] = /* "hi\n" */
    "\x1f\x8b\x08\0\0\0\0\0\x02\x03\xcb\xc8\xe4\x02\0\x7a\x7a\x6f\xed\x03\0\0\0";

static const struct file {
    const char *name, *bytes;
    size_t len;
    mode_t type;
} files[] = {
    {"a/rows.jsonl", "{\"text\":\"one\"}\n{\"text\":\"two\"}\n", 30, AE_IFREG},
    {"a", NULL, 0, AE_IFDIR},
    {"../../up \033[1m\n.txt", "up", 2, AE_IFREG},
    {"link", NULL, 0, AE_IFLNK},
    {"\xc3\xbc.txt", "last one\n", 9, AE_IFREG},
    {"/abs/empty", "", 0, AE_IFREG}, /* 7z keeps those behind the others */
};

static const struct kind {
    const char *name;
    int (*format)(struct archive *);
    int (*filter)(struct archive *);
    size_t known; /* a beginning of so many bytes is known for what it is */
} kinds[] = {
    {"x.tar", archive_write_set_format_pax_restricted, archive_write_add_filter_none, 512},
    {"x.tar.gz", archive_write_set_format_ustar, archive_write_add_filter_gzip, 12},
    {"x.tar.xz", archive_write_set_format_pax, archive_write_add_filter_xz, 12},
    {"x.tar.zst", archive_write_set_format_gnutar, archive_write_add_filter_zstd, 12},
    {"x.zip", archive_write_set_format_zip, archive_write_add_filter_none, 4},
    {"x.7z", archive_write_set_format_7zip, archive_write_add_filter_none, 6},
};

static void make(const struct kind *k)
{
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), old = uselocale(utf8);

    k->format(a);
    k->filter(a);
    archive_write_open_filename(a, k->name);
    for (int64_t i = 0; i < ARRAY_LEN(files); i++) {
        archive_entry_clear(e);
        archive_entry_set_pathname(e, files[i].name);
        archive_entry_set_filetype(e, files[i].type);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, (int64_t)files[i].len);
        if (files[i].type == AE_IFLNK)
            archive_entry_set_symlink(e, "/etc/passwd");
        archive_write_header(a, e);
        if (files[i].len)
            archive_write_data(a, files[i].bytes, files[i].len);
    }
    archive_entry_free(e);
    archive_write_close(a);
    archive_write_free(a);
    uselocale(old);
    freelocale(utf8);
}

/* Prints each entry of the path: its name and its bytes. */
static void list(void *path)
{
    char *paths[] = {path};
    struct source *s = source_open(paths, 1);
    struct buf bytes = {0};

    while (source_entry(s, &bytes))
        printf("%s|%s|\n", source_name(s), bytes.len ? bytes.data : "");
    source_close(s);
    buf_release(&bytes);
}

static void list_pipe(void *path)
{
    int p[2], fd = open(path, O_RDONLY);
    char bytes[60000]; /* less than a pipe holds */
    ssize_t n = read(fd, bytes, sizeof bytes);

    if (pipe(p) || write_all(p[1], bytes, (size_t)n))
        die("pipe:");
    close(fd);
    close(p[1]);
    dup2(p[0], 0);
    list("-");
}

static void test_kind(const struct kind *k)
{
    char *name = (char *)k->name, want[500];
    struct ending e;

    make(k);
    snprintf(want, sizeof want,
             "%s:a/rows.jsonl|{\"text\":\"one\"}\n{\"text\":\"two\"}\n|\n"
             "%s:../../up \\x1b[1m\\x0a.txt|up|\n%s:\xc3\xbc.txt|last one\n|\n%s:/abs/empty||\n",
             name, name, name, name);
    e = child(list, name);
    ok(e.status == 0 && !strcmp(e.out, want) && strstr(e.err, "4 entries read, 2 skipped"),
       "%s: entries come in order, folders and links do not", name);
    if (e.status || strcmp(e.out, want))
        printf("# exit %d: %s# %s", e.status, e.err, e.out);
    e = child(list_pipe, name);
    if (strcmp(name, "x.7z"))
        ok(e.status == 0 && strstr(e.out, "rows.jsonl|{\"text\"") && strstr(e.out, "last one\n|"),
           "%s: from a pipe, too", name);
    else
        ok(e.status == 1 && strstr(e.err, "from a plain file only"), "%s: not from a pipe", name);
}

/* Many damaged archives: none may crash, and one that is cut off is no archive. */
static void test_damage(const struct kind *k)
{
    char *path = (char *)"bad";
    struct buf whole = read_file(k->name);
    const char *san = getenv("SAN");
    size_t step = (san && *san == '1' ? 11 : 5) * (whole.len > 2000 ? 5 : 1);
    int64_t cuts = 0, crashes = 0, missed = 0, flips = 0;

    for (size_t n = k->known; n < whole.len; n += step * 4, cuts++) {
        write_file(path, whole.data, n);
        struct ending e = child(list, path);
        crashes += e.status >= 128;
        missed += e.status != EXIT_DAMAGED;
        if (e.status != EXIT_DAMAGED)
            printf("# the first %zu bytes: exit %d, %s%s\n", n, e.status, e.err, e.out);
    }
    ok(!missed, "%s: %lld beginnings are damage", k->name, (long long)cuts);
    for (size_t at = 0; at < whole.len; at += step, flips++) {
        whole.data[at] ^= (char)(1 << flips % 8);
        write_file(path, whole.data, whole.len);
        struct ending e = child(list, path);
        whole.data[at] ^= (char)(1 << flips % 8);
        if (e.status != 0 && e.status != 1 && e.status != 3 && e.status != 4) {
            printf("# byte %zu: exit %d, %s\n", at, e.status, e.err);
            crashes++;
        }
    }
    ok(!crashes, "%s: %lld changed bytes crash nothing", k->name, (long long)flips);
    buf_release(&whole);
}

int main(void)
{
    struct ending e;

    source_max_bytes = 1 << 20; /* a changed size must not fill the memory */
    enter_scratch();
    for (int64_t i = 0; i < ARRAY_LEN(kinds); i++)
        test_kind(&kinds[i]);
    source_entries = "*.txt";
    e = child(list, "x.zip");
    ok(!strncmp(e.out, "x.zip:../../up", 14) && strstr(e.out, "last one") && !strstr(e.out, "rows"),
       "a pattern chooses entries, and its star stands for slashes");
    source_entries = NULL;
    source_max_bytes = 40;
    e = child(list, "x.tar");
    ok(ended(&e, EXIT_BAD_DATA, "archive: x.tar: unpacks to more than --max-bytes 40\n"),
       "the files of an archive have a limit");
    write_file("x.gz", gz, sizeof gz - 1);
    source_max_bytes = 1;
    e = child(list, "x.gz");
    ok(e.status == EXIT_BAD_DATA, "so has a compressed file");
    source_max_bytes = 1 << 20;
    for (int64_t i = 0; i < ARRAY_LEN(kinds); i++)
        test_damage(&kinds[i]);
    leave_scratch();
    return finish();
}
