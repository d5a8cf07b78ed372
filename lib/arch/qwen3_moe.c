/* qwen3_moe.c -- the Qwen3-MoE family: as Mixtral, with RMSNorm over each head of queries and keys
 * before RoPE, a head size of its own, gates that are divided by their sum only where the
 * configuration says so, and layers without experts where it names them. */
#include "arch/rows.h"

#define EXPERT LAYER "mlp.experts.{e}."
static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_QKV,
    ROWS_QK_NORM(DIM_C, DIM_C, CUT_NONE),
    ROWS_OUT_NORM,
    ROWS_DENSE(DENSE_LAYERS, "mlp.", DIM_F_DENSE),
    ROW_ROUTER("mlp.gate.weight"),
    ROWS_EXPERT(EXPERT "gate_proj.weight", EXPERT "up_proj.weight", EXPERT "down_proj.weight"),
    ROWS_NORM_HEAD,
};

/* Published files call the experts num_experts; transformers 5 writes num_local_experts. */
#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"moe_intermediate_size", AT(f), FIELD_COUNT, .required = 1},
    {"intermediate_size", AT(f_dense), FIELD_COUNT},
    {"num_experts", AT(experts), FIELD_COUNT, .required = 1, .alias = "num_local_experts"},
    {"num_experts_per_tok", AT(k), FIELD_COUNT, .required = 1},
    {"norm_topk_prob", AT(norm_gate), FIELD_FLAG},
    {"router_aux_loss_coef", AT(aux), FIELD_REAL, .otherwise = 0.001},
};

static const char *read_own(struct config *c, struct json root)
{
    const char *why = config_read_windows(c, root);
    return why ? why : config_read_dense(c, root);
}

const struct arch arch_qwen3_moe = {
    .model_type = "qwen3_moe",
    .architecture = "Qwen3MoeForCausalLM",
    .reward_architecture = "Qwen3MoeForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = read_own,
};
