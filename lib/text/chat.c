/* chat.c -- how a row becomes tokens, and which of them are learnt.
 *
 * A template says what stands around the turns (chat.h).  Text that has no token between is encoded
 * together, as it is where a whole conversation is; but the prompt ends before the answer, so that
 * its tokens are the same whether the answer is there (training) or not yet (sampling).  Only tags,
 * which our tools write, may hold special tokens: in what users wrote "<|end|>" is seven ordinary
 * characters, unless the caller says that it counts (row->control). */

#include "text/chat.h"

#include <string.h>

struct render {
    const struct chat *c;
    struct tok *t;
    struct ids *out;
    int64_t start;   /* where the document begins in out */
    struct buf text; /* to be encoded */
    int control;
    const char *why; /* it cannot be rendered */
};

/* Encodes the text that has gathered. */
static void flush(struct render *r, int special)
{
    enum tok_place place = TOK_FIRST;

    if (!(r->c->rules & CHAT_APART) && r->out->n > r->start)
        place = tok_is_added(r->t, r->out->id[r->out->n - 1]) ? TOK_NEXT : TOK_WITHIN;
    if (r->text.len)
        tok_encode_at(r->t, r->text.data, r->text.len, special, place, r->out);
    buf_reset(&r->text);
}

static void token(struct render *r, int64_t id)
{
    flush(r, r->control);
    if (id >= 0)
        ids_add(r->out, (int32_t)id);
}

/* The id of the token at s, which begins with a mark of chat.h; *end behind it. */
static int64_t token_at(const struct chat *c, const struct tok *t, const char *s, const char **end)
{
    char name[64];

    *end = s + 1;
    if (*s == *CHAT_EOS)
        return tok_eos(t);
    /* A model's program says bos itself, whatever the tokenizer begins a text with. */
    if (*s == *CHAT_BOS)
        return c->rules & CHAT_APART ? tok_bos(t) : tok_bos_token(t);
    *end = strchr(s, '\2') + 1;
    snprintf(name, sizeof name, "%.*s", (int)(*end - s - 2), s + 1);
    return tok_id(t, name);
}

/* The added token that begins at s, which is of a template; -1: none does. */
static int64_t added_at(const struct tok *t, const char *s, const char **end)
{
    unsigned char c = (unsigned char)*s;

    for (int64_t k = t->added_at[c]; k < t->added_at[c + 1]; k++) { /* the longest first */
        const struct buf *text = &t->added[k].text;
        if (!strncmp(s, text->data, text->len)) {
            *end = s + text->len;
            return t->added[k].id;
        }
    }
    return -1;
}

static void fixed(struct render *r, const char *s)
{
    for (const char *end; *s; s = end) {
        if (*s > *CHAT_EOS || *s < 0) {
            int64_t added = r->c->rules & CHAT_APART ? -1 : added_at(r->t, s, &end);
            if (added >= 0) {
                token(r, added);
            } else {
                end = s + 1;
                buf_char(&r->text, *s);
            }
            continue;
        }
        int64_t id = token_at(r->c, r->t, s, &end);
        if (*s == '\1' && id < 0)
            r->why = "the tokenizer lacks a token of the chat template";
        token(r, id);
    }
}

/* Appends what a turn says. */
static void content(struct render *r, int role, const char *s, size_t n)
{
    chat_strip(r->c, role, &s, &n);
    buf_add(&r->text, s, n);
}

/* ---- prompt ---- */

/* The role of one turn of a prompt, or ROLES, and what it says. */
static int speaker(struct json turn, struct json *said)
{
    static const char *const roles[ROLES] = {"system", "user", "assistant"};
    struct json role;
    size_t n;
    int i = 0;

    json_get(turn, "role", &role);
    json_get(turn, "content", said);
    while (i < ROLES && strcmp(roles[i], json_string(role, &n)))
        i++;
    return i;
}

