/* members.c -- the files in an archive as sources; nothing is ever written to a disk.
 *
 * An entry's name is a label to print and to match, never a path to open, so "../" and links lead
 * nowhere.  libarchive reads the archive; what it lets pass is checked here: a tar without its end
 * mark and a zip without its table were cut off.  A tar behind another is part of it, as cat makes
 * it. */

#include "text/members.h"
#include "text/text.h"

#include <archive.h>
#include <archive_entry.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TAR_BLOCK = 512, TAR_END = 2 * TAR_BLOCK, ZIP_END = 22 + 65535 /* with a comment */ };

/* A tar begins with a header whose own sum is in it, or with its end mark when it is empty. */
static int is_tar(const char *head, size_t n)
{
    enum { SUM_AT = 148, SUM_LEN = 8 };
    char field[SUM_LEN + 1] = {0}, *end;
    long sum = 0, zero = 1;

    if (n < TAR_BLOCK)
        return 0;
    for (int i = 0; i < TAR_BLOCK; i++) {
        zero &= !head[i];
        sum += i >= SUM_AT && i < SUM_AT + SUM_LEN ? ' ' : (unsigned char)head[i];
    }
    memcpy(field, head + SUM_AT, SUM_LEN);
    return zero || (strtol(field, &end, 8) == sum && end != field);
}

static int begins(const char *head, size_t n, const char *magic, size_t len)
{
    return n >= len && !memcmp(head, magic, len);
}

int members_in(const char *head, size_t n)
{
    return begins(head, n, "PK\3\4", 4) || begins(head, n, "PK\5\6", 4) || is_tar(head, n);
}

int members_sought(const char *head, size_t n)
{
    return begins(head, n, "PK\3\4", 4) || begins(head, n, "PK\5\6", 4) ||
           begins(head, n, "7z\xbc\xaf\x27\x1c", 6);
}

_Noreturn static void fail(const struct members *m)
{
    const char *why = archive_error_string(m->archive);

    die_damaged("%s: %s", m->label.len ? m->label.data : m->name,
                why ? why : "cannot be read as an archive");
}

static void begin(struct members *m, const char *name)
{
    *m = (struct members){.archive = archive_read_new(), .name = name};
    m->utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (!m->archive)
        die("out of memory");
    archive_read_support_format_tar(m->archive);
    archive_read_support_format_zip(m->archive);
    archive_read_support_format_7zip(m->archive);
    archive_read_support_format_empty(m->archive);
    archive_read_set_format_option(m->archive, "tar", "read_concatenated_archives", "1");
}

static void keep_tail(struct members *m, const char *p, size_t n)
{
    size_t take = MIN(n, ZIP_END), keep = MIN(m->tail.len, ZIP_END - take);

    if (keep)
        memmove(m->tail.data, m->tail.data + m->tail.len - keep, keep);
    m->tail.len = keep;
    buf_add(&m->tail, p + n - take, take);
}

void members_open_fd(struct members *m, const char *name, int fd)
{
    off_t size = lseek(fd, 0, SEEK_END), from = MAX(0, size - ZIP_END);
    char *end = xmalloc(ZIP_END);
    ssize_t n = pread(fd, end, ZIP_END, from);

    begin(m, name);
    keep_tail(m, end, n > 0 ? (size_t)n : 0);
    free(end);
    lseek(fd, 0, SEEK_SET);
    if (archive_read_open_fd(m->archive, fd, UNPACK_BLOCK) < ARCHIVE_WARN)
        fail(m);
}

static la_ssize_t read_block(struct archive *a, void *arg, const void **block)
{
    struct members *m = arg;
    size_t n = m->block.len;

    if (!m->head) {
        buf_reset(&m->block);
        buf_reserve(&m->block, UNPACK_BLOCK);
        n = unpack_read(m->file, m->block.data, UNPACK_BLOCK);
    }
    m->head = 0;
    keep_tail(m, m->block.data, n);
    *block = m->block.data;
    return (la_ssize_t)n;
}

void members_open(struct members *m, const char *name, struct unpack *file, const char *head,
                  size_t n)
{
    begin(m, name);
    m->file = file;
    m->head = 1;
    buf_add(&m->block, head, n);
    if (archive_read_open(m->archive, m, NULL, read_block, NULL) < ARCHIVE_WARN)
        fail(m);
}

