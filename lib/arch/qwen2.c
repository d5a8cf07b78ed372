/* qwen2.c -- the Qwen2 family, dense: as Llama, with biases of queries, keys and values. */
#include "arch/rows.h"

static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_QKV,
    ROWS_QKV_BIAS,
    ROWS_OUT_NORM,
    ROWS_DENSE(ALL_LAYERS, "mlp.", DIM_F_DENSE),
    ROWS_NORM_HEAD,
};

#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"intermediate_size", AT(f_dense), FIELD_COUNT, .required = 1},
};

const struct arch arch_qwen2 = {
    .model_type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .reward_architecture = "Qwen2ForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = config_read_windows,
};