/* What a system's turn begins with. */
static const char *system_before(const struct chat *c, int64_t number)
{
    return c->first_system && !number ? c->first_system : c->turn[ROLE_SYSTEM].before;
}

/* The number-th turn.  system: what its content begins with, or NULL. */
static void turn(struct render *r, int role, int64_t number, struct json value,
                 const struct json *system)
{
    size_t n, sn;
    const char *s = json_string(value, &n);

    fixed(r, role == ROLE_SYSTEM ? system_before(r->c, number) : r->c->turn[role].before);
    if (role == ROLE_ASSISTANT && (r->c->rules & CHAT_THINK))
        chat_cut_thought(&s, &n, NULL);
    if (system) {
        struct buf both = {0};
        const char *said = json_string(*system, &sn);
        buf_str(&both, r->c->turn[ROLE_SYSTEM].before);
        buf_add(&both, said, sn);
        buf_str(&both, r->c->turn[ROLE_SYSTEM].after);
        buf_add(&both, s, n);
        content(r, role, both.data, both.len);
        buf_release(&both);
    } else {
        content(r, role, s, n);
    }
    fixed(r, r->c->turn[role].after);
}

/* Everything that systems say, before the turns. */
static void lead(struct render *r, struct json turns)
{
    struct json_iter i;
    struct json value;
    const char *between = "";
    size_t n;

    for (json_iter_init(&i, turns); json_iter_next(&i);) {
        if (speaker(i.value, &value) != ROLE_SYSTEM)
            continue;
        buf_str(&r->text, between);
        const char *s = json_string(value, &n);
        buf_add(&r->text, s, n);
        between = "\n\n";
    }
}

/* Why the template has no place for this turn after `spoken` others, or NULL. */
static const char *unfit(const struct chat *c, int role, int64_t spoken)
{
    if (role == ROLES)
        return "a role in \"prompt\" is not system, user or assistant";
    if (role == ROLE_SYSTEM && (c->rules & CHAT_NO_SYSTEM))
        return "the chat template has no place for a system's turn";
    if ((c->rules & CHAT_ALTERNATE) && role != (spoken % 2 ? ROLE_ASSISTANT : ROLE_USER))
        return "the turns in \"prompt\" do not alternate between user and assistant";
    return NULL;
}

static void turns(struct render *r, struct json list)
{
    unsigned rules = r->c->rules;
    struct json_iter i;
    struct json value, held, *system = NULL; /* which a user's turn will hold */
    int64_t number = 0, spoken = 0, last = json_count(list) - 1;

    for (json_iter_init(&i, list); !r->why && json_iter_next(&i); number++) {
        int role = speaker(i.value, &value);
        if (role == ROLE_SYSTEM && !number && (rules & (CHAT_IN_USER | CHAT_IN_LAST_USER))) {
            held = value;
            system = &held;
            continue;
        }
        if ((r->why = unfit(r->c, role, spoken)))
            return;
        if (role == ROLE_SYSTEM && (rules & CHAT_SYSTEMS_LEAD))
            continue;
        if (!number && role != ROLE_SYSTEM)
            fixed(r, r->c->without_system);
        int holds_system = rules & CHAT_IN_LAST_USER ? number == last : !spoken;
        turn(r, role, number, value, holds_system ? system : NULL);
        spoken++;
    }
    if (!r->why && (rules & CHAT_ALTERNATE) && spoken % 2 == 0)
        r->why = "the last turn in \"prompt\" is not a user's";
}

static void prompt(struct render *r, const struct row *row, const char *tag)
{
    fixed(r, r->c->begin);
    if (json_type(row->prompt) == JSON_STRING) {
        fixed(r, r->c->without_system);
        turn(r, ROLE_USER, 0, row->prompt, NULL);
    } else if ((r->c->rules & CHAT_ONE_TURN) && json_count(row->prompt) > 1) {
        r->why = "a prompt of several turns cannot be told apart in the template \"plain\"";
    } else {
        if (r->c->rules & CHAT_SYSTEMS_LEAD)
            lead(r, row->prompt);
        turns(r, row->prompt);
    }
    fixed(r, r->c->prompt_end);
    flush(r, r->control);
    buf_str(&r->text, tag ? tag : "");
    flush(r, 1);
}

