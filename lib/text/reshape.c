/* reshape.c -- a canonical row as it leaves pref-cat: a pair as two samples, a long text in pieces,
 * a text's first words as its prompt; and each row with a name.  Rows of one record share its id
 * and its prompt, whatever becomes of them. */

#include "text/text.h"

#include <string.h>

/* Names the row being made and adds it to those of the record.  Sample k of several (-1: the only
 * one) gets an id of its own and shares the prompt's. */
static void add_row(struct reshape *r, const struct row *row, const char *id, int64_t k)
{
    struct buf name = {0};

    if (k >= 0 || !row->id) {
        buf_str(&name, row->id ? row->id : id);
        if (k >= 0)
            buf_printf(&name, "/%lld", (long long)k);
        row_edit_string(&r->edit, "id", name.data, name.len);
    }
    if (k >= 0 && !row->prompt_id) {
        buf_reset(&name);
        row_group(row, &name);
        if (!name.len) /* a text: its pieces belong together */
            buf_str(&name, row->id ? row->id : id);
        row_edit_string(&r->edit, "prompt_id", name.data, name.len);
    }
    buf_add(&r->made, r->edit.line.data, r->edit.line.len);
    buf_char(&r->made, '\n');
    buf_release(&name);
}

/* Adds the pieces of the row's text, or the row as it is if that is short enough. */
static void add_pieces(struct reshape *r, const struct row *row, const char *id)
{
    const char *s = row->text, *end = s + row->text_len;
    size_t next, len = text_piece(s, row->text_len, r->max_chars, &next);
    struct buf rest = {0}; /* the row without the text: it is copied for each piece */

    row_edit_begin(&r->edit, row->line, row->len);
    if (len == row->text_len) {
        add_row(r, row, id, -1);
        return;
    }
    row_edit_json(&r->edit, "text", "\"\"");
    buf_add(&rest, r->edit.line.data, r->edit.line.len);
    s += strspn(s, " \t\n\v\f\r");
    for (int64_t k = 0; s < end; k++, s += next) {
        len = text_piece(s, (size_t)(end - s), r->max_chars, &next);
        row_edit_begin(&r->edit, rest.data, rest.len);
        row_edit_string(&r->edit, "text", s, len);
        add_row(r, row, id, k);
    }
    buf_release(&rest);
}

const char *row_reshape(struct reshape *r, const char *line, size_t len, const char *id, int64_t k,
                        const char **dropped)
{
    struct row row;
    const char *why;

    if (!r->doc)
        r->doc = json_doc_new();
    row_init(&row, line, len);
    if ((why = row_parse(&row, r->doc)))
        return why;
    if ((why = import_empty(&row))) {
        /* people's pairs have empty sides, which is no fault in the file */
        if (!row.chosen || !row.rejected)
            return why;
        *dropped = why;
        return NULL;
    }
    if (r->explode && row.chosen) {
        for (int64_t side = 0; side < 2; side++) {
            row_explode(&row, side, &r->edit);
            add_row(r, &row, id, side);
        }
        return NULL;
    }
    if (r->max_chars && row.text && !row.has_prompt) {
        add_pieces(r, &row, id);
        return NULL;
    }
    row_edit_begin(&r->edit, line, len);
    if (r->prompt_words && row.text && !row.has_prompt &&
        row_cut_words(&row, r->prompt_words, &r->edit))
        *dropped = "too few words for --prompt-words";
    else
        add_row(r, &row, id, k);
    return NULL;
}

void reshape_release(struct reshape *r)
{
    json_doc_free(r->doc);
    buf_release(&r->made);
    row_edit_release(&r->edit);
}
