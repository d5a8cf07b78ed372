/* tok_sentencepiece.c -- SentencePiece models of its BPE kind, as Llama 2 and Mistral have them.
 *
 * A model is a protocol buffer: pieces with a score and a type, and how text is normalised.  What
 * would give other ids than SentencePiece's is refused by name. */

#include "text/tok_file.h"

#include <stdlib.h>
#include <string.h>

/* ---- protocol buffers: a message is fields, each a number with an integer or with bytes ---- */

struct field {
    uint64_t number, value; /* value: of an integer or a float's bits */
    const char *bytes;      /* of a string or message, else NULL */
    size_t len;
};

static int varint(const char **p, const char *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        unsigned char c = (unsigned char)*(*p)++;
        *value |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80)
            return 1;
    }
    return 0;
}

/* The next field, and *p behind it: 1; 0 at the end; -1: there is none. */
static int field_next(const char **p, const char *end, struct field *f)
{
    uint64_t key;

    if (*p == end)
        return 0;
    *f = (struct field){0};
    if (!varint(p, end, &key) || key >> 3 == 0)
        return -1;
    f->number = key >> 3;
    switch (key & 7) {
    case 0:
        return varint(p, end, &f->value) ? 1 : -1;
    case 1:
    case 5:
        f->len = (key & 7) == 1 ? 8 : 4;
        if ((size_t)(end - *p) < f->len)
            return -1;
        memcpy(&f->value, *p, f->len);
        *p += f->len;
        return 1;
    case 2:
        if (!varint(p, end, &f->value) || (uint64_t)(end - *p) < f->value)
            return -1;
        f->bytes = *p;
        f->len = (size_t)f->value;
        *p += f->len;
        return 1;
    }
    return -1;
}

/* ---- what of a model counts ---- */

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

struct piece {
    struct buf text;
    float score;
    int64_t type;
};
/* What is read of the trainer's and the normaliser's parts. */
enum { MODEL_TYPE, SUFFIX, FALLBACK, BOS_ID, PREFIX, EXTRA_SPACES, ESCAPE, SETTINGS };

struct model {
    struct piece *piece;
    int64_t n, cap, setting[SETTINGS];
    size_t charsmap; /* its bytes, in either direction */
    struct buf normalizer;
};

static const struct {
    uint64_t part, field; /* of ModelProto, of that */
    int64_t otherwise;
} settings[SETTINGS] = {
    [MODEL_TYPE] = {2, 3, 1}, [SUFFIX] = {2, 24, 0}, [FALLBACK] = {2, 35, 0},
    [BOS_ID] = {2, 41, 1},    [PREFIX] = {3, 3, 1},  [EXTRA_SPACES] = {3, 4, 1},
    [ESCAPE] = {3, 5, 1},
};

static int read_piece(struct model *m, const struct field *part)
{
    const char *p = part->bytes, *end = p + part->len;
    struct field f;
    int more;

    if (m->n == m->cap) {
        m->cap = MAX(1024, 2 * m->cap);
        m->piece = xrealloc(m->piece, (size_t)m->cap * sizeof *m->piece);
    }
    struct piece *piece = &m->piece[m->n];
    *piece = (struct piece){.type = NORMAL};
    while ((more = field_next(&p, end, &f)) == 1) {
        if (f.number == 1 && f.bytes) {
            buf_reset(&piece->text);
            buf_add(&piece->text, f.bytes, f.len);
        }
        if (f.number == 2 && !f.bytes)
            memcpy(&piece->score, &f.value, sizeof piece->score);
        if (f.number == 3 && !f.bytes)
            piece->type = (int64_t)f.value;
    }
    m->n += piece->text.len > 0;
    return more == 0 && piece->text.len && utf8_valid(piece->text.data, piece->text.len);
}

static int read_settings(struct model *m, const struct field *part)
{
    const char *p = part->bytes, *end = p + part->len;
    struct field f;
    int more;

    while ((more = field_next(&p, end, &f)) == 1) {
        for (int i = 0; i < SETTINGS; i++)
            if (settings[i].part == part->number && settings[i].field == f.number && !f.bytes)
                m->setting[i] = (int64_t)f.value;
        if (part->number == 3 && f.number == 1 && f.bytes) {
            buf_reset(&m->normalizer);
            buf_add(&m->normalizer, f.bytes, f.len);
        }
        if (part->number != 2 && f.number == 2 && f.bytes)
            m->charsmap += f.len;
    }
    return more == 0;
}

static int read_model(struct model *m, const struct buf *bytes)
{
    const char *p = bytes->data, *end = p + bytes->len;
    struct field f;
    int more;

    for (int i = 0; i < SETTINGS; i++)
        m->setting[i] = settings[i].otherwise;
    while ((more = field_next(&p, end, &f)) == 1) {
        if (!f.bytes)
            continue;
        if (f.number == 1 && !read_piece(m, &f))
            return 0;
        if ((f.number == 2 || f.number == 3 || f.number == 5) && !read_settings(m, &f))
            return 0;
    }
    return more == 0 && m->n;
}

