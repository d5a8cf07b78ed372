/* chat.c -- how a row becomes tokens, and which of them are learnt.
 *
 * A template is a table line: what stands before a turn of each role and after it.  Prompt, tag and
 * response are encoded apart, so that the tokens up to the response are the same whether the
 * response is there (training) or not yet (sampling).  Only tags, which our tools write, may hold
 * special tokens: in what users wrote "<|end|>" is seven ordinary characters, unless the caller
 * says that it counts (row->control). */

#include "text/tok.h"

#include <math.h>
#include <string.h>

struct chat {
    const char *name;
    const char *system, *user, *assistant; /* tokens that begin a turn, "" for nothing */
    const char *end;                       /* and end it; "" for eos */
};

static const struct chat templates[] = {
    {"plain", "", "", "", ""},
    {"chat", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"},
};

const struct chat *chat_find(const char *name)
{
    struct buf names = {0};

    for (int64_t i = 0; i < ARRAY_LEN(templates); i++) {
        if (!strcmp(templates[i].name, name)) {
            buf_release(&names);
            return &templates[i];
        }
        buf_printf(&names, " %s", templates[i].name);
    }
    die_misused("no chat template \"%s\"; there are:%s", name, names.data);
}

/* Appends a token of the template; 0, or -1 when the tokenizer lacks it. */
static int mark(const struct tok *t, const char *token, struct ids *out)
{
    int64_t id = *token ? tok_id(t, token) : -1;

    if (id >= 0)
        ids_add(out, (int32_t)id);
    return *token && id < 0 ? -1 : 0;
}

static const char *role_mark(const struct chat *c, const char *role)
{
    const char *const marks[][2] = {
        {"system", c->system}, {"user", c->user}, {"assistant", c->assistant}};

    for (int64_t i = 0; i < ARRAY_LEN(marks); i++)
        if (!strcmp(marks[i][0], role))
            return marks[i][1];
    return NULL;
}

static const char lacks[] = "the tokenizer lacks a token of the chat template";

static const char *turn(const struct chat *c, struct tok *t, const char *role, struct json content,
                        int control, struct ids *out)
{
    const char *begin = role_mark(c, role), *text;
    size_t len;

    if (!begin)
        return "a role in \"prompt\" is not system, user or assistant";
    text = json_string(content, &len);
    if (mark(t, begin, out))
        return lacks;
    tok_encode(t, text, len, control, out);
    return mark(t, c->end, out) ? lacks : NULL;
}

static const char *prompt(const struct chat *c, struct tok *t, const struct row *r, struct ids *out)
{
    struct json_iter i;
    struct json role, content;
    const char *why = NULL;
    size_t len;

    if (json_type(r->prompt) == JSON_STRING)
        return turn(c, t, "user", r->prompt, r->control, out);
    if (!*c->user && json_count(r->prompt) > 1)
        return "a prompt of several turns cannot be told apart in the template \"plain\"";
    for (json_iter_init(&i, r->prompt); !why && json_iter_next(&i);) {
        json_get(i.value, "role", &role);
        json_get(i.value, "content", &content);
        why = turn(c, t, json_string(role, &len), content, r->control, out);
    }
    return why;
}

static void begin(struct tok *t, struct ids *out)
{
    if (tok_bos(t) >= 0)
        ids_add(out, (int32_t)tok_bos(t));
}

const char *chat_render_prompt(const struct chat *c, struct tok *t, const struct row *r,
                               const char *tag, struct ids *token)
{
    const char *why;

    if (!r->has_prompt)
        return "there is no \"prompt\"";
    begin(t, token);
    why = prompt(c, t, r, token);
    if (!why && mark(t, c->assistant, token))
        why = lacks;
    if (!why && tag)
        tok_encode(t, tag, strlen(tag), 1, token);
    return why;
}

const char *chat_render(const struct chat *c, struct tok *t, const struct row *r, struct ids *token,
                        struct buf *target)
{
    const char *answer = r->has_prompt ? r->response : r->text, *why = NULL;
    size_t len = r->has_prompt ? r->response_len : r->text_len;
    int64_t start = token->n, learnt, stop = r->has_prompt ? chat_stop(c, t) : tok_eos(t);

    if (!answer)
        return r->has_prompt ? "there is no \"response\""
                             : "there is neither \"prompt\" nor \"text\"";
    if (r->has_prompt) {
        why = chat_render_prompt(c, t, r, r->tag, token);
    } else {
        begin(t, token);
        if (r->tag)
            tok_encode(t, r->tag, strlen(r->tag), 1, token);
    }
    learnt = token->n;
    if (!why) {
        tok_encode(t, answer, len, r->control, token);
        if (stop >= 0)
            ids_add(token, (int32_t)stop);
    }
    if (why) {
        token->n = start;
        return why;
    }
    for (int64_t i = start; i < token->n; i++)
        buf_char(target, i >= learnt);
    return NULL;
}

/* What stands between the prompt and the answer, or before a text. */
static int64_t lead_in(const struct chat *c, struct tok *t, const struct row *r)
{
    struct ids ids = {0};
    int64_t n;

    if (r->has_prompt)
        mark(t, c->assistant, &ids);
    if (r->tag)
        tok_encode(t, r->tag, strlen(r->tag), 1, &ids);
    n = ids.n;
    ids_release(&ids);
    return n;
}

const char *chat_render_row(const struct chat *c, struct tok *t, const struct row *r,
                            struct rendered *out)
{
    const char *why;
    int64_t masked = 0;

    out->token.n = 0;
    buf_reset(&out->target);
    if ((why = chat_render(c, t, r, &out->token, &out->target)))
        return why;
    while (masked < out->token.n && !out->target.data[masked])
        masked++;
    out->loose = r->has_prompt ? tok_bos(t) >= 0 : masked;
    out->tight = r->has_prompt ? masked - lead_in(c, t, r) : out->token.n - 1;
    return NULL;
}

int64_t chat_stop(const struct chat *c, struct tok *t)
{
    return *c->end ? tok_id(t, c->end) : tok_eos(t);
}
