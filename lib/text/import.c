/* import.c -- other people's conventions become canonical rows.
 *
 * A form is a table line: how its objects are known by their fields, and how they are rewritten.
 * Rewriting edits the line, so members that no form knows keep their bytes. */

#include "text/import.h"

#include <string.h>

const char import_forms[] = "rows|hh|messages|responses|instruction";

int import_has(struct json v, const char *key, struct json *out)
{
    return json_get(v, key, out) && json_type(*out) != JSON_NULL;
}

int import_has_type(struct json v, const char *key, enum json_type type)
{
    struct json x;

    return import_has(v, key, &x) && json_type(x) == type;
}

void import_finish(struct import *m, struct buf *out)
{
    buf_add(out, m->edit.line.data, m->edit.line.len);
    buf_char(out, '\n');
}

/* ---- rows: canonical already ---- */

static int is_rows(struct json v)
{
    struct json x;

    return import_has(v, "text", &x) || import_has(v, "prompt", &x);
}

static const char *from_rows(struct import *m, struct buf *out)
{
    if (!is_rows(m->json))
        return "neither \"text\" nor \"prompt\"";
    import_finish(m, out);
    return NULL;
}

/* ---- messages: one list, whose last turn is the response ---- */

static int is_messages(struct json v)
{
    return import_has_type(v, "messages", JSON_ARRAY);
}

static const char *from_messages(struct import *m, struct buf *out)
{
    struct json list;
    const char *why;

    if (!import_has(m->json, "messages", &list) || json_type(list) != JSON_ARRAY)
        return "\"messages\" is not a list";
    row_edit_json(&m->edit, "messages", NULL);
    why = dialogue_cut(list, &m->prompt, &m->reply);
    if (!why)
        row_edit_string(&m->edit, "response", m->reply.data, m->reply.len);
    else if (why == dialogue_unanswered) /* a prompt to answer */
        why = dialogue_prompt(list, &m->prompt);
    if (why)
        return why;
    row_edit_json(&m->edit, "prompt", m->prompt.data);
    import_finish(m, out);
    return NULL;
}

/* ---- responses: several answers to a prompt, perhaps with a reward each ---- */

static int is_responses(struct json v)
{
    struct json prompt;

    return import_has(v, "prompt", &prompt) && import_has_type(v, "responses", JSON_ARRAY);
}

static const char *from_responses(struct import *m, struct buf *out)
{
    struct json prompt, responses, rewards;
    struct json_iter i, k;
    struct buf base = {0};
    const char *why = NULL;
    int64_t sample = 0;

    if (!is_responses(m->json))
        return "no \"prompt\" with a list of \"responses\"";
    import_has(m->json, "prompt", &prompt);
    import_has(m->json, "responses", &responses);
    int rewarded = import_has(m->json, "rewards", &rewards);
    if (rewarded && json_type(rewards) != JSON_ARRAY)
        return "\"rewards\" is not a list";
    if (rewarded && json_count(rewards) != json_count(responses))
        return "not as many \"rewards\" as \"responses\"";
    if (!json_count(responses))
        return "\"responses\" is empty";
    row_edit_json(&m->edit, "responses", NULL);
    row_edit_json(&m->edit, "rewards", NULL);
    if (dialogue_is_hh(prompt)) {
        if ((why = dialogue_prompt(prompt, &m->prompt)))
            return why;
        row_edit_json(&m->edit, "prompt", m->prompt.data);
    }
    buf_add(&base, m->edit.line.data, m->edit.line.len);
    if (rewarded)
        json_iter_init(&k, rewards);
    for (json_iter_init(&i, responses); !why && json_iter_next(&i); sample++) {
        char number[24];
        size_t len;
        const char *text = json_string(i.value, &len);
        double reward;
        row_edit_begin(&m->edit, base.data, base.len);
        if (!text) {
            why = "a response is not a string";
            break;
        }
        row_edit_string(&m->edit, "response", text, len);
        snprintf(number, sizeof number, "%lld", (long long)sample);
        row_edit_json(&m->edit, "sample", number);
        if (rewarded) {
            json_iter_next(&k);
            if (json_real(k.value, &reward))
                why = "a reward is not a number";
            buf_reset(&m->edit.value);
            json_write(&m->edit.value, k.value);
            row_edit_json(&m->edit, "reward", m->edit.value.data);
        }
        import_finish(m, out);
    }
    buf_release(&base);
    return why;
}

/* ---- instruction: Alpaca and its relatives ---- */

static const struct naming {
    const char *prompt, *input, *response;
} namings[] = {
    {"instruction", "input", "output"}, {"instruction", "input", "response"},
    {"question", NULL, "answer"},       {"prompt", NULL, "completion"},
    {"input", NULL, "output"},
};

static const struct naming *naming_of(struct json v)
{
    for (int64_t i = 0; i < ARRAY_LEN(namings); i++)
        if (import_has_type(v, namings[i].prompt, JSON_STRING) &&
            import_has_type(v, namings[i].response, JSON_STRING))
            return &namings[i];
    return NULL;
}

static int is_instruction(struct json v)
{
    return naming_of(v) != NULL;
}