static void refuse(const struct model *m, const char *path)
{
    static const char *const types[] = {"", "unigram", "", "word", "char"};
    int64_t type = m->setting[MODEL_TYPE];

    if (type != 2)
        die_misused("%s: a SentencePiece model of the kind %s; only BPE is supported", path,
                    type > 0 && type < ARRAY_LEN(types) ? types[type] : "unknown");
    if (m->charsmap)
        die_misused("%s: the normalisation \"%s\" of a SentencePiece model is not supported, only "
                    "\"identity\"",
                    path, m->normalizer.len ? m->normalizer.data : "");
    if (m->setting[EXTRA_SPACES])
        die_misused("%s: remove_extra_whitespaces of a SentencePiece model is not supported", path);
    if (!m->setting[ESCAPE])
        die_misused("%s: a SentencePiece model without escape_whitespaces is not supported", path);
    if (m->setting[SUFFIX])
        die_misused("%s: treat_whitespace_as_suffix of a SentencePiece model is not supported",
                    path);
    for (int64_t i = 0; i < m->n; i++)
        if (m->piece[i].type == UNUSED)
            die_misused("%s: unused pieces of a SentencePiece model are not supported: \"%s\"",
                        path, m->piece[i].text.data);
}

/* ---- and what it becomes ---- */

struct scored {
    float score;
    int64_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    return x->score != y->score ? (x->score > y->score ? -1 : 1)
                                : (x->id < y->id ? -1 : x->id > y->id);
}

/* rank: -1, or of the ordinary pieces the place of its score. */
static void add_merges(struct tok_file *f, const struct model *m, const char *path)
{
    struct scored *order = xcalloc((size_t)m->n, sizeof *order);
    struct buf *text = xcalloc((size_t)m->n, sizeof *text);
    int32_t *rank = xcalloc((size_t)m->n, sizeof *rank), at = 0;
    int64_t n = 0;

    for (int64_t i = 0; i < m->n; i++) {
        text[i] = m->piece[i].text;
        rank[i] = -1;
        if (m->piece[i].type == NORMAL)
            order[n++] = (struct scored){m->piece[i].score, i};
    }
    if (n)
        qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n; i++) {
        at += i && order[i].score != order[i - 1].score;
        rank[order[i].id] = at;
    }
    tok_ranks_merges(f, text, rank, 1, path);
    free(order);
    free(text);
    free(rank);
}

#define SPACE "\xe2\x96\x81"
static const char replace[] =
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SPACE "\"}";

/* Appends a pattern for the user's symbols: a|b. */
static void users_pattern(struct buf *out, const struct model *m)
{
    int64_t n = 0;

    for (int64_t i = 0; i < m->n; i++) {
        const struct piece *p = &m->piece[i];
        if (p->type != USER_DEFINED)
            continue;
        buf_str(out, n++ ? "|" : "");
        for (size_t k = 0; k < p->text.len; k++) {
            if (p->text.data[k] && strchr("\\^$.|?*+()[]{}", p->text.data[k]))
                buf_char(out, '\\');
            buf_char(out, p->text.data[k]);
        }
    }
}

/* The symbols of a user are looked for in normalised text, and so are normalised themselves: the
 * prefix is taken off them again.  (And off a text that is nothing but one such symbol.) */
static void add_steps(struct tok_file *f, const struct model *m, int has_users)
{
    int prefix = m->setting[PREFIX] != 0;
    struct buf bare = {0};

    if (prefix && has_users) {
        struct buf pattern = {0};
        buf_str(&pattern, "\\A" SPACE "(?=(?:");
        users_pattern(&pattern, m);
        buf_str(&pattern, ")\\z)");
        buf_str(&bare, ",{\"type\":\"Replace\",\"pattern\":{\"Regex\":");
        json_quote(&bare, pattern.data, pattern.len);
        buf_str(&bare, "},\"content\":\"\"}");
        buf_release(&pattern);
    }
    if (prefix)
        buf_printf(&f->normalizer,
                   "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
                   "\"" SPACE "\"},%s%s]}",
                   replace, bare.len ? bare.data : "");
    else
        buf_str(&f->normalizer, replace);
    buf_printf(&f->decoder,
               "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
               "\"String\":\"" SPACE "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
               "{\"type\":\"Fuse\"}%s]}",
               prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    buf_release(&bare);
}

int tok_from_sentencepiece(const struct buf *bytes, const char *path, struct buf *json)
{
    struct model m = {0};
    struct tok_file f;
    int has_users = 0, ok = bytes->len && bytes->data[0] == '\n' && read_model(&m, bytes);

    tok_file_init(&f);
    if (ok)
        refuse(&m, path);
    for (int64_t i = 0; ok && i < m.n; i++) {
        const struct piece *p = &m.piece[i];
        tok_file_token(&f, i, p->text.data, p->text.len, path);
        if (p->type == UNKNOWN)
            f.unk = i;
        if (p->type == UNKNOWN || p->type == CONTROL)
            tok_file_added(&f, i)->special = 1;
        if (p->type == USER_DEFINED)
            has_users = tok_file_added(&f, i)->normalized = 1;
    }
    if (ok) {
        add_merges(&f, &m, path);
        f.byte_fallback = m.setting[FALLBACK] != 0;
        f.fuse_unk = 1;
        f.bos = m.setting[BOS_ID] >= 0 && m.setting[BOS_ID] < m.n ? m.setting[BOS_ID] : -1;
        add_steps(&f, &m, has_users);
        tok_file_config(&f, path);
        tok_file_write(&f, json);
    }
    for (int64_t i = 0; i < m.n; i++)
        buf_release(&m.piece[i].text);
    free(m.piece);
    buf_release(&m.normalizer);
    tok_file_release(&f);
    return ok;
}
