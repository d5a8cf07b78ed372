/* tok-train.c -- rows to tokenizer.json: every text a row bears is counted, then merges are learnt.
 */

#include "base/base.h"
#include "text/text.h"

static int64_t vocab = 4096, memory = 512 << 20;
static const char *output;

static const struct opt options[] = {
    OPT_INT('n', "vocab", &vocab, "n", "tokens in all: 64 special, 256 bytes, the rest merges"),
    OPT_INT(0, "memory", &memory, "bytes",
            "for counting words; when it is full, the rarest are forgotten"),
    OPT_STR('o', "output", &output, "file", "where to write; default standard output"),
    ROW_OPTIONS,
    OPT_END,
};

static void add_prompt(struct tok_trainer *t, const struct row *row)
{
    struct json_iter i;
    struct json content;
    size_t len;
    const char *s;

    if (json_type(row->prompt) == JSON_STRING) {
        s = json_string(row->prompt, &len);
        tok_trainer_add(t, s, len);
        return;
    }
    for (json_iter_init(&i, row->prompt); json_iter_next(&i);) {
        json_get(i.value, "content", &content);
        s = json_string(content, &len);
        tok_trainer_add(t, s, len);
    }
}

/* Adds all text of the row; 0 when it has none. */
static int add_row(struct tok_trainer *t, const struct row *row)
{
    const struct {
        const char *s;
        size_t len;
    } texts[] = {
        {row->text, row->text_len},
        {row->response, row->response_len},
        {row->chosen, row->chosen_len},
        {row->rejected, row->rejected_len},
    };
    int any = row->has_prompt;

    if (row->has_prompt)
        add_prompt(t, row);
    for (int64_t i = 0; i < ARRAY_LEN(texts); i++)
        if (texts[i].s) {
            tok_trainer_add(t, texts[i].s, texts[i].len);
            any = 1;
        }
    return any;
}

int main(int argc, char **argv)
{
    int at = opt_parse(
        argc, argv, options, "tok-train [options] [rows ...]",
        "Trains a byte-level BPE tokenizer on the texts of rows (text, prompt, response,\n"
        "chosen, rejected) and writes it as tokenizer.json.");
    struct tok_trainer *trainer;
    struct row_reader rows;
    struct buf json = {0};
    int64_t kept = 0;

    if (vocab < 64 + 256 || vocab > 1 << 24)
        die_misused("--vocab %lld: at least 320 (64 special tokens and 256 bytes), at most 16m",
                    (long long)vocab);
    if (memory < 1)
        die_misused("--memory %lld is not positive", (long long)memory);
    struct out *out = out_open(output);
    row_reader_init(&rows, argv + at, argc - at);
    trainer = tok_trainer_new(memory);
    while (row_next(&rows))
        if (add_row(trainer, &rows.row))
            kept++;
        else
            row_bad(&rows, "no text, prompt, response, chosen or rejected");
    int64_t forgotten = tok_trainer_finish(trainer, vocab, &json);
    if (forgotten)
        warn("%lld occurrences of rare words were not counted: more than --memory %lld holds",
             (long long)forgotten, (long long)memory);
    struct tok *t = tok_parse(json.data, json.len, "the new tokenizer"); /* it must be readable */
    if (tok_size(t) < vocab)
        warn("only %lld of %lld tokens: no further pair occurs twice", (long long)tok_size(t),
             (long long)vocab);
    row_reader_close(&rows, kept);
    out_write(out, json.data, json.len);
    out_close(out);
    tok_free(t);
    buf_release(&json);
    return EXIT_DONE;
}
