/* tok_decode.c -- ids back to text: the tokens' names go through the file's decoding steps.
 *
 * The steps work on the list of tokens, as in the library whose text must be matched: some join
 * neighbours (bytes to a character), some look only at the first.  Bytes that are no UTF-8 become
 * U+FFFD: what a model writes need not be text. */

#include "text/tok.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct list {
    struct buf *v;
    int64_t n;
};

static void list_join(struct list *l, const char *between)
{
    for (int64_t i = 1; i < l->n; i++) {
        buf_str(&l->v[0], between);
        buf_add(&l->v[0], l->v[i].data, l->v[i].len);
        buf_release(&l->v[i]);
    }
    l->n = MIN(l->n, 1);
}

/* A token of which a character stands for no byte is taken as it is. */
static void bytes_of(const struct buf *token, struct buf *out)
{
    size_t before = out->len;

    for (const char *p = token->data, *end = p + token->len; p < end;) {
        int b = byte_level_byte(utf8_next(&p));
        if (b < 0) {
            out->len = before;
            buf_add(out, token->data, token->len);
            return;
        }
        buf_char(out, (char)b);
    }
}

static void decode_byte_level(const struct decode_step *step, struct list *l)
{
    struct buf bytes = {0};

    for (int64_t i = 0; i < l->n; i++) {
        bytes_of(&l->v[i], &bytes);
        buf_reset(&l->v[i]);
    }
    if (l->n)
        utf8_repair(&l->v[0], bytes.len ? bytes.data : "", bytes.len);
    list_join(l, "");
    buf_release(&bytes);
}

static void decode_replace(const struct decode_step *step, struct list *l)
{
    for (int64_t i = 0; i < l->n; i++) {
        struct buf b = {0};
        buf_replace(&b, l->v[i].data, l->v[i].len, &step->a, &step->b);
        buf_release(&l->v[i]);
        l->v[i] = b;
    }
}

/* The byte that a token like <0x0A> names, or -1. */
static int named_byte(const struct buf *b)
{
    if (b->len != 6 || memcmp(b->data, "<0x", 3) || b->data[5] != '>' ||
        !isxdigit((unsigned char)b->data[4]) ||
        !(b->data[3] == '+' || isxdigit((unsigned char)b->data[3])))
        return -1;
    return (int)strtol(b->data + 3, NULL, 16);
}

static void decode_byte_fallback(const struct decode_step *step, struct list *l)
{
    struct buf run = {0};
    int64_t out = 0;

    for (int64_t i = 0; i <= l->n; i++) {
        int byte = i < l->n ? named_byte(&l->v[i]) : -1;
        if (byte >= 0) {
            buf_char(&run, (char)byte);
            buf_release(&l->v[i]);
            continue;
        }
        if (run.len) { /* an ill-formed run is one U+FFFD a byte */
            int valid = utf8_valid(run.data, run.len);
            struct buf b = {0};
            for (size_t k = 0; !valid && k < run.len; k++)
                buf_str(&b, "\xef\xbf\xbd");
            if (valid)
                buf_add(&b, run.data, run.len);
            l->v[out++] = b;
            buf_reset(&run);
        }
        if (i < l->n) {
            struct buf b = l->v[i];
            l->v[i] = (struct buf){0};
            l->v[out++] = b;
        }
    }
    l->n = out;
    buf_release(&run);
}

static void decode_fuse(const struct decode_step *step, struct list *l)
{
    list_join(l, "");
}

static void decode_strip(const struct decode_step *step, struct list *l)
{
    const struct buf *a = &step->a;

    for (int64_t i = 0; i < l->n; i++) {
        struct buf b = {0};
        const char *s = l->v[i].data;
        size_t from = 0, to = l->v[i].len;
        for (int64_t k = 0; k < step->start && to - from >= a->len; k++, from += a->len)
            if (memcmp(s + from, a->data, a->len))
                break;
        for (int64_t k = 0; k < step->stop && to - from >= a->len; k++, to -= a->len)
            if (memcmp(s + to - a->len, a->data, a->len))
                break;
        buf_add(&b, s + from, to - from);
        buf_release(&l->v[i]);
        l->v[i] = b;
    }
}

static void decode_metaspace(const struct decode_step *step, struct list *l)
{
    static const struct buf blank = {(char *)" ", 1, 0}, nothing = {(char *)"", 0, 0};

    for (int64_t i = 0; i < l->n; i++) {
        struct buf b = {0};
        int drop = i == 0 && step->prefix != PREFIX_NEVER;
        buf_replace(&b, l->v[i].data, l->v[i].len, &step->a, drop ? &nothing : &blank);
        buf_release(&l->v[i]);
        l->v[i] = b;
    }
}

static void (*const decoders[])(const struct decode_step *, struct list *) = {
    [DECODE_BYTE_LEVEL] = decode_byte_level,
    [DECODE_REPLACE] = decode_replace,
    [DECODE_BYTE_FALLBACK] = decode_byte_fallback,
    [DECODE_FUSE] = decode_fuse,
    [DECODE_STRIP] = decode_strip,
    [DECODE_METASPACE] = decode_metaspace,
};

void tok_decode(struct tok *t, const int32_t *id, int64_t n, int skip_special, struct buf *out)
{
    struct list l = {xcalloc((size_t)MAX(n, 1), sizeof *l.v), 0};

    for (int64_t i = 0; i < n; i++) {
        if (id[i] < 0 || id[i] >= t->size || !t->token[id[i]].data)
            continue;
        if (skip_special && t->special[id[i]])
            continue;
        buf_add(&l.v[l.n++], t->token[id[i]].data, t->token[id[i]].len);
    }
    for (int64_t i = 0; i < t->decodes; i++)
        decoders[t->decode[i].type](&t->decode[i], &l);
    list_join(&l, t->has_decoder ? "" : " ");
    if (l.n)
        buf_add(out, l.v[0].data ? l.v[0].data : "", l.v[0].len);
    buf_release(&l.v[0]);
    free(l.v);
}
