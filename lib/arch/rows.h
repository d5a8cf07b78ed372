/* rows.h -- rows of a family's table that are alike in several families.
 *
 * Every matrix is (out, in).  Attention is cut by heads, an expert by its inner width, embedding
 * and head by the vocabulary. */
#ifndef ARCH_ROWS_H
#define ARCH_ROWS_H

#include "arch/arch.h"

#define LAYER     "model.layers.{l}."
#define ATTENTION LAYER "self_attn."

/* clang-format off */
#define MATRIX(name, role, rows, cols, kind, cut) {name, role, rows, cols, kind, cut, INIT_NORMAL, 1}
#define VECTOR(name, role, rows, cut) {name, role, rows, DIM_ONE, ON_ATTENTION, cut, INIT_ONES, 0}

#define ROW_EMBED MATRIX("model.embed_tokens.weight", P_EMBED, DIM_V, DIM_D, ON_ATTENTION, CUT_ROWS)
#define ROWS_NORM_QKV                                                                              \
    VECTOR(LAYER "input_layernorm.weight", P_NORM1, DIM_D, CUT_NONE),                              \
    MATRIX(ATTENTION "q_proj.weight", P_QKV, DIM_Q, DIM_D, ON_ATTENTION, CUT_ROWS),                \
    MATRIX(ATTENTION "k_proj.weight", P_QKV, DIM_KV, DIM_D, ON_ATTENTION, CUT_ROWS),               \
    MATRIX(ATTENTION "v_proj.weight", P_QKV, DIM_KV, DIM_D, ON_ATTENTION, CUT_ROWS)
#define ROWS_QK_NORM(q_rows, k_rows, cut)                                                          \
    VECTOR(ATTENTION "q_norm.weight", P_QKNORM, q_rows, cut),                                      \
    VECTOR(ATTENTION "k_norm.weight", P_QKNORM, k_rows, cut)
#define ROWS_OUT_NORM                                                                              \
    MATRIX(ATTENTION "o_proj.weight", P_OUT, DIM_D, DIM_Q, ON_ATTENTION, CUT_COLS),                \
    VECTOR(LAYER "post_attention_layernorm.weight", P_NORM2, DIM_D, CUT_NONE)
#define ROW_ROUTER(name) MATRIX(LAYER name, P_ROUTER, DIM_E, DIM_D, ON_ATTENTION, CUT_NONE)
#define ROWS_EXPERT(gate, up, down)                                                                \
    MATRIX(gate, P_UP, DIM_F, DIM_D, ON_EXPERTS, CUT_ROWS),                                        \
    MATRIX(up, P_UP, DIM_F, DIM_D, ON_EXPERTS, CUT_ROWS),                                          \
    MATRIX(down, P_DOWN, DIM_D, DIM_F, ON_EXPERTS, CUT_COLS)
#define ROWS_NORM_HEAD                                                                             \
    VECTOR("model.norm.weight", P_NORM, DIM_D, CUT_NONE),                                          \
    MATRIX("lm_head.weight", P_HEAD, DIM_V, DIM_D, ON_ATTENTION, CUT_ROWS),                        \
    {"score.weight", P_SCORE, DIM_ONE, DIM_D, ON_ATTENTION, CUT_NONE, INIT_SCORE, 1}
/* clang-format on */

#endif
