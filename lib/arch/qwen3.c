/* qwen3.c -- the Qwen3 family, dense: as Llama, with RMSNorm over each head of queries and keys
 * before RoPE and a head size of its own. */
#include "arch/rows.h"

static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_QKV,
    ROWS_QK_NORM(DIM_C, DIM_C, CUT_NONE),
    ROWS_OUT_NORM,
    ROWS_DENSE(ALL_LAYERS, "mlp.", DIM_F_DENSE),
    ROWS_NORM_HEAD,
};

#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"intermediate_size", AT(f_dense), FIELD_COUNT, .required = 1},
};

const struct arch arch_qwen3 = {
    .model_type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .reward_architecture = "Qwen3ForSequenceClassification",
    .with_experts = "qwen3_moe",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = config_read_windows,
};
