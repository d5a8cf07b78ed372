/* row.c -- one JSON object a line: its known fields, and what rows are grouped by.
 *
 * The known fields are a table: name, type, place in struct row.  Whatever is not in the table is
 * left alone; null is the same as absent. */

#include "text/text.h"

#include <math.h>
#include <string.h>

enum field_type { FIELD_NAME, FIELD_TEXT, FIELD_NUMBER, FIELD_INDEX, FIELD_PROMPT };

/* A field's place, and for FIELD_TEXT that of its length. */
#define PLACE(f) #f, "\"" #f "\" stands twice", offsetof(struct row, f)
static const struct field {
    const char *name, *twice;
    size_t at;
    enum field_type type;
    const char *wrong;
    size_t len_at;
} fields[] = {
    {PLACE(id), FIELD_NAME, "\"id\" is not a string"},
    {PLACE(prompt_id), FIELD_NAME, "\"prompt_id\" is not a string"},
    {PLACE(tag), FIELD_NAME, "\"tag\" is not a string"},
    {PLACE(finish), FIELD_NAME, "\"finish\" is not a string"},
    {PLACE(response), FIELD_TEXT, "\"response\" is not a string",
     offsetof(struct row, response_len)},
    {PLACE(chosen), FIELD_TEXT, "\"chosen\" is not a string", offsetof(struct row, chosen_len)},
    {PLACE(rejected), FIELD_TEXT, "\"rejected\" is not a string",
     offsetof(struct row, rejected_len)},
    {PLACE(text), FIELD_TEXT, "\"text\" is not a string", offsetof(struct row, text_len)},
    {PLACE(reward), FIELD_NUMBER, "\"reward\" is not a number"},
    {PLACE(reward_chosen), FIELD_NUMBER, "\"reward_chosen\" is not a number"},
    {PLACE(reward_rejected), FIELD_NUMBER, "\"reward_rejected\" is not a number"},
    {PLACE(weight), FIELD_NUMBER, "\"weight\" is not a number"},
    {PLACE(margin), FIELD_NUMBER, "\"margin\" is not a number"},
    {PLACE(ref_logp_chosen), FIELD_NUMBER, "\"ref_logp_chosen\" is not a number"},
    {PLACE(ref_logp_rejected), FIELD_NUMBER, "\"ref_logp_rejected\" is not a number"},
    {PLACE(sample), FIELD_INDEX, "\"sample\" is not an index from 0"},
    {PLACE(prompt), FIELD_PROMPT, "\"prompt\" is neither a string nor a list of {role, content}"},
};

static const struct field *field_find(const char *name, size_t len)
{
    for (int64_t i = 0; i < ARRAY_LEN(fields); i++)
        if (strlen(fields[i].name) == len && !memcmp(fields[i].name, name, len))
            return &fields[i];
    return NULL;
}

static int prompt_is_list(struct json v)
{
    struct json_iter i;
    struct json role, content;

    if (json_type(v) != JSON_ARRAY || !json_count(v))
        return 0;
    for (json_iter_init(&i, v); json_iter_next(&i);)
        if (json_type(i.value) != JSON_OBJECT || !json_get(i.value, "role", &role) ||
            !json_get(i.value, "content", &content) || json_type(role) != JSON_STRING ||
            json_type(content) != JSON_STRING)
            return 0;
    return 1;
}

/* Stores v; returns 0, or -1 when it has the wrong type. */
static int field_set(const struct field *f, struct json v, struct row *row)
{
    void *place = (char *)row + f->at;
    const char *s;
    size_t len;

    switch (f->type) {
    case FIELD_NAME: /* a name is compared and printed as a C string */
        s = json_string(v, &len);
        if (!s || strlen(s) != len)
            return -1;
        *(const char **)place = s;
        return 0;
    case FIELD_TEXT:
        s = json_string(v, (size_t *)((char *)row + f->len_at));
        *(const char **)place = s;
        return s ? 0 : -1;
    case FIELD_NUMBER:
        return json_real(v, place);
    case FIELD_INDEX:
        return json_int(v, place) || row->sample < 0 ? -1 : 0;
    case FIELD_PROMPT:
        row->prompt = v;
        row->has_prompt = json_type(v) == JSON_STRING || prompt_is_list(v);
        return row->has_prompt ? 0 : -1;
    }
    return -1;
}

/* Python writes NaN and Infinity into JSON; the parser's own sentence would not help much. */
static int has_bare_nan(const char *s, size_t n)
{
    int quoted = 0;

    for (size_t i = 0; i < n; i++) {
        if (quoted && s[i] == '\\')
            i++;
        else if (s[i] == '"')
            quoted = !quoted;
        else if (!quoted && ((n - i >= 3 && !memcmp(s + i, "NaN", 3)) ||
                             (n - i >= 8 && !memcmp(s + i, "Infinity", 8))))
            return 1;
    }
    return 0;
}

void row_init(struct row *row, const char *line, size_t len)
{
    *row = (struct row){
        .line = line,
        .len = len,
        .sample = -1,
        .reward = NAN,
        .reward_chosen = NAN,
        .reward_rejected = NAN,
        .weight = NAN,
        .margin = NAN,
        .ref_logp_chosen = NAN,
        .ref_logp_rejected = NAN,
    };
}

const char *row_parse_json(struct row *row, struct json_doc *doc)
{
    const char *why;

    if (strspn(row->line, " \t\r") == row->len)
        return "the line is blank";
    if (json_parse(doc, row->line, row->len, &row->json, &why))
        return has_bare_nan(row->line, row->len) ? "NaN and Infinity are not JSON" : why;
    return json_type(row->json) == JSON_OBJECT ? NULL : "the line is not a JSON object";
}

const char *row_parse(struct row *row, struct json_doc *doc)
{
    const char *why = row_parse_json(row, doc);
    struct json_iter i;
    uint32_t seen = 0;

    if (why)
        return why;
    for (json_iter_init(&i, row->json); json_iter_next(&i);) {
        const struct field *f = field_find(i.key, i.key_len);
        if (!f)
            continue;
        if (seen & 1u << (f - fields))
            return f->twice;
        seen |= 1u << (f - fields);
        if (json_type(i.value) != JSON_NULL && field_set(f, i.value, row))
            return f->wrong;
    }
    return NULL;
}

void row_prompt_canonical(const struct row *r, struct buf *out)
{
    struct json_iter i;
    struct json part;
    const char *before = "[";

    if (!r->has_prompt)
        return;
    if (json_type(r->prompt) == JSON_STRING) {
        json_write(out, r->prompt);
        return;
    }
    for (json_iter_init(&i, r->prompt); json_iter_next(&i); before = ",") {
        buf_printf(out, "%s{\"role\":", before);
        json_get(i.value, "role", &part);
        json_write(out, part);
        buf_str(out, ",\"content\":");
        json_get(i.value, "content", &part);
        json_write(out, part);
        buf_char(out, '}');
    }
    buf_char(out, ']');
}

void row_group(const struct row *r, struct buf *out)
{
    struct buf b = {0};
    char hex[17];

    if (r->prompt_id) {
        buf_str(out, r->prompt_id);
    } else if (r->has_prompt) {
        row_prompt_canonical(r, &b);
        hash_hex(hex, hash_xxh3(b.data, b.len));
        buf_str(out, hex);
        buf_release(&b);
    }
}
