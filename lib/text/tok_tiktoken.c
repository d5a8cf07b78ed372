/* tok_tiktoken.c -- tiktoken's files of ranks: lines of a token's bytes in base64, a space, and its
 * rank, which is its id. */

#include "text/tok_file.h"
#include "text/tok_known.h"

#include <stdlib.h>
#include <string.h>

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

int base64_decode(struct buf *out, const char *s, size_t n)
{
    if (!n || n % 4)
        return -1;
    for (size_t i = 0; i < n; i += 4) {
        int pad = i + 4 == n ? (s[i + 3] == '=') + (s[i + 2] == '=' && s[i + 3] == '=') : 0;
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            int v = k >= 4 - (size_t)pad ? 0 : base64_value(s[i + k]);
            if (v < 0)
                return -1;
            bits = bits << 6 | (uint32_t)v;
        }
        for (int k = 0; k < 3 - pad; k++)
            buf_char(out, (char)(bits >> (16 - 8 * k)));
    }
    return 0;
}

/* One line: 1 and its token and rank, or 0. */
static int rank_line(const char *line, size_t n, struct buf *token, int64_t *rank)
{
    const char *blank = memchr(line, ' ', n);
    char *end;

    buf_reset(token);
    if (!blank || blank + 1 == line + n || blank[1] < '0' || blank[1] > '9')
        return 0;
    *rank = strtoll(blank + 1, &end, 10);
    return end == line + n && !base64_decode(token, line, (size_t)(blank - line));
}

static void add_specials(struct tok_file *f, const struct known *k, const char *path)
{
    for (const struct known_special *s = k->special; s->name; s++)
        for (int i = 0; i < s->count; i++) {
            char name[80];
            const char *number = strstr(s->name, "%d");
            if (number)
                snprintf(name, sizeof name, "%.*s%d%s", (int)(number - s->name), s->name,
                         s->number + i, number + 2);
            else
                snprintf(name, sizeof name, "%s", s->name);
            tok_file_token(f, s->id + i, name, strlen(name), path);
            tok_file_added(f, s->id + i)->special = 1;
        }
    f->bos = k->bos;
}

static const struct known *known_file(const struct buf *bytes, const char *path)
{
    char sha256[65];
    struct buf names = {0};

    hash_sha256(sha256, bytes->data, bytes->len);
    for (const struct known *k = tok_known; k->name; k++) {
        if (!strcmp(sha256, k->sha256)) {
            buf_release(&names);
            return k;
        }
        buf_printf(&names, "%s%s", k == tok_known ? "" : ", ", k->name);
    }
    die_misused("%s: a tiktoken file does not say its pattern and special tokens, and this one is "
                "none of those that are known (%s)",
                path, names.data);
}

int tok_from_tiktoken(const struct buf *bytes, const char *path, struct buf *json)
{
    struct tok_ranked v;
    struct buf token = {0};
    int64_t rank;
    const char *end = bytes->data + bytes->len;
    const struct known *k = NULL;

    tok_ranked_init(&v);
    for (const char *line = bytes->data, *stop; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop ? stop : end;
        if (!rank_line(line, (size_t)(stop - line), &token, &rank))
            break; /* the first: another format.  Later ones are as they were when hashed */
        k = k ? k : known_file(bytes, path);
        tok_ranked_add(&v, rank, &token, path);
    }
    if (k) {
        if (k->normalizer)
            buf_str(&v.file.normalizer, k->normalizer);
        tok_ranked_finish(&v, path);
        add_specials(&v.file, k, path);
        tok_file_config(&v.file, path);
        tok_file_byte_level(&v.file, k->pattern);
        tok_file_write(&v.file, json);
    }
    buf_release(&token);
    tok_ranked_release(&v);
    return k != NULL;
}
