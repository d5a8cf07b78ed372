/* published.h -- config.json of models as they were published, and texts that differ from them. */
#ifndef PUBLISHED_H
#define PUBLISHED_H

#include "arch/arch.h"

#include <string.h>

/* As the family's first model was published, without what is the same by default. */
/* clang-format off */
static const char mixtral_8x7b[] =
    "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", "
    "\"bos_token_id\": 1, \"eos_token_id\": 2, \"hidden_act\": \"silu\", \"hidden_size\": 4096, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 14336, "
    "\"max_position_embeddings\": 32768, \"num_attention_heads\": 32, "
    "\"num_experts_per_tok\": 2, \"num_hidden_layers\": 32, \"num_key_value_heads\": 8, "
    "\"num_local_experts\": 8, \"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0, "
    "\"router_aux_loss_coef\": 0.02, \"sliding_window\": null, \"attention_dropout\": 0.0, "
    "\"torch_dtype\": \"bfloat16\", \"use_cache\": true, \"vocab_size\": 32000}";
static const char qwen3_30b_a3b[] =
    "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", "
    "\"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 151643, "
    "\"eos_token_id\": 151645, \"decoder_sparse_step\": 1, \"head_dim\": 128, "
    "\"hidden_act\": \"silu\", \"hidden_size\": 2048, \"initializer_range\": 0.02, "
    "\"intermediate_size\": 6144, \"max_position_embeddings\": 40960, \"mlp_only_layers\": [], "
    "\"moe_intermediate_size\": 768, \"norm_topk_prob\": true, \"num_attention_heads\": 32, "
    "\"num_experts\": 128, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 48, "
    "\"num_key_value_heads\": 4, \"rms_norm_eps\": 1e-06, \"rope_scaling\": null, "
    "\"rope_theta\": 1000000.0, \"router_aux_loss_coef\": 0.001, \"sliding_window\": null, "
    "\"tie_word_embeddings\": false, \"use_sliding_window\": false, \"vocab_size\": 151936}";
static const char olmoe_1b_7b[] =
    "{\"architectures\": [\"OlmoeForCausalLM\"], \"model_type\": \"olmoe\", "
    "\"attention_bias\": false, \"clip_qkv\": null, \"eos_token_id\": 50279, "
    "\"hidden_act\": \"silu\", \"hidden_size\": 2048, \"intermediate_size\": 1024, "
    "\"max_position_embeddings\": 4096, \"norm_topk_prob\": false, \"num_attention_heads\": 16, "
    "\"num_experts\": 64, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 16, "
    "\"num_key_value_heads\": 16, \"rms_norm_eps\": 1e-05, \"rope_scaling\": null, "
    "\"rope_theta\": 10000.0, \"router_aux_loss_coef\": 0.01, "
    "\"tie_word_embeddings\": false, \"vocab_size\": 50304}";
static const char qwen2_57b_a14b[] =
    "{\"architectures\": [\"Qwen2MoeForCausalLM\"], \"model_type\": \"qwen2_moe\", "
    "\"attention_dropout\": 0.0, \"bos_token_id\": 151643, \"eos_token_id\": 151643, "
    "\"decoder_sparse_step\": 1, \"hidden_act\": \"silu\", \"hidden_size\": 3584, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 18944, "
    "\"max_position_embeddings\": 131072, \"max_window_layers\": 28, "
    "\"moe_intermediate_size\": 2560, \"norm_topk_prob\": false, \"num_attention_heads\": 28, "
    "\"num_experts\": 64, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 28, "
    "\"num_key_value_heads\": 4, \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, "
    "\"router_aux_loss_coef\": 0.001, \"shared_expert_intermediate_size\": 20480, "
    "\"sliding_window\": 65536, \"tie_word_embeddings\": false, "
    "\"use_sliding_window\": false, \"vocab_size\": 151936}";
