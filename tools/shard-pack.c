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
static int64_t seq = 256, window = 1, group_bytes = 32 << 20, threads;
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
    OPT_INT('j', "threads", &threads, "n", "threads; 0: all cores"),
    OPT_FLAG(0, "zstd", &zstd, "a stream in zstd frames, whatever its name"),
    ROW_OPTIONS,
    OPT_END,
};

static struct tok **tok; /* (threads), twins of the first */
static const struct chat *chat;
static struct packer *packer; /* opened by the first good row, or else */
static const struct docs_format *docs_in, *docs_out;
static void *docs; /* docs_out's writer */

/* What a row may have beside its weight, and what is wrong when it differs from the first. */
static const struct {
    unsigned part;
    const char *extra, *missing;
} column[] = {
    {ROW_PAIR, "a pair, and the first row is none", "not a pair, and the first row is one"},
    {ROW_REWARD, "has a reward, and the first row has none",
     "has no reward, and the first row has one"},
    {ROW_MARGIN, "has a margin, and the first row has none",
     "has no margin, and the first row has one"},
    {ROW_REF_LOGP, "has ref_logp, and the first row has none",
     "has no ref_logp, and the first row has it"},
};
_Static_assert((int)ROW_PAIR == (int)DOC_PAIR && (int)ROW_REWARD == (int)DOC_REWARD &&
                   (int)ROW_MARGIN == (int)DOC_MARGIN && (int)ROW_REF_LOGP == (int)DOC_REF_LOGP,
               "a row's parts are a document's");
static unsigned has; /* the first row's */
static int64_t tokens, learnt, rows_out, kept, cut_rows, split_rows, dropped;
static struct tag_count *tags;
static struct hash_stream *input;
static struct progress progress;

static int is_open(void)
{
    return docs_out ? docs != NULL : packer != NULL;
}

static void open_output(void)
{
    if (docs_out) {
        docs = docs_out->create(output, tok_size(*tok));
        return;
    }
    struct set_info info = {.seq = seq,
                            .tokenizer_hash = (char *)tok_hash(*tok),
                            .template = (char *)chat_name(chat),
                            .bos = tok_bos(*tok),
                            .eos = chat_stop(chat, *tok)};
    const struct buf *json = tok_json(*tok), *config = tok_config(*tok);
    char columns[64];
    snprintf(columns, sizeof columns, "weight%s%s%s%s", has & ROW_REWARD ? ",reward" : "",
             has & ROW_PAIR ? ",pair" : "", has & ROW_MARGIN ? ",margin" : "",
             has & ROW_REF_LOGP ? ",ref_logp" : "");
    info.columns = columns;
    packer = packer_open(output, &info, group_bytes / 5); /* a token and its target flag */
    packer_window(packer, window);
    if (zstd)
        packer_zstd(packer);
    packer_file(packer, "tokenizer.json", json->data, json->len);
    if (config->len)
        packer_file(packer, "tokenizer_config.json", config->data, config->len);
}

/* Puts n tokens of a document from the one at `at` on. */
static const char *put(const struct row_docs *d, int64_t i, int64_t at, int64_t n)
{
    struct doc doc = {.token = d->doc[i].token.id + at,                      /* (n) */
                      .target = (const uint8_t *)d->doc[i].target.data + at, /* (n) */
                      .n = n,
                      .weight = d->weight,
                      .reward = d->reward[i],
                      .pair = d->n > 1 ? (rows_out - i) / 2 : -1,
                      .margin = d->margin,
                      .ref_logp = d->ref_logp[i]};
    const char *why = NULL;
    if (docs_out)
        why = docs_out->put(docs, &doc, has);
    else
        packer_add(packer, &doc);
    if (why)
        return why;
    tokens += n;
    learnt += rendered_learnt(&d->doc[i], at, n);
    rows_out++;
    return NULL;
}

/* What a row has more or less than the first had, or NULL. */
static const char *columns_differ(unsigned parts)
{
    for (int64_t k = 0; is_open() && k < ARRAY_LEN(column); k++)
        if ((parts ^ has) & column[k].part)
            return parts & column[k].part ? column[k].extra : column[k].missing;
    return NULL;
}

/* Puts a document or a pair.  Returns NULL, or why it is bad; *drop: it is fine, but not wanted. */
static const char *place(struct row_docs *d, int *drop)
{
    const char *why = columns_differ(d->has);
    int pair = d->n > 1, too_long = d->doc[0].token.n + (pair ? d->doc[1].token.n : 0) > seq;
    int splits = too_long && d->all_learnt && !pair && !strcmp(overlong, "split");
    if (why)
        return why;
    if (pair && rendered_equal(&d->doc[0], &d->doc[1]))
        return "chosen and rejected are the same";
    if (too_long && !strcmp(overlong, "error"))
        return pair ? "the pair is longer than --seq" : "longer than --seq";
    if (too_long && !splits) {
        int stale = (d->has & ROW_REF_LOGP) && strcmp(overlong, "drop");
        why = stale ? "its ref_logp is of more than fits into --seq"
                    : overlong_cut(d->doc, d->n, seq, overlong);
        *drop = why != NULL;
        if (why)
            return why;
        cut_rows++;
    }
    if (!is_open()) {
        has = d->has;
        open_output();
    }
    split_rows += splits;
    for (int64_t i = 0; i < d->n; i++)
        for (int64_t n = d->doc[i].token.n, at = 0; at < n && !why; at += seq)
            why = put(d, i, at, MIN(seq, n - at));
    return why;
}

/* ---- rows: rendered by several threads, placed in their order ---- */

static void render_row(void *arg, int64_t lane, const struct row *row, struct buf *out)
{
    struct row_docs *d = (struct row_docs *)arg + lane;
    const char *why = row_docs_render(d, chat, tok[lane], row, control);
    buf_add(out, &why, sizeof why);
    if (!why)
        row_docs_save(d, out);
}

