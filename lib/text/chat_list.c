/* chat_list.c -- the chat templates, and how one is recognised.
 *
 * A model's template is a program in Jinja, which nothing here runs.  What it does is a line of the
 * table; that it does so is known by a hash of the program, from which white space that means
 * nothing has been taken. */

#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

#define IM(role) CHAT_TOKEN("<|im_start|>") role "\n"
#define IM_END   CHAT_TOKEN("<|im_end|>")
#define IM_TURNS                                                                                   \
    {{IM("system"), IM_END "\n"}, {IM("user"), IM_END "\n"}, {IM("assistant"), IM_END "\n"}},      \
        IM("assistant")
#define HEADER(role) CHAT_TOKEN("<|start_header_id|>") role CHAT_TOKEN("<|end_header_id|>") "\n\n"
#define EOT          CHAT_TOKEN("<|eot_id|>")
/* Llama 3.2's program would write today's date; where it cannot tell, as here, 3.1's. */
#define LLAMA31_DATES                                                                              \
    HEADER("system") "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
#define TULU_TURNS                                                                                 \
    {{"<|system|>\n", "\n"}, {"<|user|>\n", "\n"}, {"<|assistant|>\n", CHAT_EOS "\n"}},            \
        "<|assistant|>\n", "", CHAT_EOS

const struct chat chats[] = {
    {"plain",
     CHAT_APART | CHAT_ONE_TURN,
     CHAT_BOS,
     "",
     {{"", ""}, {"", ""}, {"", ""}},
     "",
     "",
     CHAT_EOS,
     ""},
    {"chat",
     CHAT_APART,
     CHAT_BOS,
     "",
     {{CHAT_TOKEN("<|system|>"), CHAT_TOKEN("<|end|>")},
      {CHAT_TOKEN("<|user|>"), CHAT_TOKEN("<|end|>")},
      {CHAT_TOKEN("<|assistant|>"), CHAT_TOKEN("<|end|>")}},
     CHAT_TOKEN("<|assistant|>"),
     "",
     CHAT_TOKEN("<|end|>"),
     ""},
    {"chatml", 0, "", "", IM_TURNS, "", IM_END, "\n"},
    {"qwen1.5", 0, "", IM("system") "You are a helpful assistant" IM_END "\n", IM_TURNS, "", IM_END,
     "\n"},
    {"qwen2", 0, "", IM("system") "You are a helpful assistant." IM_END "\n", IM_TURNS, "", IM_END,
     "\n"},
    {"qwen2.5", 0, "",
     IM("system") "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." IM_END
                  "\n",
     IM_TURNS, "", IM_END, "\n"},
    {"qwen3", CHAT_THINK, "", "", IM_TURNS, "", IM_END, "\n"},
    {"llama2",
     CHAT_ALTERNATE | CHAT_IN_USER | CHAT_STRIP,
     "",
     "",
     {{"<<SYS>>\n", "\n<</SYS>>\n\n"}, {CHAT_BOS "[INST] ", " [/INST]"}, {" ", " " CHAT_EOS}},
     "",
     " ",
     " " CHAT_EOS,
     ""},
    {"llama3",
     CHAT_STRIP,
     CHAT_BOS,
     "",
     {{HEADER("system"), EOT}, {HEADER("user"), EOT}, {HEADER("assistant"), EOT}},
     HEADER("assistant"),
     "",
     EOT,
     ""},
    {"llama3.1",
     CHAT_STRIP,
     CHAT_BOS,
     LLAMA31_DATES EOT,
     {{HEADER("system"), EOT}, {HEADER("user"), EOT}, {HEADER("assistant"), EOT}},
     HEADER("assistant"),
     "",
     EOT,
     "",
     LLAMA31_DATES},
    {"mistral",
     CHAT_ALTERNATE | CHAT_NO_SYSTEM,
     CHAT_BOS,
     "",
     {{"", ""}, {"[INST] ", " [/INST]"}, {"", CHAT_EOS}},
     "",
     "",
     CHAT_EOS,
     ""},
    {"mistral-v3",
     CHAT_ALTERNATE | CHAT_IN_LAST_USER | CHAT_STRIP_ANSWERS,
     CHAT_BOS,
     "",
     {{"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", CHAT_EOS}},
     "",
     " ",
     CHAT_EOS,
     ""},
    {"mistral-v3-tekken",
     CHAT_ALTERNATE | CHAT_IN_LAST_USER,
     CHAT_BOS,
     "",
     {{"", "\n\n"}, {"[INST]", "[/INST]"}, {"", CHAT_EOS}},
     "",
     "",
     CHAT_EOS,
     ""},
    {"mixtral",
     CHAT_ALTERNATE | CHAT_IN_USER,
     CHAT_BOS,
     "",
     {{"", "\n\n"}, {" [INST] ", " [/INST]"}, {" ", CHAT_EOS}},
     "",
     " ",
     CHAT_EOS,
     ""},
    {"mixtral-8x22b",
     CHAT_ALTERNATE | CHAT_NO_SYSTEM,
     CHAT_BOS,
     "",
     {{"", ""}, {" [INST] ", " [/INST]"}, {" ", " " CHAT_EOS}},
     "",
     " ",
     " " CHAT_EOS,
     ""},
    {"deepseek-v2",
     0,
     CHAT_BOS,
     "",
     {{"", "\n\n"}, {"User: ", "\n\n"}, {"Assistant: ", CHAT_EOS}},
     "Assistant:",
     " ",
     CHAT_EOS,
     ""},
    {"deepseek-v3",
     CHAT_SYSTEMS_LEAD,
     CHAT_BOS,
     "",
     {{"", ""},
      {CHAT_TOKEN("<｜User｜>"), ""},
      {CHAT_TOKEN("<｜Assistant｜>"), CHAT_TOKEN("<｜end▁of▁sentence｜>")}},
     CHAT_TOKEN("<｜Assistant｜>"),
     "",
     CHAT_TOKEN("<｜end▁of▁sentence｜>"),
     ""},
    {"olmoe", 0, CHAT_BOS, "", TULU_TURNS, "\n"},
    {"olmo2", 0, CHAT_BOS, "", TULU_TURNS, ""},
    {"tulu3", 0, "", "", TULU_TURNS, ""},
    {0}};

