/* rows.c -- a row group: columns over one ragged column of tokens, and what must hold between them.
 *
 * What a set's row groups share (struct set_info) travels in each of them, so that one group alone
 * can be read. */
#include "shard/shard_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void set_info_copy(struct set_info *to, const struct set_info *from)
{
    *to = *from;
    to->tokenizer_hash = xstrdup(from->tokenizer_hash);
    to->columns = xstrdup(from->columns);
    to->template = xstrdup(from->template);
}

void set_info_release(struct set_info *i)
{
    free(i->tokenizer_hash);
    free(i->columns);
    free(i->template);
    *i = (struct set_info){0};
}

static void put_id(struct blob *b, const char *key, int64_t id)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)id);
    blob_meta(b, key, id < 0 ? "none" : text);
}

void set_info_put(const struct set_info *i, struct blob *b)
{
    blob_meta(b, "schema", "moeutils.rows");
    blob_meta(b, "version", "1");
    put_id(b, "seq", i->seq);
    put_id(b, "bos", i->bos);
    put_id(b, "eos", i->eos);
    blob_meta(b, "tokenizer", i->tokenizer_hash);
    blob_meta(b, "columns", i->columns);
    blob_meta(b, "template", i->template);
}

static char *get_id(const struct blob *b, const char *key, int64_t *id)
{
    const char *s = blob_get(b, key);
    if (s && !strcmp(s, "none")) {
        *id = -1;
        return NULL;
    }
    return meta_count(b, key, id);
}

char *set_info_get(struct set_info *i, const struct blob *b)
{
    const char *schema = blob_get(b, "schema"), *version = blob_get(b, "version");
    const char *text[3] = {blob_get(b, "tokenizer"), blob_get(b, "columns"),
                           blob_get(b, "template")};
    *i = (struct set_info){0};
    if (!schema || strcmp(schema, "moeutils.rows"))
        return xasprintf("schema %s holds no rows", schema ? schema : "(none)");
    if (!version || strcmp(version, "1"))
        return xasprintf("version %s of moeutils.rows is not one this program reads",
                         version ? version : "(none)");
    for (int k = 0; k < 3; k++)
        if (!text[k])
            return xstrdup("metadata lack tokenizer, columns or template");
    struct set_info found = {
        .tokenizer_hash = (char *)text[0], .columns = (char *)text[1], .template = (char *)text[2]};
    char *why;
    if ((why = meta_count(b, "seq", &found.seq)) || (why = get_id(b, "bos", &found.bos)) ||
        (why = get_id(b, "eos", &found.eos)))
        return why;
    if (found.seq < 1)
        return xstrdup("seq is 0");
    set_info_copy(i, &found);
    return NULL;
}

const char *set_info_differ(const struct set_info *a, const struct set_info *b)
{
    return a->seq != b->seq                               ? "seq"
           : strcmp(a->tokenizer_hash, b->tokenizer_hash) ? "the tokenizer"
           : strcmp(a->columns, b->columns)               ? "the columns"
           : strcmp(a->template, b->template)             ? "the template"
           : a->bos != b->bos || a->eos != b->eos         ? "bos or eos"
                                                          : NULL;
}

int set_info_has(const struct set_info *i, const char *column)
{
    size_t n = strlen(column);
    for (const char *p = i->columns; (p = strstr(p, column)); p += n)
        if ((p == i->columns || p[-1] == ',') && (p[n] == ',' || !p[n]))
            return 1;
    return 0;
}

