/* pref-cat.c -- what people have, as canonical rows on standard output.
 *
 * Each file, or file in an archive, says by its first byte what it is ('{': JSON lines, '[': a JSON
 * array, else text), and each JSON object by its fields.  A record becomes one or more rows; where
 * it ends up is accounted for under the record. */

#include "base/base.h"
#include "text/text.h"

#include <string.h>

static const char *from = "auto", *output, *split_on;
static struct reshape reshape;
static struct buf separator; /* split_on without its escapes */

static const struct opt options[] = {
    OPT_CHOICE('f', "from", &from, "auto|text|jsonl|rows|hh|messages|responses|instruction",
               "what the input is, where its look misleads"),
    OPT_STR('o', "output", &output, "file", "where to write; default standard output"),
    OPT_STR(0, "split-on", &split_on, "string",
            "the input is text; a line that is this string (\\f: form feed) separates texts"),
    OPT_INT(0, "max-chars", &reshape.max_chars, "n",
            "cut texts into pieces of at most n characters, between paragraphs or sentences"),
    OPT_FLAG(0, "explode", &reshape.explode,
             "make two rows of a pair, each with its response and reward"),
    OPT_INT(0, "prompt-words", &reshape.prompt_words, "n",
            "make a text's first n words its prompt and the rest its response"),
    ROW_OPTIONS,
    OPT_END,
};

enum kind { KIND_TEXT, KIND_ARRAY, KIND_LINES };

struct cat {
    struct row_reader in;
    struct out *out;
    struct buf rows;        /* what the current record was imported as, a row a line */
    struct reshape reshape; /* what becomes of it; written when all of it is good */
    int64_t kept;
    struct progress progress;
};

/* Takes the rows in c->rows, which are those of the current record, the n-th of its file. */
static void take_rows(struct cat *c, int64_t n)
{
    const char *line = c->rows.data, *why = NULL, *dropped = NULL;
    int several = strchr(line, '\n')[1] != 0;
    struct buf id = {0};

    source_id(c->in.source, n, &id);
    buf_reset(&c->reshape.made);
    for (int64_t k = 0; *line && !why; k++) {
        const char *end = strchr(line, '\n');
        why = row_reshape(&c->reshape, line, (size_t)(end - line), id.data, several ? k : -1,
                          &dropped);
        line = end + 1;
    }
    if (why) {
        row_bad(&c->in, why);
    } else if (dropped) {
        row_drop(&c->in, dropped);
    } else {
        c->kept++;
        out_write(c->out, c->reshape.made.data, c->reshape.made.len);
    }
    buf_release(&id);
}

/* A record that is JSON text, the n-th of its file. */
static void take_json(struct cat *c, const char *s, size_t len, int64_t n)
{
    const char *form = !strcmp(from, "auto") || !strcmp(from, "jsonl") ? NULL : from, *why;

    row_begin(&c->in, s, len, n);
    buf_reset(&c->rows);
    if ((why = row_parse_json(&c->in.row, c->in.doc)) ||
        (why = import_row(&c->in.row, form, &c->rows)))
        (why == import_differ ? row_drop : row_bad)(&c->in, why);
    else
        take_rows(c, n);
}

static void take_array(struct cat *c)
{
    struct elements e = {.source = c->in.source};
    const char *why, *rest;
    size_t n;
    int more;

    while ((more = elements_next(&e, &why)) > 0)
        take_json(c, e.text.data, e.text.len, e.number);
    if (more < 0) {
        row_begin(&c->in, e.text.data, e.text.len, e.number);
        row_bad(&c->in, why);
    }
    while (source_rest(c->in.source, &rest, &n)) /* what follows damage */
        source_skip(c->in.source, n);
    elements_release(&e);
}

/* The n-th text of its file, which begins at this line. */
static void take_text(struct cat *c, const char *s, size_t len, int64_t n, int64_t line)
{
    row_begin(&c->in, s, len, line);
    if (!utf8_valid(s, len)) {
        row_bad(&c->in, "the text is not UTF-8");
        return;
    }
    buf_reset(&c->rows);
    buf_str(&c->rows, "{\"text\":");
    json_quote(&c->rows, s, len);
    buf_str(&c->rows, "}\n");
    take_rows(c, n);
}

static void take_texts(struct cat *c)
{
    struct texts t = {.source = c->in.source, .separator = split_on ? separator.data : NULL};

    while (texts_next(&t))
        take_text(c, t.text.data, t.text.len, t.number, t.line);
    texts_release(&t);
}

static enum kind kind_of(const char *head, size_t n)
{
    size_t at = strspn(head, " \t\r\n");

    if (split_on || !strcmp(from, "text"))
        return KIND_TEXT;
    if (at < n && head[at] == '[') {
        size_t next = at + 1 + strspn(head + at + 1, " \t\r\n");
        if (strcmp(from, "auto") || (next < n && (head[next] == '{' || head[next] == ']')))
            return KIND_ARRAY;
    }
    /* An empty file is a file of no rows, whatever it was meant to be. */
    return strcmp(from, "auto") || at == n || head[at] == '{' ? KIND_LINES : KIND_TEXT;
}

static void take_all(struct cat *c)
{
    struct source *s = c->in.source;
    enum kind kind = KIND_LINES;
    const char *head;
    char *line;
    size_t n, len;
    double read = 0;

    for (int state; (state = source_peek(s, &head, &n)) >= 0;) {
        if (state)
            kind = kind_of(head, n);
        if (kind == KIND_LINES && n) {
            source_line(s, &line, &len);
            take_json(c, line, len, source_line_number(s));
        } else if (kind == KIND_TEXT) {
            take_texts(c);
        } else if (kind == KIND_ARRAY) {
            take_array(c);
        } else {
            source_rest(s, &head, &n); /* an empty file has no line */
        }
        progress_add(&c->progress, source_bytes_read(s) - read);
        read = source_bytes_read(s);
    }
}

int main(int argc, char **argv)
{
    int at = opt_parse(argc, argv, options, "pref-cat [options] [file ...]",
                       "Reads text, JSON lines and JSON arrays, plain, compressed or in archives,\n"
                       "and writes canonical rows.");

    if (reshape.max_chars && reshape.prompt_words)
        die_misused("--max-chars with --prompt-words: let one pref-cat follow the other");
    if (split_on && text_unescape(&separator, split_on))
        die_misused("--split-on %s: \\f, \\r, \\t, \\xHH and \\\\ are the escapes", split_on);
    if (split_on && (!separator.len || strlen(separator.data) != separator.len ||
                     memchr(separator.data, '\n', separator.len)))
        die_misused("--split-on: not empty, and neither newline nor NUL in it");
    if (split_on && strcmp(from, "auto") && strcmp(from, "text"))
        die_misused("--split-on is for text, not --from %s", from);
    struct cat c = {.reshape = reshape};
    row_reader_init(&c.in, argv + at, argc - at);
    c.out = out_open(output);
    progress_start(&c.progress, "reading", "bytes", source_bytes_total(c.in.source));
    take_all(&c);
    progress_end(&c.progress);
    row_reader_close(&c.in, c.kept);
    out_close(c.out);
    buf_release(&separator);
    buf_release(&c.rows);
    reshape_release(&c.reshape);
    return EXIT_DONE;
}
