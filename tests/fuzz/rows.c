/* rows.c -- a fuzz target (libFuzzer): any bytes as a line of rows.  Nothing may crash, and what is
 * made of them must be rows, one a line. */

#include "text/text.h"

#include <stdlib.h>
#include <string.h>

static void must(int holds)
{
    if (!holds)
        abort();
}

static void reshape(const struct row *row, struct row_edit *edit, struct json_doc *doc)
{
    struct json json;
    const char *why;

    for (int64_t side = 0; side < 2 && row->chosen && row->rejected; side++) {
        row_explode(row, side, edit);
        must(!json_parse(doc, edit->line.data, edit->line.len, &json, &why));
    }
    for (size_t at = 0, next; row->text && at < row->text_len; at += next) {
        size_t n = text_piece(row->text + at, row->text_len - at, 7, &next);
        must(n <= next && next > 0 && n <= 28 && utf8_valid(row->text + at, n));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct json_doc *in = json_doc_new(), *made = json_doc_new(), *spare = json_doc_new();
    struct row_edit edit = {0};
    struct buf line = {0}, rows = {0};
    struct row row;

    buf_add(&line, data, len);
    row_init(&row, line.data, line.len);
    if (!memchr(line.data, '\n', len) && !row_parse_json(&row, in) &&
        !import_row(&row, NULL, &rows))
        for (char *s = rows.data, *end; *s; s = end + 1) {
            must((end = strchr(s, '\n')) != NULL);
            row_init(&row, s, (size_t)(end - s));
            must(!row_parse_json(&row, made));
            if (!row_parse(&row, made) && !import_empty(&row))
                reshape(&row, &edit, spare);
        }
    row_edit_release(&edit);
    buf_release(&line);
    buf_release(&rows);
    json_doc_free(in);
    json_doc_free(made);
    json_doc_free(spare);
    return 0;
}
