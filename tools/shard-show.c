/* shard-show.c -- the text twin of shards and checkpoints: lists, prints, verifies, compares.
 *
 * An operand is a file, a stream or a folder of files; all of them become blobs by one walk, and
 * each mode is what it does with a blob. */
#include "ckpt/ckpt.h"
#include "shard/shard.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

static int show_rows, check, diff;
static const char *tokenizer, *output;
static struct out *out;

static const struct opt options[] = {
    OPT_FLAG(0, "rows", &show_rows, "print rows as JSON lines instead of tensors"),
    OPT_FLAG(0, "check", &check, "verify everything that can be; print a line for what is sound"),
    OPT_FLAG(0, "diff", &diff, "compare two operands tensor by tensor; exit 1 when they differ"),
    OPT_STR('t', "tokenizer", &tokenizer, "path", "decodes rows; by default the set's own"),
    OPT_STR('o', "output", &output, "file", "write here instead of to stdout"),
    OPT_END,
};

/* A run stands for its last checkpoint. */
static char *folder_of(const char *path)
{
    char *last = path_join(path, "last");
    if (path_is_dir(last))
        return last;
    free(last);
    return xstrdup(path);
}

static void each_shard(const char *folder, void (*use)(const char *path))
{
    int64_t n;
    char **name = shard_list(folder, &n);
    for (int64_t i = 0; i < n; i++) {
        char *path = path_join(folder, name[i]);
        use(path);
        free(path);
        free(name[i]);
    }
    free(name);
}

static int is_folder(const char *path)
{
    return strcmp(path, "-") && path_is_dir(path);
}

static const char *name_of(const char *path)
{
    return strcmp(path, "-") ? path : "stdin";
}

/* ---- listing ---- */

static void list_shard(const char *path)
{
    struct shard_file *f = shard_open(path);
    blob_list(out, path, -1, shard_header(f));
    shard_close(f);
}

static void list(const char *path)
{
    if (is_folder(path)) {
        char *folder = folder_of(path);
        each_shard(folder, list_shard);
        free(folder);
    } else if (shard_is_file(path)) {
        list_shard(path);
    } else {
        struct stream *s = stream_open(path);
        struct blob b;
        for (int64_t i = 0; stream_next(s, &b); i++)
            blob_list(out, name_of(path), i, &b);
        stream_close(s);
    }
}

/* ---- rows ---- */

static struct tok *tokenizer_of(const struct set *s, const char *path)
{
    const struct buf *own = set_file(s, "tokenizer.json");
    struct tok *t = tokenizer ? tok_open(tokenizer)
                    : own     ? tok_parse(own->data, own->len, path)
                              : NULL;
    if (t && strcmp(tok_hash(t), set_info(s)->tokenizer_hash))
        die("%s: not the tokenizer that made %s", tokenizer ? tokenizer : "its tokenizer.json",
            path);
    return t;
}

/* Most of the output is numbers, so they are not left to printf. */
static void put_list(struct buf *line, const char *key, const struct doc *d, int targets)
{
    buf_printf(line, ",\"%s\":[", key);
    for (int64_t i = 0; i < d->n; i++) {
        char text[12], *p = text + sizeof text;
        int32_t v = targets ? d->target[i] : d->token[i];
        do
            *--p = (char)('0' + v % 10);
        while (v /= 10);
        if (i)
            *--p = ',';
        buf_add(line, p, (size_t)(text + sizeof text - p));
    }
    buf_char(line, ']');
}

/* What is learnt alone, or all; bytes that are no UTF-8 (a document cut inside a letter) are
 * replaced. */
static void put_text(struct buf *line, struct tok *t, const char *key, const struct doc *d,
                     int learnt)
{
    struct buf text = {0}, sound = {0};
    int32_t *id = xmalloc((size_t)d->n * sizeof *id);
    int64_t n = 0;
    for (int64_t i = 0; i < d->n; i++)
        if (!learnt || d->target[i])
            id[n++] = d->token[i];
    tok_decode(t, id, n, 0, &text);
    utf8_repair(&sound, text.data, text.len);
    buf_printf(line, ",\"%s\":", key);
    json_quote(line, sound.data, sound.len);
    buf_release(&text);
    buf_release(&sound);
    free(id);
}

static void put_value(struct buf *line, const struct set *s, const char *column, double v)
{
    if (!set_info_has(set_info(s), column))
        return;
    buf_printf(line, ",\"%s\":", column);
    json_number(line, v);
}

