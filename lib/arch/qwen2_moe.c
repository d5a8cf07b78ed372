/* qwen2_moe.c -- the Qwen2-MoE family: as Mixtral, with biases of queries, keys and values, a
 * shared expert that takes every token and has a gate of its own, sigmoid(w x), and layers without
 * experts where the configuration names them. */
#include "arch/rows.h"

#define EXPERT LAYER "mlp.experts.{e}."
static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_QKV,
    ROWS_QKV_BIAS,
    ROWS_OUT_NORM,
    ROWS_DENSE(DENSE_LAYERS, "mlp.", DIM_F_DENSE),
    ROWS_DENSE(EXPERT_LAYERS, "mlp.shared_expert.", DIM_F_SHARED),
    ROW_SHARED_GATE("mlp.shared_expert_gate.weight"),
    ROW_ROUTER("mlp.gate.weight"),
    ROWS_EXPERT(EXPERT "gate_proj.weight", EXPERT "up_proj.weight", EXPERT "down_proj.weight"),
    ROWS_NORM_HEAD,
};

/* Published files call the experts num_experts; transformers 5 writes num_local_experts. */
#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"moe_intermediate_size", AT(f), FIELD_COUNT, .required = 1},
    {"shared_expert_intermediate_size", AT(f_shared), FIELD_COUNT, .required = 1},
    {"intermediate_size", AT(f_dense), FIELD_COUNT},
    {"num_experts", AT(experts), FIELD_COUNT, .required = 1, .alias = "num_local_experts"},
    {"num_experts_per_tok", AT(k), FIELD_COUNT, .required = 1},
    {"norm_topk_prob", AT(norm_gate), FIELD_FLAG},
    {"router_aux_loss_coef", AT(aux), FIELD_REAL, .otherwise = 0.001},
};

static const char *read_own(struct config *c, struct json root)
{
    struct json v;
    int bias;
    const char *why = config_read_windows(c, root);
    if (json_get(root, "qkv_bias", &v) && (json_bool(v, &bias) || !bias))
        return "\"qkv_bias\" is not true, the only value implemented";
    return why ? why : config_read_dense(c, root);
}

const struct arch arch_qwen2_moe = {
    .model_type = "qwen2_moe",
    .architecture = "Qwen2MoeForCausalLM",
    .reward_architecture = "Qwen2MoeForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = read_own,
};
