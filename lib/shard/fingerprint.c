/* fingerprint.c -- one number for the data of a set, whatever they are kept in.
 *
 * Each column is hashed end to end over all row groups, with offsets, and first rows of packs,
 * counted from the start of the set; so it is the same for a set, a stream and any size of row
 * group. */
#include "shard/shard_priv.h"

#include <stdlib.h>

/* A column that came later has a line only in data that have it, so older fingerprints hold. */
enum { FIRST_COLUMNS = 7 };
static const char *const columns[] = {"tokens", "tokens.offsets", "target", "weight",  "reward",
                                      "pair",   "pack",           "margin", "ref_logp"};

void fingerprint_start(struct fingerprint *f)
{
    *f = (struct fingerprint){0};
    for (int i = 0; i < ARRAY_LEN(columns); i++)
        f->column[i] = hash_stream_new();
}

static void add_shifted(struct hash_stream *h, const int64_t *v, int64_t n, int64_t by)
{
    int64_t block[512];
    for (int64_t done = 0; done < n; done += ARRAY_LEN(block)) {
        int64_t m = MIN(ARRAY_LEN(block), n - done);
        for (int64_t i = 0; i < m; i++)
            block[i] = v[done + i] + by;
        hash_stream_add(h, block, (size_t)m * sizeof *block);
    }
}

void fingerprint_add(struct fingerprint *f, const struct rows *r)
{
    hash_stream_add(f->column[0], r->token, (size_t)r->tokens * sizeof *r->token);
    add_shifted(f->column[1], r->offset + 1, r->rows, f->tokens);
    hash_stream_add(f->column[2], r->target, (size_t)r->tokens);
    hash_stream_add(f->column[3], r->weight, (size_t)r->rows * sizeof *r->weight);
    if (r->reward)
        hash_stream_add(f->column[4], r->reward, (size_t)r->rows * sizeof *r->reward);
    if (r->pair)
        hash_stream_add(f->column[5], r->pair, (size_t)r->rows * sizeof *r->pair);
    add_shifted(f->column[6], r->pack, r->sequences, f->rows);
    if (r->margin)
        hash_stream_add(f->column[7], r->margin, (size_t)r->rows * sizeof *r->margin);
    if (r->ref_logp)
        hash_stream_add(f->column[8], r->ref_logp, (size_t)r->rows * sizeof *r->ref_logp);
    f->rows += r->rows;
    f->tokens += r->tokens;
}

void fingerprint_end(struct fingerprint *f, const struct set_info *info, char hex[17])
{
    struct buf text = {0};
    buf_printf(&text, "moeutils.rows 1\nseq %lld\ntokenizer %s\ncolumns %s\n", (long long)info->seq,
               info->tokenizer_hash, info->columns);
    for (int i = 0; i < ARRAY_LEN(columns); i++) {
        char column[17];
        hash_hex(column, hash_stream_value(f->column[i]));
        if (i < FIRST_COLUMNS || set_info_has(info, columns[i]))
            buf_printf(&text, "%s %s\n", columns[i], column);
        hash_stream_free(f->column[i]);
    }
    hash_hex(hex, hash_xxh3(text.data, text.len));
    buf_release(&text);
}
