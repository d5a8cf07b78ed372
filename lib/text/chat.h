/* chat.h -- what a chat template is made of. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include "text/tok.h"

enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLES };
enum {
    CHAT_APART = 1,         /* each part is encoded as a text of its own */
    CHAT_ONE_TURN = 2,      /* turns could not be told apart */
    CHAT_ALTERNATE = 4,     /* user and assistant by turns, after at most one system */
    CHAT_NO_SYSTEM = 8,     /* a system's turn cannot be said */
    CHAT_IN_USER = 16,      /* it stands at the front of the first user's content */
    CHAT_IN_LAST_USER = 32, /* of the last one's */
    CHAT_SYSTEMS_LEAD = 64, /* all of them, joined, before the turns */
    CHAT_STRIP = 128,       /* contents lose the white space around them */
    CHAT_STRIP_ANSWERS = 256,
    CHAT_THINK = 512, /* answers begin with a thought between <think> and </think> */
};

/* Its strings are text in which a token stands as CHAT_TOKEN(name), the tokenizer's bos and eos as
 * CHAT_BOS and CHAT_EOS (nothing where it has none). */
#define CHAT_TOKEN(name) "\1" name "\2"
#define CHAT_BOS         "\3"
#define CHAT_EOS         "\4"
struct chat {
    const char *name;
    unsigned rules;
    const char *begin;          /* before everything */
    const char *without_system; /* then, where the first turn is not a system's */
    struct {
        const char *before, *after;
    } turn[ROLES];
    const char *prompt_end;                   /* what the model goes on from */
    const char *before_answer, *after_answer; /* learnt with it; how an answer ends */
    const char *rest;                         /* not learnt */
    const char *first_system; /* before a system's first words, where other than turn's; or NULL */
};
extern const struct chat chats[]; /* chat_list.c; ends with a name that is NULL */

/* ---- chat_said.c ---- */

/* Takes white space from around what a role says, where the template does. */
void chat_strip(const struct chat *c, int role, const char **s, size_t *n);
/* Cuts an answer behind its last thought.  Appends the thought, what the first one holds, as an
 * answer begins with it; thought may be NULL. */
void chat_cut_thought(const char **s, size_t *n, struct buf *thought);

#endif