/* The entry's name behind the archive's, with what could drive a terminal spelt out. */
static void set_label(struct members *m, struct archive_entry *e)
{
    const char *name = archive_entry_pathname(e);
    struct buf clean = {0};

    utf8_repair(&clean, name ? name : "", name ? strlen(name) : 0);
    buf_reset(&m->label);
    buf_printf(&m->label, "%s:", m->name);
    for (const char *s = clean.len ? clean.data : "", *next; *s; s = next) {
        next = s;
        uint32_t c = utf8_next(&next);
        if (c < 0x20 || (c >= 0x7f && c < 0xa0))
            buf_printf(&m->label, "\\x%02x", c);
        else
            buf_add(&m->label, s, (size_t)(next - s));
    }
    buf_release(&clean);
}

/* libarchive drops a name that the locale has no letters for, and the tools run in the plain one.
 */
static int next_header(struct members *m, struct archive_entry **e)
{
    locale_t old = uselocale(m->utf8 ? m->utf8 : LC_GLOBAL_LOCALE);
    int r = archive_read_next_header(m->archive, e);

    if (r == ARCHIVE_OK || r == ARCHIVE_WARN)
        set_label(m, *e);
    uselocale(old);
    return r;
}

static int is_wanted(const struct members *m, struct archive_entry *e)
{
    const char *name = m->label.data + strlen(m->name) + 1;

    return archive_entry_filetype(e) == S_IFREG && !archive_entry_hardlink(e) &&
           !archive_entry_symlink(e) && (!source_entries || !fnmatch(source_entries, name, 0));
}

/* Whether a zip's last record is there, whole. */
static int has_zip_end(const struct buf *tail)
{
    enum { END = 22 };
    const char *end = NULL, *p = tail->data, *stop = tail->data + tail->len;

    for (; (p = memmem(p, (size_t)(stop - p), "PK\5\6", 4)); p++)
        end = p;
    return end && stop - end >= END;
}

/* All of the file is read, so that its checksum counts and nothing is left unseen. */
static void finish(struct members *m)
{
    int kind = archive_format(m->archive) & ARCHIVE_FORMAT_BASE_MASK;
    size_t zeros = 0, n;
    const void *rest;

    while (m->file && read_block(m->archive, m, &rest) > 0)
        ;
    for (n = m->tail.len; zeros < n && !m->tail.data[n - 1 - zeros]; zeros++)
        ;
    if ((kind == ARCHIVE_FORMAT_TAR && zeros < TAR_END) ||
        (kind == ARCHIVE_FORMAT_ZIP && !has_zip_end(&m->tail)))
        die_damaged("%s: the archive has no end: it is cut off", m->name);
}

int members_next(struct members *m)
{
    struct archive_entry *e;

    for (;;) {
        int r = next_header(m, &e);
        if (r == ARCHIVE_EOF) {
            finish(m);
            return 0;
        }
        if (r < ARCHIVE_WARN)
            fail(m);
        if (is_wanted(m, e))
            break;
        m->skipped++;
    }
    if (archive_entry_is_encrypted(e))
        die_damaged("%s: is encrypted", m->label.data);
    m->size = archive_entry_size_is_set(e) ? archive_entry_size(e) : -1;
    m->left = m->size;
    m->entries++;
    return 1;
}

size_t members_read(void *members, char *to, size_t n)
{
    struct members *m = members;
    la_ssize_t got = archive_read_data(m->archive, to, n);

    if (got < 0)
        fail(m);
    m->bytes += got;
    m->left -= got;
    if (!got && m->size >= 0 && m->left)
        die_damaged("%s: %lld bytes of %lld are missing", m->label.data, (long long)m->left,
                    (long long)m->size);
    unpack_limit(m->name, m->bytes);
    return (size_t)got;
}

double members_bytes_read(const struct members *m)
{
    return m->archive && !m->file ? (double)archive_filter_bytes(m->archive, -1) : 0;
}

void members_close(struct members *m)
{
    if (m->archive && m->skipped)
        say("%s: %lld entries read, %lld skipped (folders, links%s)", m->name,
            (long long)m->entries, (long long)m->skipped,
            source_entries ? ", and what --entries leaves out" : "");
    archive_read_free(m->archive);
    if (m->utf8)
        freelocale(m->utf8);
    buf_release(&m->block);
    buf_release(&m->tail);
    buf_release(&m->label);
    *m = (struct members){0};
}
