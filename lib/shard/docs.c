/* docs.c -- the formats of other programs that documents go to and come from. */
#include "shard/shard.h"

#include <string.h>

const struct docs_format *docs_format_find(const char *name)
{
    static const struct docs_format *const formats[] = {&docs_megatron, &docs_webdataset};
    for (int64_t i = 0; i < ARRAY_LEN(formats); i++)
        if (!strcmp(formats[i]->name, name))
            return formats[i];
    return NULL;
}
