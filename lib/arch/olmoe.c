/* olmoe.c -- the OLMoE family: as Mixtral, with RMSNorm over all heads of the queries together and
 * over all of the keys before RoPE, and gates that are divided by their sum only where the
 * configuration says so.
 *
 * Transformers has no reward model of this family; one made here has the name it would have. */
#include "arch/rows.h"

#define EXPERT LAYER "mlp.experts.{e}."
static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_QKV,
    ROWS_QK_NORM(DIM_Q, DIM_KV, CUT_ROWS),
    ROWS_OUT_NORM,
    ROW_ROUTER("mlp.gate.weight"),
    ROWS_EXPERT(EXPERT "gate_proj.weight", EXPERT "up_proj.weight", EXPERT "down_proj.weight"),
    ROWS_NORM_HEAD,
};

#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"intermediate_size", AT(f), FIELD_COUNT, .required = 1},
    {"num_experts", AT(experts), FIELD_COUNT, .required = 1, .alias = "num_local_experts"},
    {"num_experts_per_tok", AT(k), FIELD_COUNT, .required = 1},
    {"norm_topk_prob", AT(norm_gate), FIELD_FLAG},
    {"router_aux_loss_coef", AT(aux), FIELD_REAL, .otherwise = 0.01},
};

static const char *read_own(struct config *c, struct json root)
{
    struct json v;
    if (json_get(root, "clip_qkv", &v) && json_type(v) != JSON_NULL)
        return "\"clip_qkv\" is not null; clipping is not implemented";
    if (c->heads * c->c != c->d)
        return "\"head_dim\" is not \"hidden_size\" / \"num_attention_heads\"";
    c->qk_whole = 1;
    return NULL;
}

const struct arch arch_olmoe = {
    .model_type = "olmoe",
    .architecture = "OlmoeForCausalLM",
    .reward_architecture = "OlmoeForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = read_own,
};