enum { FORGET_TOKENS = 1 << 23 };

static void rows(const char *path)
{
    struct set *s = set_open(path);
    struct tok *t = tokenizer_of(s, path);
    struct buf line = {0};
    for (int64_t i = 0, shown = 0; i < set_rows(s); i++) {
        struct doc d;
        int64_t sequence = set_row(s, i, &d);
        if ((shown += d.n) > FORGET_TOKENS) {
            set_forget(s);
            shown = 0;
        }
        buf_reset(&line);
        buf_printf(&line, "{\"row\":%lld,\"sequence\":%lld,\"weight\":", (long long)i,
                   (long long)sequence);
        json_number(&line, d.weight);
        put_value(&line, s, "reward", d.reward);
        if (d.pair >= 0)
            buf_printf(&line, ",\"pair\":%lld", (long long)d.pair);
        put_value(&line, s, "margin", d.margin);
        put_value(&line, s, "ref_logp", d.ref_logp);
        put_list(&line, "tokens", &d, 0);
        put_list(&line, "target", &d, 1);
        if (t) {
            put_text(&line, t, "text", &d, 0);
            put_text(&line, t, "learnt", &d, 1);
        }
        buf_str(&line, "}\n");
        out_write(out, line.data, line.len);
    }
    buf_release(&line);
    if (t)
        tok_free(t);
    set_close(s);
}

/* ---- checking: whoever finds a fault dies with 4 ---- */

static void check_set(const char *path)
{
    struct set *s = set_open(path);
    if (is_folder(path))
        set_check_files(s);
    out_printf(out, "%s\tsound\t%lld sequences\t%lld rows\t%lld tokens\t%s\n", name_of(path),
               (long long)set_sequences(s), (long long)set_rows(s), (long long)set_tokens(s),
               set_hash(s));
    set_close(s);
}

static void check_folder(const char *path)
{
    char *folder = folder_of(path), *name = path_join(folder, "manifest.json");
    if (!path_exists(name))
        die_damaged("%s: no manifest.json: not a set or a checkpoint, or not a finished one",
                    folder);
    if (ckpt_is(folder)) {
        struct ckpt *k = ckpt_open(folder);
        ckpt_check(k);
        ckpt_close(k);
        out_printf(out, "%s\tsound\n", path);
    } else {
        check_set(path);
    }
    free(name);
    free(folder);
}

static void check_any(const char *path)
{
    if (is_folder(path)) {
        check_folder(path);
        return;
    }
    if (!shard_is_file(path)) {
        check_set(path);
        return;
    }
    struct shard_file *f = shard_open(path);
    const char *schema = blob_get(shard_header(f), "schema");
    int holds_rows = schema && !strcmp(schema, "moeutils.rows");
    shard_close(f);
    if (holds_rows) {
        check_set(path);
    } else {
        shard_check(path);
        out_printf(out, "%s\tsound\n", path);
    }
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options,
                          "shard-show [options] [file, stream, set, checkpoint or run ...]",
                          "Lists, prints, verifies and compares shards and checkpoints.");
    static const char *const nothing[] = {"-"};
    const char *const *operand = first < argc ? (const char *const *)argv + first : nothing;
    int64_t n = first < argc ? argc - first : 1;
    if (show_rows + check + diff > 1)
        die_misused("--rows, --check and --diff exclude each other");
    if (diff && n != 2)
        die_misused("--diff compares two operands");
    if (tokenizer && !show_rows)
        die_misused("--tokenizer is for --rows");

    int status = EXIT_DONE;
    out = out_open(output);
    if (diff) {
        char *a = folder_of(operand[0]), *b = folder_of(operand[1]);
        int whole = path_is_dir(a) && path_is_dir(b) &&
                    (ckpt_is(a) || ckpt_is(b) || (hf_is(a) && hf_is(b)));
        int64_t tensors, differ = (whole ? ckpt_diff : shard_diff)(a, b, out, &tensors);
        say("%lld of %lld tensors differ", (long long)differ, (long long)tensors);
        status = differ ? EXIT_FAILED : EXIT_DONE;
        free(a);
        free(b);
    } else {
        void (*show)(const char *) = show_rows ? rows : check ? check_any : list;
        for (int64_t i = 0; i < n; i++)
            show(operand[i]);
    }
    out_close(out);
    return status;
}
