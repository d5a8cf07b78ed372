/* rows.h -- what is alike in several families: rows of their tables, fields of config.json.
 *
 * Every matrix is (out, in).  Attention is cut by heads, an expert by its inner width, embedding
 * and head by the vocabulary. */
#ifndef ARCH_ROWS_H
#define ARCH_ROWS_H

#include "arch/arch.h"

#define LAYER     "model.layers.{l}."
#define ATTENTION LAYER "self_attn."

/* clang-format off */
#define MATRIX_IN(where, name, role, rows, cols, kind, cut)                                        \
    {name, role, rows, cols, kind, cut, INIT_NORMAL, 1, where}
#define MATRIX(name, role, rows, cols, kind, cut)                                                  \
    MATRIX_IN(ALL_LAYERS, name, role, rows, cols, kind, cut)
#define VECTOR_IN(where, name, role, rows, cut)                                                    \
    {name, role, rows, DIM_ONE, ON_ATTENTION, cut, INIT_ONES, 0, where}
#define VECTOR(name, role, rows, cut) VECTOR_IN(ALL_LAYERS, name, role, rows, cut)
#define BIAS(name, role, rows, cut)                                                                \
    {name, role, rows, DIM_ONE, ON_ATTENTION, cut, INIT_ZEROS, 0, ALL_LAYERS}

#define ROW_EMBED MATRIX("model.embed_tokens.weight", P_EMBED, DIM_V, DIM_D, ON_ATTENTION, CUT_ROWS)
#define ROWS_NORM_QKV                                                                              \
    VECTOR(LAYER "input_layernorm.weight", P_NORM1, DIM_D, CUT_NONE),                              \
    MATRIX(ATTENTION "q_proj.weight", P_QKV, DIM_Q, DIM_D, ON_ATTENTION, CUT_ROWS),                \
    MATRIX(ATTENTION "k_proj.weight", P_QKV, DIM_KV, DIM_D, ON_ATTENTION, CUT_ROWS),               \
    MATRIX(ATTENTION "v_proj.weight", P_QKV, DIM_KV, DIM_D, ON_ATTENTION, CUT_ROWS)
/* Latent attention: what is down is whole on every rank, what is up is cut by heads. */
#define ROWS_NORM_LATENT                                                                           \
    VECTOR(LAYER "input_layernorm.weight", P_NORM1, DIM_D, CUT_NONE),                              \
    MATRIX(ATTENTION "q_a_proj.weight", P_LATENT, DIM_Q_RANK, DIM_D, ON_ATTENTION, CUT_NONE),      \
    MATRIX(ATTENTION "kv_a_proj_with_mqa.weight", P_LATENT, DIM_LATENT, DIM_D, ON_ATTENTION,       \
           CUT_NONE),                                                                              \
    VECTOR(ATTENTION "q_a_layernorm.weight", P_Q_NORM, DIM_Q_RANK, CUT_NONE),                      \
    MATRIX(ATTENTION "q_proj.weight", P_Q, DIM_Q_PLAIN, DIM_D, ON_ATTENTION, CUT_ROWS),            \
    MATRIX(ATTENTION "q_b_proj.weight", P_Q, DIM_Q, DIM_Q_RANK, ON_ATTENTION, CUT_ROWS),           \
    VECTOR(ATTENTION "kv_a_layernorm.weight", P_KV_NORM, DIM_KV_RANK, CUT_NONE),                   \
    MATRIX(ATTENTION "kv_b_proj.weight", P_KV, DIM_KV_UP, DIM_KV_RANK, ON_ATTENTION, CUT_ROWS)
#define ROWS_QKV_BIAS                                                                              \
    BIAS(ATTENTION "q_proj.bias", P_QKV_BIAS, DIM_Q, CUT_ROWS),                                    \
    BIAS(ATTENTION "k_proj.bias", P_QKV_BIAS, DIM_KV, CUT_ROWS),                                   \
    BIAS(ATTENTION "v_proj.bias", P_QKV_BIAS, DIM_KV, CUT_ROWS)
#define ROWS_QK_NORM(q_rows, k_rows, cut)                                                          \
    VECTOR(ATTENTION "q_norm.weight", P_QKNORM, q_rows, cut),                                      \
    VECTOR(ATTENTION "k_norm.weight", P_QKNORM, k_rows, cut)
#define ROWS_OUT_NORM                                                                              \
    MATRIX(ATTENTION "o_proj.weight", P_OUT, DIM_D, DIM_O, ON_ATTENTION, CUT_COLS),                \
    VECTOR(LAYER "post_attention_layernorm.weight", P_NORM2, DIM_D, CUT_NONE)
#define ROW_ROUTER(name)                                                                           \
    MATRIX_IN(EXPERT_LAYERS, LAYER name, P_ROUTER, DIM_E, DIM_D, ON_ATTENTION, CUT_NONE)
/* Seen by the choice of experts only, which a rounding would change, and moved by no gradient. */
#define ROW_ROUTER_BIAS(name)                                                                      \
    {LAYER name, P_ROUTER_BIAS, DIM_E, DIM_ONE, ON_ATTENTION, CUT_NONE, INIT_ZEROS, 0,             \
     EXPERT_LAYERS, .fine = 1}
