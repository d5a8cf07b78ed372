/* shard-pack.c -- rows in, packed sequences of tokens out: template, tokens, mask, packing.
 *
 * At either end another program's documents may stand instead, tokens already or not packed yet.
 * The first good row decides which columns there are, since those of all row groups are the same; a
 * later row that has more of them or fewer is a bad row. */
#include "pref/pref.h"
#include "shard/shard.h"
#include "text/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *output, *tokenizer, *template = "plain", *overlong = "error",
                                       *control = "escape", *from = "rows", *to = "shards";
enum { SEQ_MAX = 1 << 24 };
static int64_t seq = 256, window = 1, group_bytes = 32 << 20;
static int zstd;

static const struct opt options[] = {
    OPT_STR('o', "output", &output, "path", "set/, file.safetensors or stream.sts[.zst]"),
    OPT_STR('t', "tokenizer", &tokenizer, "path",
            "tokenizer.json, or a set or checkpoint with one"),
    OPT_CHOICE(0, "from", &from, "rows|megatron|webdataset", "what the operands are"),
    OPT_CHOICE(0, "to", &to, "shards|megatron|webdataset", "what is written"),
    OPT_STR(0, "template", &template, "name",
            "how a row becomes tokens; auto: as the tokenizer says"),
    OPT_INT(0, "seq", &seq, "n", "tokens in a packed sequence"),
    OPT_CHOICE(0, "overlong", &overlong, "error|drop|truncate|left|split",
               "rows that do not fit into one"),
    OPT_CHOICE(0, "control", &control, "error|escape|allow",
               "control tokens that a row's own text spells"),
    OPT_INT(0, "window", &window, "n", "pack n items at a time best fit; 1: next fit, in order"),
    OPT_INT(0, "group-bytes", &group_bytes, "n",
            "size of a row group: one blob, one file of a set"),
    OPT_FLAG(0, "zstd", &zstd, "a stream in zstd frames, whatever its name"),
    ROW_OPTIONS,
    OPT_END,
};

static struct tok *tok;
static const struct chat *chat;
static struct packer *packer; /* opened by the first good row, or else */
static const struct docs_format *docs_in, *docs_out;
static void *docs; /* docs_out's writer */

/* The columns a row may have beside the weight, and what is wrong when it differs from the first.
 */
enum { PAIR, REWARD, MARGIN, REF_LOGP, COLUMNS };
static const struct {
    const char *name, *extra, *missing;
    unsigned part;
} column[COLUMNS] = {
    {"pair", "a pair, and the first row is none", "not a pair, and the first row is one", DOC_PAIR},
    {"reward", "has a reward, and the first row has none",
     "has no reward, and the first row has one", DOC_REWARD},
    {"margin", "has a margin, and the first row has none",
     "has no margin, and the first row has one", DOC_MARGIN},
    {"ref_logp", "has ref_logp, and the first row has none",
     "has no ref_logp, and the first row has it", DOC_REF_LOGP},
};
static int has[COLUMNS]; /* the first row's */
static int64_t tokens, learnt, rows_out, cut_rows, split_rows, dropped;
static struct rendered rendered[2]; /* chosen and rejected; else the first only */
static struct tag_count *tags;

static int is_open(void)
{
    return docs_out ? docs != NULL : packer != NULL;
}

static void open_output(void)
{
    if (docs_out) {
        docs = docs_out->create(output, tok_size(tok));
        return;
    }
    struct set_info info = {.seq = seq,
                            .tokenizer_hash = (char *)tok_hash(tok),
                            .template = (char *)chat_name(chat),
                            .bos = tok_bos(tok),
                            .eos = chat_stop(chat, tok)};
    static const int order[COLUMNS] = {REWARD, PAIR, MARGIN, REF_LOGP};
    struct buf columns = {0};
    buf_str(&columns, "weight");
    for (int k = 0; k < COLUMNS; k++)
        if (has[order[k]])
            buf_printf(&columns, ",%s", column[order[k]].name);
    info.columns = columns.data;
    packer = packer_open(output, &info, group_bytes / 5); /* a token and its target flag */
    packer_window(packer, window);
    if (zstd)
        packer_zstd(packer);
    packer_file(packer, "tokenizer.json", tok_json(tok)->data, tok_json(tok)->len);
    if (tok_config(tok)->len)
        packer_file(packer, "tokenizer_config.json", tok_config(tok)->data, tok_config(tok)->len);
    buf_release(&columns);
}

