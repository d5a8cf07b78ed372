/* text.c -- the claims of lib/text that need no outside witness.
 *
 * "text ids TOKENIZER" is the other half of tests/tok-train.t: it reads rows and prints for each
 * text its ids (with and without special tokens) and what they decode to, for the witness to
 * compare. */

#include "tap.h"
#include "text/text.h"

#include <string.h>

static void print_ids(const struct ids *ids)
{
    for (int64_t i = 0; i < ids->n; i++)
        printf("%s%d", i ? "," : "", ids->id[i]);
}

static int ids_main(const char *tokenizer)
{
    struct tok *t = tok_open(tokenizer);
    struct row_reader r;
    struct ids plain = {0}, special = {0};
    struct buf text = {0}, line = {0};
    int64_t n = 0;

    row_reader_init(&r, NULL, 0);
    for (; row_next(&r); n++) {
        plain.n = special.n = 0;
        buf_reset(&text);
        buf_reset(&line);
        tok_encode(t, r.row.text, r.row.text_len, 0, &plain);
        tok_encode(t, r.row.text, r.row.text_len, 1, &special);
        printf("{\"plain\":[");
        print_ids(&plain);
        printf("],\"special\":[");
        print_ids(&special);
        tok_decode(t, plain.id, plain.n, 0, &text);
        json_quote(&line, text.data ? text.data : "", text.len);
        buf_str(&line, ",\"skipped\":");
        buf_reset(&text);
        tok_decode(t, special.id, special.n, 1, &text);
        json_quote(&line, text.data ? text.data : "", text.len);
        printf("],\"back\":%s}\n", line.data);
    }
    row_reader_close(&r, n);
    tok_free(t);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "ids"))
        return ids_main(argv[2]);
    return finish();
}