static void place_row(void *arg, struct row_reader *r, char *made)
{
    struct row_docs d;
    const char *why;
    int drop = 0;
    hash_stream_add(input, r->row.line, r->row.len);
    hash_stream_add(input, "\n", 1);
    memcpy(&why, made, sizeof why);
    if (!why) {
        row_docs_load(&d, made + sizeof why);
        why = place(&d, &drop);
    }
    if (why && drop)
        row_drop(r, why);
    else if (why)
        row_bad(r, why);
    else if ((d.has & (ROW_REWARD | ROW_PAIR)) == ROW_REWARD)
        tag_count_add(tags, d.tag, d.reward[0]);
    kept += !why;
    progress_add(&progress, 1);
}

static int64_t take_rows(char *const *paths, int64_t n)
{
    struct row_reader reader;
    struct row_docs *made = xcalloc((size_t)threads, sizeof *made);
    row_reader_init(&reader, paths, n);
    progress_start(&progress, "packing", "rows", 0);
    row_each(&reader, &(struct row_each){threads, made, render_row, place_row});
    progress_end(&progress);
    int64_t read = reader.in;
    row_reader_close(&reader, kept);
    for (int64_t i = 0; i < threads; i++)
        row_docs_release(&made[i]);
    free(made);
    return read;
}

/* ---- documents of another program, tokens already ---- */

/* Takes the i-th document of d.  Returns NULL, or why it is bad. */
static const char *take_doc(struct row_docs *d, int64_t i, const struct doc *doc)
{
    d->n = i + 1;
    d->weight = doc->weight;
    d->margin = doc->margin;
    d->reward[i] = doc->reward;
    d->ref_logp[i] = doc->ref_logp;
    const char *why = row_docs_fault(d);
    if (why || (why = rendered_of_tokens(*tok, doc->token, doc->target, doc->n, &d->doc[i])))
        return why;
    hash_stream_add(input, d->doc[i].token.id, (size_t)doc->n * sizeof(int32_t));
    d->all_learnt = rendered_learnt(&d->doc[i], 1, doc->n - 1) == doc->n - 1;
    return NULL;
}

/* Packs the documents of a path; returns how many. */
static int64_t take_docs(const char *path)
{
    void *reader = docs_in->open(path);
    struct row_docs d = {0};
    struct doc doc;
    int64_t number = 0;
    while (docs_in->next(reader, &doc, &d.has)) {
        const char *why = NULL;
        int64_t pair = doc.pair;
        int drop = 0;
        for (int64_t i = 0; i <= (d.has & DOC_PAIR) && !why; i++, number++) {
            unsigned other = d.has;
            if (i && (!docs_in->next(reader, &doc, &other) || other != d.has || doc.pair != pair))
                why = "the other document of its pair does not follow";
            else
                why = take_doc(&d, i, &doc);
        }
        if (!why)
            why = place(&d, &drop);
        if (why && !drop)
            die_with(EXIT_BAD_DATA, "%s: document %lld: %s", path, (long long)number, why);
        dropped += drop;
    }
    docs_in->close(reader);
    row_docs_release(&d);
    return number;
}

/* Names no place and no time, so that the same command on the same rows writes the same bytes. */
static char *provenance(int64_t rows, const struct buf *tag_json)
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

static void check_options(void)
{
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
}

/* Completes the output and says what is in it. */
static void finish(int64_t read)
{
    struct buf tag_json = {0};
    tag_count_json(tags, &tag_json);
    if (!is_open())
        open_output();
    if (docs_out) {
        docs_out->finish(docs);
        say("%lld tokens (%lld learnt) of %lld documents", (long long)tokens, (long long)learnt,
            (long long)rows_out);
    } else {
        char *origin = provenance(read, &tag_json);
        if (tag_json.len)
            packer_file(packer, "tags.json", tag_json.data, tag_json.len);
        int64_t sequences = packer_close(packer, origin);
        say("%lld tokens (%lld learnt) of %lld documents in %lld sequences of %lld: %.1f %% full",
            (long long)tokens, (long long)learnt, (long long)rows_out, (long long)sequences,
            (long long)seq, sequences ? 100.0 * (double)tokens / (double)(sequences * seq) : 0.0);
        free(origin);
    }
    if (cut_rows || split_rows)
        say("%lld rows were cut to --seq, %lld were split", (long long)cut_rows,
            (long long)split_rows);
    buf_release(&tag_json);
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options, "shard-pack -t tokenizer [options] [rows ...]",
                          "Tokenises rows and packs them into sequences.");
    check_options();
    threads = threads ? threads : opt_threads();
    par_check(threads); /* before each has a tokenizer */
    tok = xcalloc((size_t)threads, sizeof(struct tok *));
    *tok = tok_open(tokenizer);
    for (int64_t i = 1; i < threads; i++)
        tok[i] = tok_twin(*tok);
    chat = strcmp(template, "auto") ? chat_find(template) : chat_recognise(*tok);
    tags = tag_count_new();
    input = hash_stream_new();

    int64_t read = docs_in ? 0 : take_rows(argv + first, argc - first);
    for (int i = first; docs_in && i < argc; i++)
        read += take_docs(argv[i]);
    if (docs_in && !rows_out && !row_allow_empty)
        die_with(EXIT_BAD_DATA, "no document is kept");
    if (dropped)
        say("%lld documents were dropped", (long long)dropped);
    finish(read);

    hash_stream_free(input);
    tag_count_free(tags);
    for (int64_t i = threads; i-- > 0;)
        tok_free(tok[i]);
    free(tok);
    return EXIT_DONE;
}