/* d: what is known of the document but its tokens. */
static const char *put(const struct rendered *r, int64_t at, int64_t n, struct doc d)
{
    unsigned parts = 0;
    const char *why = NULL;
    d.token = r->token.id + at;                      /* (n) */
    d.target = (const uint8_t *)r->target.data + at; /* (n) */
    d.n = n;
    for (int k = 0; k < COLUMNS; k++)
        parts |= has[k] ? column[k].part : 0;
    if (docs_out)
        why = docs_out->put(docs, &d, parts);
    else
        packer_add(packer, &d);
    if (why)
        return why;
    tokens += n;
    learnt += rendered_learnt(r, at, n);
    rows_out++;
    return NULL;
}

static const char *numbers_fault(const struct doc *d, const int in[COLUMNS])
{
    if (!(d->weight >= 0) || !isfinite((float)d->weight))
        return "\"weight\" is negative or too large";
    if (in[REWARD] && !isfinite((float)d->reward))
        return "a reward is too large";
    if (!isfinite((float)d->margin) || !isfinite((float)d->ref_logp))
        return "\"margin\" or ref_logp is too large";
    return NULL;
}

/* What a row has more or less than the first had, or NULL. */
static const char *columns_differ(const int in[COLUMNS])
{
    for (int k = 0; is_open() && k < COLUMNS; k++)
        if (in[k] != has[k])
            return in[k] ? column[k].extra : column[k].missing;
    return NULL;
}

/* Fills in what goes along with a row's one or two documents, and which columns it has.  Returns
 * NULL, or why the row is bad. */
static const char *values(const struct row *row, struct doc d[2], int in[COLUMNS])
{
    int pair = row->chosen && row->rejected;
    double weight = isnan(row->weight) ? 1 : row->weight;
    double margin = pair ? row->margin : NAN;
    double reward[2] = {pair ? row->reward_chosen : row->reward, row->reward_rejected};
    double ref_logp[2] = {pair ? row->ref_logp_chosen : NAN, row->ref_logp_rejected};
    in[PAIR] = pair;
    in[REWARD] = !isnan(reward[0]) && (!pair || !isnan(reward[1]));
    in[MARGIN] = !isnan(margin);
    in[REF_LOGP] = !isnan(ref_logp[0]) && !isnan(ref_logp[1]);
    if (pair && isnan(reward[0]) != isnan(reward[1]))
        return "one side of the pair has a reward, the other has none";
    if (pair && isnan(ref_logp[0]) != isnan(ref_logp[1]))
        return "one side of the pair has ref_logp, the other has none";
    const char *why = columns_differ(in);
    for (int i = 0; i <= pair && !why; i++) {
        d[i] = (struct doc){.weight = weight,
                            .reward = reward[i],
                            .pair = pair ? rows_out / 2 : -1,
                            .margin = in[MARGIN] ? margin : 0,
                            .ref_logp = in[REF_LOGP] ? ref_logp[i] : 0};
        why = numbers_fault(&d[i], in);
    }
    return why;
}

/* Puts the row's one or two documents into the template.  Returns NULL, or why the row is bad. */
static const char *render(const struct row *row, int docs)
{
    int allowed = !strcmp(control, "allow");
    if (!strcmp(control, "error") && row_spells_control(row, tok))
        return "its text spells a control token";
    if (!allowed && row_spells_tag(row))
        return "its text spells a tag in words, which cannot be escaped";
    for (int i = 0; i < docs; i++) {
        struct row one = *row;
        one.control = allowed;
        if (docs > 1) {
            one.response = i ? row->rejected : row->chosen;
            one.response_len = i ? row->rejected_len : row->chosen_len;
        }
        const char *why = chat_render_row(chat, tok, &one, &rendered[i]);
        if (why)
            return why;
        if (!rendered_learnt(&rendered[i], 0, rendered[i].token.n))
            return "nothing in it is learnt";
    }
    return NULL;
}

/* Puts what is rendered, a document or a pair.  whole: all of it is learnt, so that it may be
 * split. Returns NULL, or why it is bad; *drop: it is fine, but not wanted. */
