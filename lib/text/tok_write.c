/* tok_write.c -- a trained tokenizer as tokenizer.json. */

#include "text/tok.h"

#include <string.h>

static const char *const special_names[] = {
    "<|bos|>",  "<|eos|>",  "<|pad|>",  "<|user|>", "<|assistant|>", "<|system|>",
    "<|end|>",  "<|rw_0|>", "<|rw_1|>", "<|rw_2|>", "<|rw_3|>",      "<|rw_4|>",
    "<|rw_5|>", "<|rw_6|>", "<|rw_7|>", "<|rw_8|>", "<|rw_9|>",
};

static void byte_level_text(struct buf *out, const struct buf *bytes)
{
    for (size_t i = 0; i < bytes->len; i++)
        utf8_add(out, byte_level_char((uint8_t)bytes->data[i]));
}

static void special_name(char name[48], int64_t i)
{
    int64_t named = ARRAY_LEN(special_names);

    if (i < named)
        snprintf(name, 48, "%s", special_names[i]);
    else
        snprintf(name, 48, "<|reserved_%lld|>", (long long)(i - named));
}

void tok_write(const struct buf *token, const int32_t *merge, int64_t merges, struct buf *json)
{
    char name[48];

    buf_str(json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int64_t i = 0; i < TOK_SPECIALS; i++) {
        special_name(name, i);
        buf_printf(json,
                   "%s\n{\"id\":%lld,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                   "\"rstrip\":false,\"normalized\":false,\"special\":true}",
                   i ? "," : "", (long long)i, name);
    }
    buf_str(
        json,
        "],\n\"normalizer\":null,\n\"pre_tokenizer\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},\n"
        "\"post_processor\":null,\n\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true},\n\"model\":{\"type\":\"BPE\","
        "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
        "\"ignore_merges\":false,\n\"vocab\":{");
    for (int64_t i = 0; i < TOK_SPECIALS + 256 + merges; i++) {
        special_name(name, i);
        buf_str(json, i ? ",\n" : "\n");
        struct buf b = {0};
        if (i < TOK_SPECIALS)
            buf_str(&b, name);
        else
            byte_level_text(&b, &token[i]);
        json_quote(json, b.data, b.len);
        buf_release(&b);
        buf_printf(json, ":%lld", (long long)i);
    }
    buf_str(json, "},\n\"merges\":[");
    for (int64_t i = 0; i < merges; i++) {
        struct buf both = {0}; /* no token has a space in GPT-2's alphabet */
        byte_level_text(&both, &token[merge[2 * i]]);
        buf_char(&both, ' ');
        byte_level_text(&both, &token[merge[2 * i + 1]]);
        buf_str(json, i ? ",\n" : "\n");
        json_quote(json, both.data, both.len);
        buf_release(&both);
    }
    buf_str(json, "]}}\n");
}
