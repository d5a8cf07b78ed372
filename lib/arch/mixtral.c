/* mixtral.c -- the Mixtral family: RMSNorm before each block, grouped-query attention with RoPE,
 * and in every layer a router with softmax over the k chosen experts, each a SwiGLU: w2 applied to
 * silu(w1 x) times w3 x.  With one expert it is a dense model of the Llama kind under these names.
 */
#include "arch/arch.h"

#define LAYER  "model.layers.{l}."
#define EXPERT LAYER "block_sparse_moe.experts.{e}."

/* Every matrix is (out, in).  Attention is cut by heads, an expert by its inner width, embedding
 * and head by the vocabulary. */
static const struct arch_row rows[] = {
    {"model.embed_tokens.weight", P_EMBED, DIM_V, DIM_D, ON_ATTENTION, CUT_ROWS, INIT_NORMAL, 1},
    {LAYER "input_layernorm.weight", P_NORM1, DIM_D, DIM_ONE, ON_ATTENTION, CUT_NONE, INIT_ONES, 0},
    {LAYER "self_attn.q_proj.weight", P_QKV, DIM_Q, DIM_D, ON_ATTENTION, CUT_ROWS, INIT_NORMAL, 1},
    {LAYER "self_attn.k_proj.weight", P_QKV, DIM_KV, DIM_D, ON_ATTENTION, CUT_ROWS, INIT_NORMAL, 1},
    {LAYER "self_attn.v_proj.weight", P_QKV, DIM_KV, DIM_D, ON_ATTENTION, CUT_ROWS, INIT_NORMAL, 1},
    {LAYER "self_attn.o_proj.weight", P_OUT, DIM_D, DIM_Q, ON_ATTENTION, CUT_COLS, INIT_NORMAL, 1},
    {LAYER "post_attention_layernorm.weight", P_NORM2, DIM_D, DIM_ONE, ON_ATTENTION, CUT_NONE,
     INIT_ONES, 0},
    {LAYER "block_sparse_moe.gate.weight", P_ROUTER, DIM_E, DIM_D, ON_ATTENTION, CUT_NONE,
     INIT_NORMAL, 1},
    {EXPERT "w1.weight", P_UP, DIM_F, DIM_D, ON_EXPERTS, CUT_ROWS, INIT_NORMAL, 1},
    {EXPERT "w3.weight", P_UP, DIM_F, DIM_D, ON_EXPERTS, CUT_ROWS, INIT_NORMAL, 1},
    {EXPERT "w2.weight", P_DOWN, DIM_D, DIM_F, ON_EXPERTS, CUT_COLS, INIT_NORMAL, 1},
    {"model.norm.weight", P_NORM, DIM_D, DIM_ONE, ON_ATTENTION, CUT_NONE, INIT_ONES, 0},
    {"lm_head.weight", P_HEAD, DIM_V, DIM_D, ON_ATTENTION, CUT_ROWS, INIT_NORMAL, 1},
    {"score.weight", P_SCORE, DIM_ONE, DIM_D, ON_ATTENTION, CUT_NONE, INIT_SCORE, 1},
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
