/* list.c -- what a blob holds, a line for each item: "#" where it is, "@" metadata, and tensors. */
#include "shard/shard_priv.h"

#include <string.h>

void shape_print(const struct tensor *t, struct buf *out)
{
    buf_char(out, '[');
    for (int d = 0; d < t->ndim; d++)
        buf_printf(out, "%s%lld", d ? "," : "", (long long)t->shape[d]);
    buf_char(out, ']');
}

void blob_list(struct out *o, const char *path, int64_t number, const struct blob *b)
{
    struct buf text = {0};
    buf_printf(&text, "# %s", path);
    if (number >= 0)
        buf_printf(&text, " blob %lld", (long long)number);
    buf_printf(&text, "\t%lld tensors\t%lld bytes\n", (long long)b->tensors,
               (long long)header_data_bytes(b));
    for (int64_t i = 0; i < b->keys; i++) {
        buf_printf(&text, "@ %s\t", b->key[i]);
        json_quote(&text, b->value[i], strlen(b->value[i]));
        buf_char(&text, '\n');
    }
    for (int64_t i = 0; i < b->tensors; i++) {
        const struct tensor *t = &b->tensor[i];
        buf_printf(&text, "%s\t%s\t", t->name, dtype_name(t->type));
        shape_print(t, &text);
        buf_printf(&text, "\t%lld\n", (long long)t->bytes);
    }
    out_write(o, text.data, text.len);
    buf_release(&text);
}
