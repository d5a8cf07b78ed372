/* llama.c -- the Llama family, dense: RMSNorm before each block, grouped-query attention with RoPE,
 * and in every layer one SwiGLU network.  Old files leave out what grouped queries and longer
 * sequences brought. */
#include "arch/rows.h"

static const struct arch_row rows[] = {
    ROW_EMBED,      ROWS_NORM_QKV, ROWS_OUT_NORM, ROWS_DENSE(ALL_LAYERS, "mlp.", DIM_F_DENSE),
    ROWS_NORM_HEAD,
};

#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"intermediate_size", AT(f_dense), FIELD_COUNT, .required = 1},
    {"num_key_value_heads", AT(groups), FIELD_COUNT, .nullable = 1},
    {"rope_theta", AT(theta), FIELD_REAL, .nullable = 1, .otherwise = 10000},
};

const struct arch arch_llama = {
    .model_type = "llama",
    .architecture = "LlamaForCausalLM",
    .reward_architecture = "LlamaForSequenceClassification",
    .with_experts = "mixtral",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
};