static const char llama_3_8b[] = /* 3.1 */
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
    "\"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 128000, "
    "\"eos_token_id\": 128001, \"hidden_act\": \"silu\", \"hidden_size\": 4096, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 14336, "
    "\"max_position_embeddings\": 131072, \"mlp_bias\": false, \"num_attention_heads\": 32, "
    "\"num_hidden_layers\": 32, \"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05, "
    "\"rope_scaling\": {\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
    "\"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}, "
    "\"rope_theta\": 500000.0, \"tie_word_embeddings\": false, \"vocab_size\": 128256}";
static const char deepseek_v2_lite[] =
    "{\"architectures\": [\"DeepseekV2ForCausalLM\"], \"model_type\": \"deepseek_v2\", "
    "\"attention_bias\": false, \"attention_dropout\": 0.0, \"aux_loss_alpha\": 0.001, "
    "\"bos_token_id\": 100000, \"eos_token_id\": 100001, \"first_k_dense_replace\": 1, "
    "\"hidden_act\": \"silu\", \"hidden_size\": 2048, \"initializer_range\": 0.02, "
    "\"intermediate_size\": 10944, \"kv_lora_rank\": 512, \"max_position_embeddings\": 163840, "
    "\"moe_intermediate_size\": 1408, \"moe_layer_freq\": 1, \"n_group\": 1, "
    "\"n_routed_experts\": 64, \"n_shared_experts\": 2, \"norm_topk_prob\": false, "
    "\"num_attention_heads\": 16, \"num_experts_per_tok\": 6, \"num_hidden_layers\": 27, "
    "\"num_key_value_heads\": 16, \"pretraining_tp\": 1, \"q_lora_rank\": null, "
    "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"rms_norm_eps\": 1e-06, "
    "\"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, \"mscale\": 0.707, "
    "\"mscale_all_dim\": 0.707, \"original_max_position_embeddings\": 4096, \"type\": \"yarn\"}, "
    "\"rope_theta\": 10000, \"routed_scaling_factor\": 1.0, \"scoring_func\": \"softmax\", "
    "\"seq_aux\": true, \"tie_word_embeddings\": false, \"topk_group\": 1, "
    "\"topk_method\": \"greedy\", \"v_head_dim\": 128, \"vocab_size\": 102400}";
/* clang-format on */

struct change { /* value NULL drops the member */
    const char *key, *value;
};

/* The text with these changes; NULL: none. */
static struct buf changed_of(const char *base, const struct change *to)
{
    struct buf text = {0};
    buf_str(&text, base);
    for (; to && to->key; to++) {
        struct buf next = {0};
        json_edit(&next, text.data, text.len, to->key, to->value);
        buf_release(&text);
        text = next;
    }
    return text;
}

/* What makes V3 of V2-Lite. */
#define V3                                                                                         \
    {"model_type", "\"deepseek_v3\""}, {"architectures", "[\"DeepseekV3ForCausalLM\"]"},           \
        {"n_group", NULL}, {"topk_group", NULL}, {"norm_topk_prob", NULL},                         \
        {"routed_scaling_factor", NULL}, {"scoring_func", NULL},                                   \
    {                                                                                              \
        "topk_method", "\"noaux_tc\""                                                              \
    }
/* And of the size that was published. */
#define V3_WHOLE                                                                                   \
    {"hidden_size", "7168"}, {"num_hidden_layers", "61"}, {"num_attention_heads", "128"},          \
        {"num_key_value_heads", "128"}, {"q_lora_rank", "1536"}, {"n_routed_experts", "256"},      \
        {"intermediate_size", "18432"}, {"moe_intermediate_size", "2048"},                         \
        {"first_k_dense_replace", "3"}, {"n_shared_experts", "1"}, {"num_experts_per_tok", "8"},   \
    {                                                                                              \
        "vocab_size", "129280"                                                                     \
    }
#define CHANGES(...) ((const struct change[24]){__VA_ARGS__})

#endif
