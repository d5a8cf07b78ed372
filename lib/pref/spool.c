/* spool.c -- the input, waiting on disk until it is judged.
 *
 * A row's fate is known only when all rows have been seen, and a pipe cannot be read twice.  So
 * each line is written behind a small header to a file that has no name and vanishes with the
 * process. */
#include "pref/pref.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct header {
    uint64_t len;
    int64_t number, length;
    double reward;
    uint64_t file; /* index into names */
};

struct spool {
    FILE *f;
    const char *dir;
    char **name; /* of the input files, in order of first use */
    int64_t names, count, read;
    struct buf line;
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

static uint64_t name_index(struct spool *s, const char *file)
{
    if (!s->names || strcmp(s->name[s->names - 1], file)) { /* files come one after the other */
        s->name = xrealloc(s->name, (size_t)(s->names + 1) * sizeof(*s->name));
        s->name[s->names++] = xstrdup(file);
    }
    return (uint64_t)s->names - 1;
}

void spool_add(struct spool *s, const struct row *r, double reward, int64_t length)
{
    struct header h = {r->len, r->number, length, reward, name_index(s, r->file)};
    if (fwrite(&h, sizeof(h), 1, s->f) != 1 || fwrite(r->line, 1, r->len, s->f) != r->len)
        die("write a temporary file in %s:", s->dir);
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

int spool_next(struct spool *s, struct spool_row *out)
{
    if (s->read == s->count)
        return 0;
    struct header h;
    int whole = fread(&h, sizeof(h), 1, s->f) == 1;
    if (whole) {
        buf_reset(&s->line);
        buf_reserve(&s->line, h.len + 1);
        whole = fread(s->line.data, 1, h.len, s->f) == h.len;
    }
    if (!whole)
        die("read a temporary file in %s:", s->dir);
    s->line.data[h.len] = 0;
    s->line.len = h.len;
    *out = (struct spool_row){s->line.data, h.len, s->name[h.file], h.number, h.length, h.reward};
    s->read++;
    return 1;
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
    free(s);
}
