/* spool.c -- the input, waiting on disk until it is judged.
 *
 * A row's fate is known only when all rows have been seen, and a pipe cannot be read twice.  So
 * each line is written behind a small header to a file that has no name and vanishes with the
 * process; of a plain file only the header is written, as its lines can be read again. */
#include "pref/pref.h"
#include "pref/reread.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct header {
    uint64_t len;
    int64_t number, length;
    double reward;
    int64_t file;   /* index into names, and of a plain file into again: */
    int64_t offset; /* where the line is in it; -1: it follows */
    int64_t plain;
};

struct spool {
    FILE *f;
    const char *dir;
    char **name; /* of the input files, in order of first use */
    int64_t names, count, read;
    struct buf line;
    int64_t *at, cap; /* (count) where each row begins, if indexed */
    int indexed;
    int64_t end;
    struct buf drawn; /* of spool_at() */
    struct reread again;
};

struct spool *spool_new(void)
{
    struct spool *s = xcalloc(1, sizeof(*s));
    s->dir = getenv("TMPDIR");
    if (!s->dir || !*s->dir)
        s->dir = "/var/tmp";
    char *path = xasprintf("%s/%s.XXXXXX", s->dir, tool_name ? tool_name : "spool");
    int fd = mkostemp(path, O_CLOEXEC); /* a command must not hold the bytes when we are gone */
    if (fd < 0)
        die("create a temporary file in %s:", s->dir);
    unlink(path);
    free(path);
    s->f = fdopen(fd, "w+");
    if (!s->f)
        die("open a temporary file in %s:", s->dir);
    setvbuf(s->f, NULL, _IOFBF, 1 << 18);
    return s;
}

void spool_index(struct spool *s)
{
    s->indexed = 1;
}

static int64_t name_index(struct spool *s, const char *file)
{
    if (!s->names || strcmp(s->name[s->names - 1], file)) { /* files come one after the other */
        s->name = xrealloc(s->name, (size_t)(s->names + 1) * sizeof(*s->name));
        s->name[s->names++] = xstrdup(file);
    }
    return s->names - 1;
}

void spool_add(struct spool *s, const struct row *r, double reward, int64_t length)
{
    struct header h = {
        r->len, r->number, length, reward, name_index(s, r->file), r->is_plain ? r->offset : -1,
        -1};
    size_t follows = h.offset < 0 ? r->len : 0;
    if (h.offset >= 0)
        h.plain = reread_add(&s->again, r->file);
    if (fwrite(&h, sizeof(h), 1, s->f) != 1 || fwrite(r->line, 1, follows, s->f) != follows)
        die("write a temporary file in %s:", s->dir);
    if (s->indexed && s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->at = xrealloc(s->at, (size_t)s->cap * sizeof(*s->at));
    }
    if (s->indexed)
        s->at[s->count] = s->end;
    s->end += (int64_t)(sizeof(h) + follows);
    s->count++;
}

int64_t spool_count(const struct spool *s)
{
    return s->count;
}

void spool_rewind(struct spool *s)
{
    if (fflush(s->f) || fseeko(s->f, 0, SEEK_SET))
        die("write a temporary file in %s:", s->dir);
    s->read = 0;
}

static struct spool_row row_of(const struct spool *s, const struct header *h, char *line)
{
    return (struct spool_row){line, h->len, s->name[h->file], h->number, h->length, h->reward};
}

int spool_next(struct spool *s, struct spool_row *out)
{
    if (s->read == s->count) {
        reread_check(&s->again);
        return 0;
    }
    struct header h;
    int whole = fread(&h, sizeof(h), 1, s->f) == 1;
    char *line = NULL;
    if (whole && h.offset >= 0) {
        line = reread_line(&s->again, h.plain, h.offset, h.len);
    } else if (whole) {
        buf_reset(&s->line);
        buf_reserve(&s->line, h.len + 1);
        line = s->line.data;
        line[h.len] = 0;
        whole = fread(line, 1, h.len, s->f) == h.len;
    }
    if (!whole)
        die("read a temporary file in %s:", s->dir);
    *out = row_of(s, &h, line);
    s->read++;
    return 1;
}

/* Past the stream's buffer, which a seek would throw away. */
static void read_at(struct spool *s, int64_t at, size_t n, char *to)
{
    for (size_t got = 0; got < n;) {
        ssize_t r = pread(fileno(s->f), to + got, n - got, at + (int64_t)got);
        if (r <= 0)
            die("read a temporary file in %s:", s->dir);
        got += (size_t)r;
    }
}

void spool_at(struct spool *s, int64_t i, struct spool_row *out)
{
    struct header h;
    read_at(s, s->at[i], sizeof(h), (char *)&h);
    buf_reset(&s->drawn);
    buf_reserve(&s->drawn, h.len + 1);
    if (h.offset >= 0)
        reread_copy(&s->again, h.plain, h.offset, h.len, &s->drawn);
    else
        read_at(s, s->at[i] + (int64_t)sizeof(h), h.len, s->drawn.data);
    s->drawn.data[h.len] = 0;
    *out = row_of(s, &h, s->drawn.data);
}

char *spool_where(struct spool *s, int64_t i)
{
    struct spool_row r = {.file = "?"};
    spool_rewind(s);
    while (spool_next(s, &r) && i--)
        ;
    return xasprintf("%s:%lld", r.file, (long long)r.number);
}

void spool_free(struct spool *s)
{
    fclose(s->f);
    for (int64_t i = 0; i < s->names; i++)
        free(s->name[i]);
    free(s->name);
    buf_release(&s->line);
    buf_release(&s->drawn);
    free(s->at);
    reread_release(&s->again);
    free(s);
}