static const char *place(const struct doc doc[2], const int in[COLUMNS], int whole, int *drop)
{
    const char *why = NULL;
    int number = 1 + in[PAIR];
    int too_long = rendered[0].token.n + (in[PAIR] ? rendered[1].token.n : 0) > seq;
    int splits = too_long && whole && !strcmp(overlong, "split");
    if (in[PAIR] && rendered_equal(&rendered[0], &rendered[1]))
        return "chosen and rejected are the same";
    if (too_long && !strcmp(overlong, "error"))
        return in[PAIR] ? "the pair is longer than --seq" : "longer than --seq";
    if (too_long && !splits) {
        int stale = in[REF_LOGP] && strcmp(overlong, "drop");
        why = stale ? "its ref_logp is of more than fits into --seq"
                    : overlong_cut(rendered, number, seq, overlong);
        *drop = why != NULL;
        if (why)
            return why;
        cut_rows++;
    }
    if (!is_open()) {
        memcpy(has, in, sizeof has);
        open_output();
    }
    split_rows += splits;
    for (int i = 0; i < number; i++)
        for (int64_t n = rendered[i].token.n, at = 0; at < n && !why; at += seq)
            why = put(&rendered[i], at, MIN(seq, n - at), doc[i]);
    return why;
}

/* Packs the reader's row; as place(). */
static const char *take(const struct row *row, int *drop)
{
    struct doc doc[2];
    int in[COLUMNS];
    const char *why = values(row, doc, in);
    if (why || (why = render(row, 1 + in[PAIR])) || (why = place(doc, in, !row->has_prompt, drop)))
        return why;
    if (in[REWARD] && !in[PAIR])
        tag_count_add(tags, row->tag, row->reward);
    return NULL;
}

/* Takes the i-th of one or two documents that are tokens already.  Returns NULL, or why it is bad.
 */
static const char *take_tokens(const struct doc *d, int i)
{
    struct rendered *r = &rendered[i];
    r->token.n = 0;
    buf_reset(&r->target);
    for (int64_t k = 0; k < d->n; k++) {
        if (d->token[k] < 0 || d->token[k] >= tok_size(tok))
            return "a token that is none of the tokenizer's";
        ids_add(&r->token, d->token[k]);
        buf_char(&r->target, d->target[k] && (k || d->token[k] != tok_bos(tok)));
    }
    if (!rendered_learnt(r, 0, d->n))
        return "nothing in it is learnt";
    int64_t masked = 0;
    while (!r->target.data[masked])
        masked++;
    int is_prompt = masked > 1;
    r->loose = is_prompt ? r->token.id[0] == tok_bos(tok) : masked;
    r->tight = is_prompt ? masked : r->token.n - 1;
    return NULL;
}

/* Packs the documents of a path; returns how many. */
static int64_t take_docs(const char *path, struct hash_stream *hash)
{
    void *reader = docs_in->open(path);
    struct doc doc[2];
    unsigned parts;
    int64_t number = 0;
    while (docs_in->next(reader, &doc[0], &parts)) {
        int in[COLUMNS], drop = 0, whole = 1;
        for (int k = 0; k < COLUMNS; k++)
            in[k] = (parts & column[k].part) != 0;
        const char *why = columns_differ(in);
        for (int i = 0; i <= in[PAIR] && !why; i++, number++) {
            unsigned other = parts;
            if (i && (!docs_in->next(reader, &doc[1], &other) || other != parts ||
                      doc[1].pair != doc[0].pair))
                why = "the other document of its pair does not follow";
            else if (!(why = numbers_fault(&doc[i], in)) && !(why = take_tokens(&doc[i], i))) {
                int64_t n = rendered[i].token.n;
                whole &= rendered_learnt(&rendered[i], 1, n - 1) == n - 1;
                hash_stream_add(hash, rendered[i].token.id, (size_t)n * sizeof(int32_t));
            }
        }
        for (int i = 0; i <= in[PAIR]; i++) /* of one path as of several */
            doc[i].pair = in[PAIR] ? rows_out / 2 : -1;
        if (!why)
            why = place(doc, in, whole && !in[PAIR], &drop);
        if (why && !drop)
            die_with(EXIT_BAD_DATA, "%s: document %lld: %s", path, (long long)number, why);
        dropped += drop;
    }
    docs_in->close(reader);
    return number;
}

