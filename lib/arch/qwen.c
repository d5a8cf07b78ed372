/* qwen.c -- what Qwen's models have in common in config.json beyond plain fields: which layers have
 * no experts, and which see only a window. */
#include "arch/rows.h"

#include <stdlib.h>
#include <string.h>

const char *config_read_dense(struct config *c, struct json root)
{
    struct json v;
    struct json_iter i;
    int64_t step = 1, l;
    if (config_get(root, "decoder_sparse_step", &v) && (json_int(v, &step) || step < 1))
        return "\"decoder_sparse_step\" is not a positive integer";
    c->dense = xcalloc((size_t)c->layers, 1);
    for (l = 0; l < c->layers; l++)
        c->dense[l] = (l + 1) % step != 0;
    if (config_get(root, "mlp_only_layers", &v)) {
        if (json_type(v) != JSON_ARRAY)
            return "\"mlp_only_layers\" is not a list of layers";
        for (json_iter_init(&i, v); json_iter_next(&i); c->dense[l] = 1)
            if (json_int(i.value, &l) || l < 0 || l >= c->layers)
                return "\"mlp_only_layers\" names what is no layer";
    }
    return config_expert_layers(c) < c->layers && !c->f_dense
               ? "\"intermediate_size\" is missing, and there are layers without experts"
               : NULL;
}

const char *config_read_windows(struct config *c, struct json root)
{
    struct json v;
    struct json_iter i;
    size_t len;
    int windows;
    if (config_get(root, "use_sliding_window", &v) && (json_bool(v, &windows) || windows))
        return "\"use_sliding_window\" is not false; windows are not implemented";
    if (!config_get(root, "layer_types", &v) || json_type(v) != JSON_ARRAY)
        return NULL;
    for (json_iter_init(&i, v); json_iter_next(&i);)
        if (!json_string(i.value, &len) || strcmp(json_string(i.value, &len), "full_attention"))
            return "\"layer_types\" has another than \"full_attention\", the only one implemented";
    return NULL;
}