#define ROWS_EXPERT(gate, up, down)                                                                \
    MATRIX_IN(EXPERT_LAYERS, gate, P_UP, DIM_F, DIM_D, ON_EXPERTS, CUT_ROWS),                      \
    MATRIX_IN(EXPERT_LAYERS, up, P_UP, DIM_F, DIM_D, ON_EXPERTS, CUT_ROWS),                        \
    MATRIX_IN(EXPERT_LAYERS, down, P_DOWN, DIM_D, DIM_F, ON_EXPERTS, CUT_COLS)
/* The network of the dense layers, or what stands beside the experts: mlp is the module's name,
 * width DIM_F_DENSE or DIM_F_SHARED. */
#define ROWS_DENSE(where, mlp, width)                                                              \
    MATRIX_IN(where, LAYER mlp "gate_proj.weight", P_DENSE_UP, width, DIM_D, ON_ATTENTION,         \
              CUT_ROWS),                                                                           \
    MATRIX_IN(where, LAYER mlp "up_proj.weight", P_DENSE_UP, width, DIM_D, ON_ATTENTION,           \
              CUT_ROWS),                                                                           \
    MATRIX_IN(where, LAYER mlp "down_proj.weight", P_DENSE_DOWN, DIM_D, width, ON_ATTENTION,       \
              CUT_COLS)
/* What a layer has beyond others that predicts a token further on. */
#define ROWS_FURTHER                                                                               \
    VECTOR_IN(FURTHER_LAYERS, LAYER "enorm.weight", P_JOIN_E, DIM_D, CUT_NONE),                    \
    VECTOR_IN(FURTHER_LAYERS, LAYER "hnorm.weight", P_JOIN_H, DIM_D, CUT_NONE),                    \
    MATRIX_IN(FURTHER_LAYERS, LAYER "eh_proj.weight", P_JOIN, DIM_D, DIM_2D, ON_ATTENTION,         \
              CUT_NONE),                                                                           \
    VECTOR_IN(FURTHER_LAYERS, LAYER "shared_head.norm.weight", P_JOIN_NORM, DIM_D, CUT_NONE)
#define ROW_SHARED_GATE(name)                                                                      \
    MATRIX_IN(EXPERT_LAYERS, LAYER name, P_SHARED_GATE, DIM_ONE, DIM_D, ON_ATTENTION, CUT_NONE)
#define ROWS_NORM_HEAD                                                                             \
    VECTOR("model.norm.weight", P_NORM, DIM_D, CUT_NONE),                                          \
    MATRIX("lm_head.weight", P_HEAD, DIM_V, DIM_D, ON_ATTENTION, CUT_ROWS),                        \
    {"score.weight", P_SCORE, DIM_ONE, DIM_D, ON_ATTENTION, CUT_NONE, INIT_SCORE, 1, ALL_LAYERS}
/* clang-format on */

/* Fields of config.json that DeepSeek's models share.  transformers says head_dim and means the part
 * that turns, whatever stands there. */
#define FIELDS_LATENT                                                                              \
    {"head_dim", offsetof(struct config, c_turn), FIELD_COUNT, .nullable = 1},                     \
    {"qk_rope_head_dim", offsetof(struct config, c_turn), FIELD_COUNT, .required = 1},             \
    {"qk_nope_head_dim", offsetof(struct config, c_own), FIELD_COUNT, .required = 1},              \
    {"v_head_dim", offsetof(struct config, cv), FIELD_COUNT, .required = 1},                       \
    {"q_lora_rank", offsetof(struct config, q_rank), FIELD_COUNT, .required = 1, .nullable = 1},   \
    {"kv_lora_rank", offsetof(struct config, kv_rank), FIELD_COUNT, .required = 1},                \
    {"intermediate_size", offsetof(struct config, f_dense), FIELD_COUNT, .required = 1},           \
    {"moe_intermediate_size", offsetof(struct config, f), FIELD_COUNT, .required = 1},             \
    {"n_routed_experts", offsetof(struct config, experts), FIELD_COUNT, .required = 1},            \
    {"num_experts_per_tok", offsetof(struct config, k), FIELD_COUNT, .required = 1},               \
    {"aux_loss_alpha", offsetof(struct config, aux), FIELD_REAL, .otherwise = 0.001}

/* Whether the object has such a member that is not null. */
int config_get(struct json object, const char *key, struct json *v);
/* decoder_sparse_step and mlp_only_layers: the layers without experts.  As read() of struct arch. */
const char *config_read_dense(struct config *c, struct json root);
/* Sizes of latent attention and what DeepSeek's models say of their experts.  As read() too. */
const char *config_read_latent(struct config *c, struct json root);
/* NULL, or a refusal of another string than this; absent and null are it. */
const char *config_read_string(struct json root, const char *key, const char *only);
/* Refuses use_sliding_window and layer_types that name windows.  As read() too. */
const char *config_read_windows(struct config *c, struct json root);

#endif
