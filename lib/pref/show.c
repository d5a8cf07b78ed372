/* show.c -- a row as a person wants to read it: who says what, and what it was worth.
 *
 * A row is anybody's text, and a terminal obeys what it is sent; so control characters are shown by
 * their number. */
#include "pref/pref.h"

#include <math.h>
#include <string.h>

enum { NAME_WIDTH = 9 };

/* Lines after the first begin with `indent` blanks and a bar. */
static void add_text(struct buf *out, const char *s, size_t len, int indent)
{
    for (const char *p = s; p < s + len;) {
        const char *from = p;
        uint32_t c = utf8_next(&p);
        if (c == '\n')
            buf_printf(out, "\n%-*s | ", indent, "");
        else if (c != '\t' && (c < 0x20 || (c >= 0x7f && c < 0xa0)))
            buf_printf(out, "\\u%04x", (unsigned)c);
        else
            buf_add(out, from, (size_t)(p - from));
    }
}

static void show_text(struct buf *out, const char *name, const char *s, size_t len)
{
    buf_printf(out, "%-*s | ", NAME_WIDTH, name);
    add_text(out, s, len, NAME_WIDTH);
    buf_char(out, '\n');
}

static void show_prompt(struct buf *out, const struct row *r)
{
    struct buf name = {0};
    struct json role, content;
    struct json_iter i;
    size_t len;
    const char *s = json_string(r->prompt, &len);
    if (s) {
        show_text(out, "prompt", s, len);
        return;
    }
    for (json_iter_init(&i, r->prompt); json_iter_next(&i);) {
        json_get(i.value, "role", &role);
        json_get(i.value, "content", &content);
        s = json_string(role, &len); /* anybody's text, too */
        buf_reset(&name);
        add_text(&name, s, len, 0);
        s = json_string(content, &len);
        show_text(out, name.len ? name.data : "", s, len);
    }
    buf_release(&name);
}

static void show_number(struct buf *out, const char *name, double x)
{
    if (!isnan(x))
        buf_printf(out, "  %s %.6g", name, x);
}

static void show_name(struct buf *out, const char *name, const char *s)
{
    if (!s)
        return;
    buf_printf(out, "  %s \"", name);
    add_text(out, s, strlen(s), 0);
    buf_char(out, '"');
}

static void row_show(const struct row *r, struct buf *out)
{
    const struct {
        const char *name, *text;
        size_t len;
    } parts[] = {
        {"response", r->response, r->response_len},
        {"chosen", r->chosen, r->chosen_len},
        {"rejected", r->rejected, r->rejected_len},
        {"text", r->text, r->text_len},
    };
    buf_printf(out, "-- %s:%lld", r->file, (long long)r->number);
    show_name(out, "id", r->id);
    show_name(out, "prompt_id", r->prompt_id);
    show_number(out, "reward", r->reward);
    show_number(out, "reward_chosen", r->reward_chosen);
    show_number(out, "reward_rejected", r->reward_rejected);
    show_number(out, "margin", r->margin);
    show_number(out, "weight", r->weight);
    show_name(out, "tag", r->tag);
    show_name(out, "finish", r->finish);
    buf_char(out, '\n');
    if (r->has_prompt)
        show_prompt(out, r);
    for (int64_t i = 0; i < ARRAY_LEN(parts); i++)
        if (parts[i].text)
            show_text(out, parts[i].name, parts[i].text, parts[i].len);
}

void rows_show(char *path, int64_t n, struct out *out)
{
    struct row_reader r;
    struct buf text = {0};
    int64_t shown = 0;
    row_reader_init(&r, &path, path ? 1 : 0);
    for (; shown < n && row_next(&r); shown++) {
        buf_reset(&text);
        row_show(&r.row, &text);
        out_write(out, text.data, text.len);
    }
    row_reader_close(&r, shown);
    buf_release(&text);
}