/* Names no place and no time, so that the same command on the same rows writes the same bytes. */
static char *provenance(int64_t rows, const struct hash_stream *input, const struct buf *tag_json)
{
    struct buf b = {0};
    char hex[17];
    hash_hex(hex, hash_stream_value(input));
    buf_printf(&b, "{\"tool\": \"shard-pack\", \"version\": \"%s\", \"arguments\": {",
               MOEUTILS_VERSION);
    if (docs_in)
        buf_printf(&b, "\"from\": \"%s\", ", from);
    buf_printf(
        &b,
        "\"template\": \"%s\", \"seq\": %lld, \"overlong\": \"%s\", \"control\": \"%s\", "
        "\"window\": %lld, \"group-bytes\": %lld}, \"input\": {\"rows\": %lld, \"xxh3\": \"%s\"}",
        chat_name(chat), (long long)seq, overlong, control, (long long)window,
        (long long)group_bytes, (long long)rows, hex);
    if (tag_json->len) /* without its newline */
        buf_printf(&b, ", \"ca\": %.*s", (int)tag_json->len - 1, tag_json->data);
    buf_char(&b, '}');
    return b.data;
}

/* Packs the rows of all paths; returns how many. */
static int64_t take_rows(char *const *paths, int64_t n, struct hash_stream *hash)
{
    struct row_reader reader;
    struct progress progress;
    int64_t read = 0, kept = 0;
    row_reader_init(&reader, paths, n);
    progress_start(&progress, "packing", "rows", 0);
    while (row_next(&reader)) {
        int drop = 0;
        hash_stream_add(hash, reader.row.line, reader.row.len);
        hash_stream_add(hash, "\n", 1);
        const char *why = take(&reader.row, &drop);
        if (why && drop)
            row_drop(&reader, why);
        else if (why)
            row_bad(&reader, why);
        kept += !why;
        read++;
        progress_add(&progress, 1);
    }
    progress_end(&progress);
    row_reader_close(&reader, kept);
    return read;
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options, "shard-pack -t tokenizer [options] [rows ...]",
                          "Tokenises rows and packs them into sequences.");
    if (!tokenizer)
        die_misused("--tokenizer is missing");
    if (seq < 2 || seq > SEQ_MAX)
        die_misused("--seq %lld is not between 2 and 16777216", (long long)seq);
    if (window < 1 || group_bytes < 1)
        die_misused("--window and --group-bytes are at least 1");
    if (!output && isatty(STDOUT_FILENO))
        die_misused("binary data are not for a terminal; use -o or a pipe");
    docs_in = docs_format_find(from);
    docs_out = docs_format_find(to);
    if (docs_out && (zstd || opt_given("window") || opt_given("group-bytes")))
        die_misused("--zstd, --window and --group-bytes are for shards, not --to %s", to);
    if (docs_out && !opt_given("seq"))
        seq = SEQ_MAX; /* nothing is packed */
    if (docs_in && (opt_given("control") || row_rejects))
        die_misused("--control and --rejects are for rows, not --from %s", from);
    tok = tok_open(tokenizer);
    chat = strcmp(template, "auto") ? chat_find(template) : chat_recognise(tok);
    tags = tag_count_new();

    struct hash_stream *input = hash_stream_new();
    int64_t read = docs_in ? 0 : take_rows(argv + first, argc - first, input);
    for (int i = first; docs_in && i < argc; i++)
        read += take_docs(argv[i], input);
    if (docs_in && !rows_out && !row_allow_empty)
        die_with(EXIT_BAD_DATA, "no document is kept");
    if (dropped)
        say("%lld documents were dropped", (long long)dropped);

    struct buf tag_json = {0};
    tag_count_json(tags, &tag_json);
    char *origin = provenance(read, input, &tag_json);
    if (!is_open())
        open_output();
    if (docs_out)
        docs_out->finish(docs);
    else if (tag_json.len)
        packer_file(packer, "tags.json", tag_json.data, tag_json.len);
    int64_t sequences = docs_out ? 0 : packer_close(packer, origin);
    if (docs_out)
        say("%lld tokens (%lld learnt) of %lld documents", (long long)tokens, (long long)learnt,
            (long long)rows_out);
    else
        say("%lld tokens (%lld learnt) of %lld documents in %lld sequences of %lld: %.1f %% full",
            (long long)tokens, (long long)learnt, (long long)rows_out, (long long)sequences,
            (long long)seq, sequences ? 100.0 * (double)tokens / (double)(sequences * seq) : 0.0);
    if (cut_rows || split_rows)
        say("%lld rows were cut to --seq, %lld were split", (long long)cut_rows,
            (long long)split_rows);
    hash_stream_free(input);
    free(origin);
    for (int i = 0; i < 2; i++)
        rendered_release(&rendered[i]);
    tag_count_free(tags);
    buf_release(&tag_json);
    tok_free(tok);
    return EXIT_DONE;
}
