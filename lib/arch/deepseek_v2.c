/* deepseek_v2.c -- DeepSeek-V2 and V2-Lite: latent attention, layers without experts first, shared
 * experts beside the others, a softmax router whose gates are scaled and are not divided by their
 * sum, and which chooses from all experts or from the groups with the best single one. */
#include "arch/rows.h"

#include <string.h>

#define EXPERT LAYER "mlp.experts.{e}."
static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_LATENT,
    ROWS_OUT_NORM,
    ROWS_DENSE(DENSE_LAYERS, "mlp.", DIM_F_DENSE),
    ROWS_DENSE(EXPERT_LAYERS, "mlp.shared_experts.", DIM_F_SHARED),
    ROW_ROUTER("mlp.gate.weight"),
    ROWS_EXPERT(EXPERT "gate_proj.weight", EXPERT "up_proj.weight", EXPERT "down_proj.weight"),
    ROWS_NORM_HEAD,
};

#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    FIELDS_LATENT,
    {"n_group", AT(expert_groups), FIELD_COUNT, .nullable = 1, .otherwise = 1},
    {"topk_group", AT(group_limit), FIELD_COUNT, .nullable = 1, .otherwise = 1},
    {"routed_scaling_factor", AT(gate_scale), FIELD_REAL, .otherwise = 1},
    {"norm_topk_prob", AT(norm_gate), FIELD_FLAG, .nullable = 1},
};

static const char *read_own(struct config *c, struct json root)
{
    struct json v;
    size_t len;
    const char *why = config_read_string(root, "scoring_func", "softmax"), *method = NULL;
    if (json_get(root, "topk_method", &v) && json_type(v) != JSON_NULL)
        method = json_string(v, &len);
    else
        method = "greedy";
    if (!method || (strcmp(method, "greedy") && strcmp(method, "group_limited_greedy")))
        return "\"topk_method\" is not \"greedy\" or \"group_limited_greedy\", the only ones "
               "implemented";
    if (!strcmp(method, "greedy") && c->group_limit < c->expert_groups)
        return "\"topk_method\" is \"greedy\", and \"topk_group\" is less than \"n_group\"";
    if (c->norm_gate)
        return "\"norm_topk_prob\" is not false, the only value implemented";
    c->group_best = 1;
    return why ? why : config_read_latent(c, root);
}

const struct arch arch_deepseek_v2 = {
    .model_type = "deepseek_v2",
    .architecture = "DeepseekV2ForCausalLM",
    .reward_architecture = "DeepseekV2ForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = read_own,
};
