/* import_hh.c -- dialogues as strings or lists, in pairs or as a prompt. */

#include "text/import.h"

#include <string.h>

const char import_differ[] = "chosen and rejected differ before the last turn";

/* Pairs whose two sides are whole dialogues; a prompt beside them only repeats their beginning. */
static int is_dialogue_pair(struct json v)
{
    struct json chosen, rejected;

    if (!import_has(v, "chosen", &chosen) || !import_has(v, "rejected", &rejected))
        return 0;
    return dialogue_is_hh(chosen) || dialogue_is_hh(rejected) || json_type(chosen) == JSON_ARRAY ||
           json_type(rejected) == JSON_ARRAY;
}

int import_is_hh(struct json v)
{
    struct json prompt;

    return is_dialogue_pair(v) || (import_has(v, "prompt", &prompt) && dialogue_is_hh(prompt) &&
                                   !import_has_type(v, "responses", JSON_ARRAY));
}

/* A list of one message is a reply to the prompt beside it. */
static const char *from_reply_lists(struct import *m, struct buf *out)
{
    static const char *const sides[] = {"chosen", "rejected"};
    struct json prompt, list, role, content;
    struct json_iter i;
    size_t len;

    if (import_has(m->json, "prompt", &prompt) && dialogue_is_hh(prompt)) {
        const char *why = dialogue_prompt(prompt, &m->prompt);
        if (why)
            return why;
        row_edit_json(&m->edit, "prompt", m->prompt.data);
    }
    for (int k = 0; k < 2; k++) {
        json_get(m->json, sides[k], &list);
        json_iter_init(&i, list);
        if (!json_iter_next(&i) || json_type(i.value) != JSON_OBJECT ||
            !json_get(i.value, "role", &role) || !json_get(i.value, "content", &content) ||
            !json_string(role, &len) || !json_string(content, &len))
            return "a message is not {role, content} of two strings";
        if (strcmp(json_string(role, &len), "assistant"))
            return dialogue_unanswered;
        const char *text = json_string(content, &len);
        row_edit_string(&m->edit, sides[k], text, len);
    }
    import_finish(m, out);
    return NULL;
}

static int is_reply_list(struct json v, const char *key)
{
    struct json x, prompt;

    return import_has(v, key, &x) && json_type(x) == JSON_ARRAY && json_count(x) == 1 &&
           import_has(v, "prompt", &prompt);
}

static const char *from_dialogue_pair(struct import *m, struct buf *out)
{
    struct json chosen, rejected;
    const char *why;

    if (is_reply_list(m->json, "chosen") && is_reply_list(m->json, "rejected"))
        return from_reply_lists(m, out);
    import_has(m->json, "chosen", &chosen);
    import_has(m->json, "rejected", &rejected);
    if ((why = dialogue_cut(chosen, &m->prompt, &m->reply)))
        return why;
    row_edit_json(&m->edit, "prompt", m->prompt.data);
    row_edit_string(&m->edit, "chosen", m->reply.data, m->reply.len);
    if ((why = dialogue_cut(rejected, &m->other, &m->reply)))
        return why;
    if (m->prompt.len != m->other.len || memcmp(m->prompt.data, m->other.data, m->prompt.len))
        return import_differ;
    row_edit_string(&m->edit, "rejected", m->reply.data, m->reply.len);
    import_finish(m, out);
    return NULL;
}

const char *import_from_hh(struct import *m, struct buf *out)
{
    struct json prompt;
    const char *why;

    if (is_dialogue_pair(m->json))
        return from_dialogue_pair(m, out);
    if (!import_has(m->json, "prompt", &prompt))
        return "neither a pair of dialogues nor a \"prompt\"";
    if (json_type(prompt) != JSON_STRING)
        return "\"prompt\" is not a dialogue of Human: and Assistant: turns";
    if ((why = dialogue_prompt(prompt, &m->prompt)))
        return why;
    row_edit_json(&m->edit, "prompt", m->prompt.data);
    import_finish(m, out);
    return NULL;
}
