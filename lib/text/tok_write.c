/* tok_write.c -- a trained tokenizer as tokenizer.json: the reserved names, bytes, merges. */

#include "text/tok_file.h"

#include <string.h>

static const char *const special_names[] = {
    "<|bos|>",  "<|eos|>",  "<|pad|>",  "<|user|>", "<|assistant|>", "<|system|>",
    "<|end|>",  "<|rw_0|>", "<|rw_1|>", "<|rw_2|>", "<|rw_3|>",      "<|rw_4|>",
    "<|rw_5|>", "<|rw_6|>", "<|rw_7|>", "<|rw_8|>", "<|rw_9|>",
};

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
    struct tok_file f;
    char name[48];

    tok_file_init(&f);
    for (int64_t i = 0; i < TOK_SPECIALS + 256 + merges; i++) {
        struct buf b = {0};
        special_name(name, i);
        if (i < TOK_SPECIALS)
            tok_file_added(&f, i)->special = 1;
        else
            byte_level_text(&b, token[i].data, token[i].len);
        tok_file_token(&f, i, b.len ? b.data : name, b.len ? b.len : strlen(name), "tokenizer");
        buf_release(&b);
    }
    for (int64_t i = 0; i < 2 * merges; i++)
        ids_add(&f.merge, merge[i]);
    tok_file_byte_level(&f, NULL);
    tok_file_write(&f, json);
    tok_file_release(&f);
}
