/* unpack.c -- compression undone by libarchive, named by the first bytes and never by the name.
 *
 * Only filters with a firm magic number are asked: a text that happens to begin with "begin 644" is
 * a text, not something to uudecode. */

#include "text/unpack.h"
#include "text/text.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>

_Noreturn static void fail(struct unpack *u)
{
    const char *why = archive_error_string(u->archive);

    die_damaged("%s: %s", u->name, why ? why : "cannot be unpacked");
}

static la_ssize_t read_block(struct archive *a, void *arg, const void **block)
{
    struct unpack *u = arg;
    size_t n = u->from(u->arg, u->block, UNPACK_BLOCK);

    gzip_check_packed(&u->gzip, u->block, n);
    *block = u->block;
    return (la_ssize_t)n;
}

void unpack_open(struct unpack *u, const char *name, unpack_from *from, void *arg)
{
    struct archive_entry *e;
    struct archive *a = archive_read_new();

    if (!a)
        die("out of memory");
    *u = (struct unpack){.archive = a, .name = name, .from = from, .arg = arg};
    u->block = xmalloc(UNPACK_BLOCK);
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_lz4(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    if (archive_read_open(a, u, NULL, read_block, NULL) < ARCHIVE_WARN)
        fail(u);
    u->is_packed = archive_filter_count(a) > 1;
    u->is_gzip = archive_filter_count(a) == 2 && archive_filter_code(a, 0) == ARCHIVE_FILTER_GZIP;
    int r = archive_read_next_header(a, &e);
    if (r == ARCHIVE_EOF)
        unpack_close(u);
    else if (r < ARCHIVE_WARN)
        fail(u);
}

void unpack_limit(const char *name, int64_t bytes)
{
    if (bytes > source_max_bytes)
        die_with(EXIT_BAD_DATA, "%s: unpacks to more than --max-bytes %lld", name,
                 (long long)source_max_bytes);
}

size_t unpack_read(struct unpack *u, char *to, size_t n)
{
    if (!u->archive)
        return 0;
    la_ssize_t got = archive_read_data(u->archive, to, n);
    if (got < 0)
        fail(u);
    if (u->is_gzip)
        gzip_check_unpacked(&u->gzip, to, (size_t)got);
    u->bytes += got;
    if (u->is_packed)
        unpack_limit(u->name, u->bytes);
    if (!got) {
        if (u->is_gzip && !gzip_check_end(&u->gzip))
            die_damaged("%s: the gzip checksum is wrong, or something follows it", u->name);
        unpack_close(u);
    }
    return (size_t)got;
}

void unpack_close(struct unpack *u)
{
    archive_read_free(u->archive);
    gzip_check_release(&u->gzip);
    free(u->block);
    *u = (struct unpack){0};
}