static const struct {
    const char *hash, *name;
} known[] = {
    {"929ec2f3282ef80f", "chatml"},        {"219018baab1dd6bb", "qwen1.5"},
    {"6bb3bfb6cd18c1ed", "qwen2"},         {"59d3d05c6cabf3ba", "qwen3"},
    {"3b4abb05878fc6d0", "llama2"},        {"cbe404e8e931e641", "llama3"},
    {"878c859771cba766", "mistral"},       {"603eead8b42cc4a9", "mixtral"},
    {"4fb13c905012e6fe", "mixtral-8x22b"}, {"bcaf37227377aaaa", "deepseek-v2"},
    {"1f479538ae4685c6", "deepseek-v3"},   {"8be36a65ee966449", "olmoe"},
    {"6b74d539e76aa9e1", "olmo2"},         {"8b04cb2e973f7f99", "tulu3"},
    {"e12a377345e3352a", "qwen2.5"},       {"7d1294cbecbce23c", "llama3.1"}, /* and 3.3 */
    {"acd5494c4df7fa53", "mistral-v3"},    {"a4dc0f0c6c30966e", "llama3.1"}, /* 3.2 */
    {"6d56cb3b00d24dde", "chatml"},        {"8391c942def5042e", "mistral-v3-tekken"},
    {"aa0c12caed7fc870", "qwen3"}, /* chatml: Qwen 3 Instruct of July 2025, and the others' then */
};

/* Appends the program without the white space in its tags, either quote as ", \n in a string as a
 * newline. */
static void essence(struct buf *out, const char *s, size_t n)
{
    char quote = 0;
    int tag = 0; /* what closes it: '}' or '%' */

    for (size_t i = 0; i < n; i++) {
        char next = i + 1 < n ? s[i + 1] : 0;
        if (!tag) {
            tag = s[i] == '{' && next == '{' ? '}' : s[i] == '{' && next == '%' ? '%' : 0;
        } else if (quote) {
            if (s[i] == '\\' && next) {
                buf_char(out, next == 'n' ? '\n' : next);
                i++;
            } else if (s[i] == quote) {
                buf_char(out, '"');
                quote = 0;
            } else {
                buf_char(out, s[i]);
            }
            continue;
        } else if (s[i] == '\'' || s[i] == '"') {
            quote = s[i];
            buf_char(out, '"');
            continue;
        } else if (s[i] == tag && next == '}') {
            tag = 0;
            buf_char(out, s[i++]);
        } else if (s[i] == ' ' || s[i] == '\n') {
            continue;
        }
        buf_char(out, s[i]);
    }
}

static void names(struct buf *out)
{
    for (const struct chat *c = chats; c->name; c++)
        buf_printf(out, " %s", c->name);
}

/* The Jinja program: a string, or of a list of {name, template} the one named default. */
static const char *program(struct json config, size_t *len)
{
    struct json v, x;
    struct json_iter i;
    const char *name;

    if (!json_get(config, "chat_template", &v))
        return NULL;
    if (json_type(v) != JSON_ARRAY)
        return json_string(v, len);
    for (json_iter_init(&i, v); json_iter_next(&i);)
        if (json_get(i.value, "name", &x) && (name = json_string(x, len)) &&
            !strcmp(name, "default") && json_get(i.value, "template", &x))
            return json_string(x, len);
    return NULL;
}

const struct chat *chat_recognise(const struct tok *t)
{
    struct json_doc *doc = json_doc_new();
    struct json config;
    struct buf b = {0};
    const char *why, *s = NULL;
    char hash[17];
    size_t len;

    if (t->chat_template.len) {
        s = t->chat_template.data;
        len = t->chat_template.len;
    } else if (t->config.len && !json_parse(doc, t->config.data, t->config.len, &config, &why)) {
        s = program(config, &len);
    }
    names(&b);
    if (!s)
        die_misused("the tokenizer has no chat_template, in tokenizer_config.json or beside it; by "
                    "name there are:%s",
                    b.data);
    struct buf e = {0};
    essence(&e, s, len);
    hash_hex(hash, hash_xxh3(e.data, e.len));
    buf_release(&e);
    json_doc_free(doc);
    for (int64_t i = 0; i < ARRAY_LEN(known); i++)
        if (!strcmp(known[i].hash, hash)) {
            buf_release(&b);
            return chat_find(known[i].name);
        }
    die_misused("the tokenizer's chat_template (%s) is none of those that are recognised; by name "
                "there are:%s",
                hash, b.data);
}

const struct chat *chat_find(const char *name)
{
    struct buf b = {0};

    for (const struct chat *c = chats; c->name; c++)
        if (!strcmp(c->name, name))
            return c;
    names(&b);
    die_misused("no chat template \"%s\"; there are:%s", name, b.data);
}

const char *chat_name(const struct chat *c)
{
    return c->name;
}