char *rows_view(struct rows *r, const struct set_info *info, const struct blob *b)
{
    const struct {
        const char *name;
        enum dtype type;
        int optional;
        const void **at;
    } column[] = {
        {"tokens", DT_I32, 0, (const void **)&r->token},
        {"tokens.offsets", DT_I64, 0, (const void **)&r->offset},
        {"target", DT_U8, 0, (const void **)&r->target},
        {"weight", DT_F32, 0, (const void **)&r->weight},
        {"reward", DT_F32, 1, (const void **)&r->reward},
        {"pair", DT_I64, 1, (const void **)&r->pair},
        {"pack", DT_I64, 0, (const void **)&r->pack},
        {"margin", DT_F32, 1, (const void **)&r->margin},
        {"ref_logp", DT_F32, 1, (const void **)&r->ref_logp},
    };
    int64_t length[ARRAY_LEN(column)];
    *r = (struct rows){0};
    for (int64_t i = 0; i < ARRAY_LEN(column); i++) {
        const struct tensor *t = blob_find(b, column[i].name);
        int wanted = !column[i].optional || set_info_has(info, column[i].name);
        if (!t != !wanted)
            return xasprintf("column \"%s\" is %s", column[i].name,
                             t ? "not announced" : "missing");
        if (t && (t->type != column[i].type || t->ndim != 1))
            return xasprintf("column \"%s\" is not %s of one dimension", column[i].name,
                             dtype_name(column[i].type));
        length[i] = t ? t->shape[0] : -1;
        *column[i].at = t ? t->data : NULL;
    }
    r->tokens = length[0];
    r->rows = length[3];
    r->sequences = length[6];
    for (int64_t i = 0; i < ARRAY_LEN(column); i++) {
        int64_t n = i == 0 || i == 2 ? r->tokens
                    : i == 1         ? r->rows + 1
                    : i == 6         ? r->sequences
                                     : r->rows;
        if (length[i] >= 0 && length[i] != n)
            return xasprintf("column \"%s\" has %lld elements, not %lld", column[i].name,
                             (long long)length[i], (long long)n);
    }
    return NULL;
}

static char *values_check(const struct rows *r)
{
    const struct {
        const char *name;
        const float *v; /* (rows) or NULL */
    } optional[] = {{"reward", r->reward}, {"margin", r->margin}, {"ref_logp", r->ref_logp}};
    int32_t sign = 0;
    uint8_t above = 0;
    for (int64_t i = 0; i < r->tokens; i++) {
        sign |= r->token[i];
        above |= r->target[i] > 1;
    }
    if (sign < 0)
        return xstrdup("a token is negative");
    if (above)
        return xstrdup("a target is neither 0 nor 1");
    for (int64_t i = 0; i < r->rows; i++) {
        if (!isfinite(r->weight[i]) || r->weight[i] < 0)
            return xasprintf("row %lld: weight is negative or not finite", (long long)i);
        for (int k = 0; k < ARRAY_LEN(optional); k++)
            if (optional[k].v && !isfinite(optional[k].v[i]))
                return xasprintf("row %lld: %s is not finite", (long long)i, optional[k].name);
    }
    return NULL;
}

static char *pairs_check(const struct rows *r, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) {
        if (r->pair[i] < -1)
            return xasprintf("row %lld: pair is below -1", (long long)i);
        if (r->pair[i] < 0)
            continue;
        if (i + 1 >= to || r->pair[i + 1] != r->pair[i])
            return xasprintf("row %lld: the other row of pair %lld is not beside it", (long long)i,
                             (long long)r->pair[i]);
        i++;
    }
    return NULL;
}

char *rows_check(const struct rows *r, int64_t seq)
{
    if (r->offset[0] != 0 || r->offset[r->rows] != r->tokens)
        return xstrdup("offsets do not run from 0 to the number of tokens");
    for (int64_t i = 0; i < r->rows; i++)
        if (r->offset[i] >= r->offset[i + 1])
            return xasprintf("row %lld has no tokens", (long long)i);
    if (!r->sequences != !r->rows || (r->rows && r->pack[0] != 0))
        return xstrdup("the first packed sequence does not begin at row 0");
    for (int64_t p = 0; p < r->sequences; p++) {
        int64_t from = r->pack[p], to = p + 1 < r->sequences ? r->pack[p + 1] : r->rows;
        if (from >= to || to > r->rows)
            return xasprintf("packed sequence %lld has no rows", (long long)p);
        if (r->offset[to] - r->offset[from] > seq)
            return xasprintf("packed sequence %lld has %lld tokens, over %lld", (long long)p,
                             (long long)(r->offset[to] - r->offset[from]), (long long)seq);
        char *why = r->pair ? pairs_check(r, from, to) : NULL;
        if (why)
            return why;
    }
    return values_check(r);
}