static struct render render_begin(const struct chat *c, struct tok *t, const struct row *row,
                                  struct ids *out)
{
    return (struct render){.c = c, .t = t, .out = out, .start = out->n, .control = row->control};
}

/* Forgets what was appended where it failed; returns why. */
static const char *render_end(struct render *r)
{
    buf_release(&r->text);
    if (r->why)
        r->out->n = r->start;
    return r->why;
}

const char *chat_render_prompt(const struct chat *c, struct tok *t, const struct row *row,
                               const char *tag, struct ids *out)
{
    struct render r = render_begin(c, t, row, out);

    if (!row->has_prompt)
        r.why = "there is no \"prompt\"";
    else
        prompt(&r, row, tag);
    return render_end(&r);
}

/* ---- and what is learnt ---- */

static void answer(struct render *r, const char *s, size_t n)
{
    fixed(r, r->c->before_answer);
    if (r->c->rules & CHAT_THINK)
        chat_cut_thought(&s, &n, &r->text);
    content(r, ROLE_ASSISTANT, s, n);
    fixed(r, r->c->after_answer);
    flush(r, r->control);
}

const char *chat_render(const struct chat *c, struct tok *t, const struct row *row, struct ids *out,
                        struct buf *target)
{
    const char *s = row->has_prompt ? row->response : row->text;
    struct render r = render_begin(c, t, row, out);
    int64_t learnt, rest;

    if (!s)
        return row->has_prompt ? "there is no \"response\""
                               : "there is neither \"prompt\" nor \"text\"";
    if (row->has_prompt) {
        prompt(&r, row, row->tag);
    } else {
        r.c = c = chat_find("plain");
        token(&r, tok_bos(t));
        buf_str(&r.text, row->tag ? row->tag : "");
        flush(&r, 1);
    }
    learnt = out->n;
    answer(&r, s, row->has_prompt ? row->response_len : row->text_len);
    rest = out->n;
    fixed(&r, c->rest);
    flush(&r, 0);
    for (int64_t i = r.start; !r.why && i < out->n; i++)
        buf_char(target, i >= learnt && i < rest);
    return render_end(&r);
}

/* What stands between the prompt and the answer, or before a text. */
static int64_t lead_in(const struct chat *c, struct tok *t, const struct row *row)
{
    struct ids ids = {0};
    struct render r = render_begin(c, t, row, &ids);

    if (row->has_prompt)
        fixed(&r, *c->prompt_end ? c->prompt_end : c->turn[ROLE_USER].after);
    flush(&r, 0);
    buf_str(&r.text, row->tag ? row->tag : "");
    flush(&r, 1);
    int64_t n = ids.n;
    buf_release(&r.text);
    ids_release(&ids);
    return n;
}

const char *chat_render_row(const struct chat *c, struct tok *t, const struct row *row,
                            struct rendered *out)
{
    const char *why;
    int64_t masked = 0;

    out->token.n = 0;
    buf_reset(&out->target);
    if ((why = chat_render(c, t, row, &out->token, &out->target)))
        return why;
    while (masked < out->token.n && !out->target.data[masked])
        masked++;
    out->loose =
        row->has_prompt ? tok_bos_token(t) >= 0 && out->token.id[0] == tok_bos_token(t) : masked;
    out->tight = row->has_prompt ? MAX(masked - lead_in(c, t, row), out->loose) : out->token.n - 1;
    return NULL;
}

int64_t chat_stop(const struct chat *c, struct tok *t)
{
    const char *s = c->after_answer, *end;

    while (*s > *CHAT_EOS)
        s++;
    return token_at(c, t, s, &end);
}
