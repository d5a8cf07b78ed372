/* latent.c -- what DeepSeek's models have in common in config.json beyond plain fields: heads of
 * two parts, leading layers without experts, shared experts that are one network, groups of
 * experts. */
#include "arch/rows.h"

#include <stdlib.h>
#include <string.h>

/* An integer from `least` on; absent and null are `otherwise`. */
static int read_int(struct json root, const char *key, int64_t least, int64_t otherwise, int64_t *x)
{
    struct json v;
    *x = otherwise;
    if (!config_get(root, key, &v))
        return 0;
    return json_int(v, x) || *x < least || *x > INT32_MAX ? -1 : 0;
}

const char *config_read_string(struct json root, const char *key, const char *only)
{
    static _Thread_local char why[160];
    struct json v;
    size_t len;
    if (!config_get(root, key, &v))
        return NULL;
    const char *s = json_string(v, &len);
    if (s && !strcmp(s, only))
        return NULL;
    snprintf(why, sizeof why, "\"%s\" is not \"%s\", the only one implemented", key, only);
    return why;
}

const char *config_read_latent(struct config *c, struct json root)
{
    int64_t first, shared, every;
    if (read_int(root, "first_k_dense_replace", 0, -1, &first) || first < 0)
        return "\"first_k_dense_replace\" is not a number of layers";
    if (read_int(root, "n_shared_experts", 1, 0, &shared) || !shared)
        return "\"n_shared_experts\" is not a positive integer";
    if (read_int(root, "moe_layer_freq", 1, 1, &every) || every != 1)
        return "\"moe_layer_freq\" is not 1, the only value implemented";
    if (shared * c->f > INT32_MAX)
        return "\"n_shared_experts\" times \"moe_intermediate_size\" is too large";
    c->f_shared = shared * c->f;
    c->dense = xcalloc((size_t)c->layers, 1);
    for (int64_t l = 0; l < MIN(first, c->layers); l++)
        c->dense[l] = 1;
    const struct {
        const char *what;
        int holds;
    } rules[] = {
        {"\"num_key_value_heads\" is not \"num_attention_heads\"", c->groups == c->heads},
        {"\"qk_rope_head_dim\" is odd, so RoPE has no pairs to rotate", c->c_turn % 2 == 0},
        {"\"v_head_dim\" is more than \"qk_nope_head_dim\" and \"qk_rope_head_dim\" together",
         c->cv <= c->c},
        {"\"n_routed_experts\" is not a multiple of \"n_group\"",
         c->experts % c->expert_groups == 0},
        {"\"topk_group\" is more than \"n_group\"", c->group_limit <= c->expert_groups},
        {"the experts chosen for a token are more than \"topk_group\" groups have",
         c->k <= c->group_limit * (c->experts / c->expert_groups)},
    };
    for (int64_t i = 0; i < ARRAY_LEN(rules); i++)
        if (!rules[i].holds)
            return rules[i].what;
    return NULL;
}
