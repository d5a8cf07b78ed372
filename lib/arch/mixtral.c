/* mixtral.c -- the Mixtral family: RMSNorm before each block, grouped-query attention with RoPE,
 * and in every layer a router with softmax over the k chosen experts, each a SwiGLU: w2 applied to
 * silu(w1 x) times w3 x.  With one expert it is a dense model of the Llama kind under these names.
 */
#include "arch/rows.h"

#define EXPERT LAYER "block_sparse_moe.experts.{e}."
static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_QKV,
    ROWS_OUT_NORM,
    ROW_ROUTER("block_sparse_moe.gate.weight"),
    ROWS_EXPERT(EXPERT "w1.weight", EXPERT "w3.weight", EXPERT "w2.weight"),
    ROWS_NORM_HEAD,
};

#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    {"intermediate_size", AT(f), FIELD_COUNT, .required = 1},
    {"num_local_experts", AT(experts), FIELD_COUNT, .required = 1},
    {"num_experts_per_tok", AT(k), FIELD_COUNT, .required = 1},
    {"router_aux_loss_coef", AT(aux), FIELD_REAL, .otherwise = 0.001},
};

static const char *read_own(struct config *c, struct json root)
{
    static _Thread_local char why[160];
    struct json v;
    int64_t window;
    double jitter;
    if (json_get(root, "sliding_window", &v) && json_type(v) != JSON_NULL &&
        (json_int(v, &window) || window < c->positions)) {
        snprintf(why, sizeof why,
                 "\"sliding_window\" is smaller than \"max_position_embeddings\" (%lld); "
                 "windows are not implemented",
                 (long long)c->positions);
        return why;
    }
    if (json_get(root, "router_jitter_noise", &v) && (json_real(v, &jitter) || jitter != 0))
        return "\"router_jitter_noise\" is not 0; jitter is not implemented";
    c->norm_gate = 1;
    return NULL;
}

const struct arch arch_mixtral = {
    .model_type = "mixtral",
    .architecture = "MixtralForCausalLM",
    .reward_architecture = "MixtralForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = read_own,
};