static const char *from_instruction(struct import *m, struct buf *out)
{
    const struct naming *n = naming_of(m->json);
    struct json v;
    size_t len;
    const char *s;

    if (!n)
        return "no \"instruction\" with an \"output\" or \"response\"";
    json_get(m->json, n->prompt, &v);
    s = json_string(v, &len);
    buf_reset(&m->prompt);
    buf_add(&m->prompt, s, len);
    if (n->input && import_has(m->json, n->input, &v)) {
        if (!(s = json_string(v, &len)))
            return "\"input\" is not a string";
        if (len)
            buf_str(&m->prompt, "\n\n");
        buf_add(&m->prompt, s, len);
        row_edit_json(&m->edit, n->input, NULL);
    }
    json_get(m->json, n->response, &v);
    s = json_string(v, &len);
    row_edit_json(&m->edit, n->prompt, NULL);
    row_edit_json(&m->edit, n->response, NULL);
    row_edit_json(&m->edit, "text", NULL); /* Alpaca repeats it all there */
    row_edit_string(&m->edit, "prompt", m->prompt.data, m->prompt.len);
    row_edit_string(&m->edit, "response", s, len);
    import_finish(m, out);
    return NULL;
}

/* What others call a reward, where there is none.  Not of rows, which stay as they are. */
static void take_scores(struct import *m)
{
    static const char *const names[][2] = {{"score", "reward"},
                                           {"score_chosen", "reward_chosen"},
                                           {"chosen_score", "reward_chosen"},
                                           {"score_rejected", "reward_rejected"},
                                           {"rejected_score", "reward_rejected"}};
    struct json score, reward;
    double x;
    struct buf number = {0};

    for (int64_t i = 0; i < ARRAY_LEN(names); i++)
        if (json_get(m->json, names[i][0], &score) && !json_real(score, &x) &&
            !import_has(m->json, names[i][1], &reward)) {
            buf_reset(&number);
            json_write(&number, score);
            row_edit_json(&m->edit, names[i][0], NULL);
            row_edit_json(&m->edit, names[i][1], number.data);
        }
    buf_release(&number);
}

/* ---- the table, in the order of recognition ---- */

static const struct form {
    const char *name;
    int (*is)(struct json v);
    const char *(*convert)(struct import *m, struct buf *out);
} forms[] = {
    {"hh", import_is_hh, import_from_hh},
    {"messages", is_messages, from_messages},
    {"responses", is_responses, from_responses},
    {"instruction", is_instruction, from_instruction},
    {"rows", is_rows, from_rows},
};

const char *import_row(const struct row *row, const char *form, struct buf *out)
{
    struct import m = {.json = row->json};
    const char *why = "no known fields (text, prompt, chosen and rejected, messages, instruction)";
    size_t start = out->len;
    int64_t id;
    struct json v;

    row_edit_begin(&m.edit, row->line, row->len);
    if (json_get(row->json, "id", &v) && !json_int(v, &id)) { /* many number their rows */
        buf_printf(&m.edit.value, "\"%lld\"", (long long)id);
        row_edit_json(&m.edit, "id", m.edit.value.data);
    }
    for (int64_t i = 0; i < ARRAY_LEN(forms); i++)
        if (form ? !strcmp(form, forms[i].name) : forms[i].is(row->json)) {
            if (forms[i].convert != from_rows)
                take_scores(&m);
            why = forms[i].convert(&m, out);
            break;
        }
    if (why) {
        out->len = start;
        if (out->data)
            out->data[start] = 0;
    }
    row_edit_release(&m.edit);
    buf_release(&m.prompt);
    buf_release(&m.other);
    buf_release(&m.reply);
    return why;
}

static int is_blank(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] != ' ' && !(s[i] >= '\t' && s[i] <= '\r'))
            return 0;
    return 1;
}

static int prompt_is_blank(const struct row *row)
{
    struct json_iter i;
    struct json content;
    size_t len;
    const char *s = json_string(row->prompt, &len);

    if (s)
        return is_blank(s, len);
    for (json_iter_init(&i, row->prompt); json_iter_next(&i);)
        if (json_get(i.value, "content", &content) && (s = json_string(content, &len)) &&
            !is_blank(s, len))
            return 0;
    return 1;
}

const char *import_empty(const struct row *row)
{
    const struct {
        const char *s;
        size_t len;
        const char *why;
    } texts[] = {
        {row->text, row->text_len, "the text is empty"},
        {row->response, row->response_len, "the response is empty"},
        {row->chosen, row->chosen_len, "chosen is empty"},
        {row->rejected, row->rejected_len, "rejected is empty"},
    };

    if (row->has_prompt && prompt_is_blank(row))
        return "the prompt is empty";
    for (int64_t i = 0; i < ARRAY_LEN(texts); i++)
        if (texts[i].s && is_blank(texts[i].s, texts[i].len))
            return texts[i].why;
    if (!row->text && !row->has_prompt)
        return "neither \"text\" nor \"prompt\"";
    if (!row->chosen != !row->rejected)
        return row->chosen ? "chosen without rejected" : "rejected without chosen";
    return NULL;
}
