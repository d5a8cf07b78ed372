/* dialogue.c -- dialogues in one value: HH's strings of turns, and lists of messages.
 *
 * Both come out as a prompt, a list of {role, content}, and the reply that the last turn is. */

#include "text/text.h"

#include <string.h>

static const struct speaker {
    const char *mark, *role;
} speakers[] = {{"\n\nHuman:", "user"}, {"\n\nAssistant:", "assistant"}};

/* The speaker whose turn begins at s, or NULL. */
static const struct speaker *speaker_at(const char *s, const char *end)
{
    for (int64_t i = 0; i < ARRAY_LEN(speakers); i++) {
        size_t n = strlen(speakers[i].mark);
        if ((size_t)(end - s) >= n && !memcmp(s, speakers[i].mark, n))
            return &speakers[i];
    }
    return NULL;
}

int dialogue_is_hh(struct json v)
{
    size_t len;
    const char *s = json_string(v, &len);

    return s && speaker_at(s, s + len);
}

static int is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct turn {
    const char *role, *text;
    size_t len;
};

/* The turn that begins at *s, which moves past it. */
static struct turn turn_next(const char **s, const char *end)
{
    const struct speaker *who = speaker_at(*s, end);
    const char *from = *s + strlen(who->mark), *to = from;

    while (to < end && !speaker_at(to, end)) {
        const char *next = memchr(to + 1, '\n', (size_t)(end - to - 1));
        to = next ? next : end;
    }
    *s = to;
    while (from < to && is_blank(*from))
        from++;
    while (from < to && is_blank(to[-1]))
        to--;
    return (struct turn){who->role, from, (size_t)(to - from)};
}

static void message_add(struct buf *list, const char *role, const char *text, size_t len)
{
    buf_str(list, list->len ? ",{\"role\":" : "[{\"role\":");
    json_quote(list, role, strlen(role));
    buf_str(list, ",\"content\":");
    json_quote(list, text, len);
    buf_char(list, '}');
}

static const char no_prompt[] = "the dialogue has no turn before the last";
const char dialogue_unanswered[] = "the last turn is not the assistant's";

static const char *cut_hh(struct json v, struct buf *prompt, struct turn *last)
{
    size_t len;
    const char *s = json_string(v, &len), *end = s + len;

    buf_reset(prompt);
    if (!speaker_at(s, end))
        return "the text is not a dialogue of Human: and Assistant: turns";
    for (;;) {
        *last = turn_next(&s, end);
        if (s == end)
            break;
        message_add(prompt, last->role, last->text, last->len);
    }
    return NULL;
}

static const char *cut_list(struct json v, struct buf *prompt, struct turn *last)
{
    int64_t left = json_count(v);
    struct json_iter i;
    struct json role, content;
    size_t len;

    buf_reset(prompt);
    *last = (struct turn){"", "", 0};
    for (json_iter_init(&i, v); json_iter_next(&i);) {
        if (json_type(i.value) != JSON_OBJECT || !json_get(i.value, "role", &role) ||
            !json_get(i.value, "content", &content) || json_type(role) != JSON_STRING ||
            json_type(content) != JSON_STRING)
            return "a message is not {role, content} of two strings";
        last->role = json_string(role, &len);
        last->text = json_string(content, &last->len);
        if (--left)
            message_add(prompt, last->role, last->text, last->len);
    }
    return NULL;
}

static const char *cut(struct json v, struct buf *prompt, struct turn *last)
{
    if (json_type(v) == JSON_STRING)
        return cut_hh(v, prompt, last);
    if (json_type(v) == JSON_ARRAY)
        return cut_list(v, prompt, last);
    return "a dialogue is neither a string nor a list";
}

const char *dialogue_cut(struct json v, struct buf *prompt, struct buf *reply)
{
    struct turn last;
    const char *why = cut(v, prompt, &last);

    if (why)
        return why;
    if (strcmp(last.role, "assistant"))
        return dialogue_unanswered;
    if (!prompt->len)
        return no_prompt;
    buf_char(prompt, ']');
    buf_reset(reply);
    buf_add(reply, last.text, last.len);
    return NULL;
}

const char *dialogue_prompt(struct json v, struct buf *prompt)
{
    struct turn last;
    const char *why = cut(v, prompt, &last);

    if (why)
        return why;
    if (strcmp(last.role, "assistant") || last.len)
        message_add(prompt, last.role, last.text, last.len);
    if (!prompt->len)
        return no_prompt;
    buf_char(prompt, ']');
    return NULL;
}
