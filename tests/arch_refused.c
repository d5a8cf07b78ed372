/* arch_refused.c -- what config.json may not ask for, and in which words that is said. */
#include "child.h"
#include "published.h"
#include "tap.h"

static void parse(void *text)
{
    const struct buf *b = text;
    struct config c;
    config_parse(&c, b->data, b->len, "config.json");
}

/* Whether config_parse() of the text exits 2 and says exactly this. */
static int refuses(const char *text, size_t len, const char *says)
{
    struct buf b = {.data = (char *)text, .len = len};
    struct ending e = child(parse, &b);
    char *whole = xasprintf("arch: config.json: %s\n", says);
    int same = ended(&e, EXIT_MISUSED, whole);
    free(whole);
    return same;
}

static void test_refusals(void)
{
    static const struct {
        struct change change;
        const char *says;
    } cases[] = {
        {{"model_type", NULL}, "\"model_type\" is missing"},
        {{"model_type", "\"t5\""},
         "\"model_type\" is \"t5\"; known are: deepseek_v2, deepseek_v3, llama, mixtral, olmoe, "
         "qwen2, qwen2_moe, qwen3, "
         "qwen3_moe"},
        {{"architectures", "[\"MixtralForTokenClassification\"]"},
         "\"architectures\" is \"MixtralForTokenClassification\"; known are: MixtralForCausalLM, "
         "MixtralForSequenceClassification"},
        {{"architectures", "\"MixtralForCausalLM\""}, "\"architectures\" is not a list"},
        {{"num_hidden_layers", NULL}, "\"num_hidden_layers\" is missing"},
        {{"num_hidden_layers", "12501"},
         "\"num_hidden_layers\" times the experts of a layer is more than 100000"},
        {{"num_local_experts", "2000000000"},
         "\"num_hidden_layers\" times the experts of a layer is more than 100000"},
        {{"num_local_experts", NULL}, "\"num_local_experts\" is missing"},
        {{"rope_theta", NULL}, "\"rope_theta\" is missing"},
        {{"rms_norm_eps", NULL}, "\"rms_norm_eps\" is missing"},
        {{"rms_norm_eps", "0"}, "\"rms_norm_eps\" is 0"},
        {{"hidden_size", "\"4096\""}, "\"hidden_size\" is not a positive integer"},
        {{"hidden_size", "0"}, "\"hidden_size\" is not a positive integer"},
        {{"hidden_size", "4096.5"}, "\"hidden_size\" is not a positive integer"},
        {{"hidden_size", "null"}, "\"hidden_size\" is not a positive integer"},
        {{"vocab_size", "3000000000"}, "\"vocab_size\" is not a positive integer"},
        {{"initializer_range", "-0.02"}, "\"initializer_range\" is not a number and not negative"},
        {{"tie_word_embeddings", "1"}, "\"tie_word_embeddings\" is not true or false"},
        {{"eos_token_id", "[]"}, "\"eos_token_id\" is not a token id, or a list of them"},
        {{"eos_token_id", "32000"}, "\"eos_token_id\" is not below \"vocab_size\""},
        {{"num_key_value_heads", "7"},
         "\"num_attention_heads\" is not a multiple of \"num_key_value_heads\""},
        {{"hidden_size", "4097"},
         "\"head_dim\" is missing and \"hidden_size\" is not a multiple of "
         "\"num_attention_heads\""},
        {{"head_dim", "127"}, "\"head_dim\" is odd, so RoPE has no pairs to rotate"},
        {{"num_experts_per_tok", "9"}, "the experts chosen for a token are more than there are"},
        {{"hidden_act", "\"gelu\""}, "\"hidden_act\" is not \"silu\", the only one implemented"},
        {{"attention_dropout", "0.1"},
         "\"attention_dropout\" is not 0, the only value implemented"},
        {{"attention_bias", "true"}, "\"attention_bias\" is not 0, the only value implemented"},
        {{"sliding_window", "4096"},
         "\"sliding_window\" is smaller than \"max_position_embeddings\" (32768); "
         "windows are not implemented"},
        {{"router_jitter_noise", "0.1"},
         "\"router_jitter_noise\" is not 0; jitter is not implemented"},
        {{"rope_scaling", "{\"type\": \"dynamic\", \"factor\": 4}"},
         "\"rope_scaling\" asks for the type \"dynamic\"; known are: default, linear, llama3, "
         "yarn"},
        {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4}"},
         "\"original_max_position_embeddings\" of \"rope_scaling\" is not a number above 0"},
        {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, "
                          "\"original_max_position_embeddings\": 64, \"mscale\": 0.7}"},
         "\"mscale\" of \"rope_scaling\" is not implemented"},
        {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, "
                          "\"original_max_position_embeddings\": 64, \"beta_fast\": 1}"},
         "\"beta_fast\" is not above \"beta_slow\""},
        {{"rope_parameters", "{\"rope_theta\": 1e6, \"rope_type\": \"llama3\"}"},
         "\"factor\" of \"rope_parameters\" is not a number above 0"},
        {{"rope_scaling",
          "{\"rope_type\": \"llama3\", \"factor\": 8, \"original_max_position_embeddings\": 64, "
          "\"low_freq_factor\": 4, \"high_freq_factor\": 4}"},
         "\"high_freq_factor\" is not above \"low_freq_factor\""},
        {{"rope_parameters", "{\"partial_rotary_factor\": 0.5}"},
         "\"partial_rotary_factor\" is not 1, the only value implemented"},
        {{"rope_parameters", "{\"rope_theta\": 10000.0}"},
         "\"rope_theta\" is 1e+06 and 10000 in \"rope_parameters\""},
        {{"rope_parameters", "[]"}, "\"rope_parameters\" is not an object"},
        {{"rope_parameters", "{\"full_attention\": {\"rope_theta\": 1e6}}"},
         "\"rope_parameters\" has its own \"full_attention\"; one for all layers is implemented"},
        {{"quantization_config", "{}"},
         "\"quantization_config\": quantised weights are not implemented"},
    };
    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text = changed_of(mixtral_8x7b, CHANGES(cases[i].change));
        ok(refuses(text.data, text.len, cases[i].says), "%s", cases[i].says);
        buf_release(&text);
    }
    static const struct {
        struct change change;
        const char *says;
    } v3[] = {
        {{"scoring_func", "\"softmax\""},
         "\"scoring_func\" is not \"sigmoid\", the only one implemented"},
        {{"topk_method", "\"greedy\""},
         "\"topk_method\" is not \"noaux_tc\", the only one implemented"},
        {{"rope_interleave", "false"},
         "\"rope_interleave\" is not true, the only value implemented"},
        {{"num_nextn_predict_layers", "-1"},
         "\"num_nextn_predict_layers\" is not a whole number and not negative"},
        {{"n_group", "64"}, "\"n_group\" leaves groups of a single expert"},
        {{"first_k_dense_replace", NULL}, "\"first_k_dense_replace\" is not a number of layers"},
    };
    for (int64_t i = 0; i < ARRAY_LEN(v3); i++) {
        struct buf text = changed_of(deepseek_v2_lite, CHANGES(V3, {"num_experts_per_tok", "2"}));
        struct buf next = {0};
        json_edit(&next, text.data, text.len, v3[i].change.key, v3[i].change.value);
        ok(refuses(next.data, next.len, v3[i].says), "%s", v3[i].says);
        buf_release(&text), buf_release(&next);
    }
    static const char twice[] = "{\"model_type\": \"mixtral\", \"model_type\": \"mixtral\"}";
    ok(refuses(twice, strlen(twice), "\"model_type\" stands twice"), "a key that stands twice");
    ok(refuses("[]", 2, "not a JSON object"), "not an object");
}

static void test_families(void)
{
    static const struct {
        const char *base;
        struct change change;
        const char *says;
    } cases[] = {
        {qwen3_30b_a3b, {"num_experts", NULL}, "\"num_experts\" is missing"},
        {qwen3_30b_a3b,
         {"decoder_sparse_step", "0"},
         "\"decoder_sparse_step\" is not a positive integer"},
        {qwen3_30b_a3b, {"mlp_only_layers", "[48]"}, "\"mlp_only_layers\" names what is no layer"},
        {qwen3_30b_a3b, {"mlp_only_layers", "0"}, "\"mlp_only_layers\" is not a list of layers"},
        {qwen2_57b_a14b,
         {"qkv_bias", "false"},
         "\"qkv_bias\" is not true, the only value implemented"},
        {qwen2_57b_a14b,
         {"shared_expert_intermediate_size", NULL},
         "\"shared_expert_intermediate_size\" is missing"},
        {llama_3_8b, {"mlp_bias", "true"}, "\"mlp_bias\" is not 0, the only value implemented"},
        {qwen3_30b_a3b,
         {"use_sliding_window", "true"},
         "\"use_sliding_window\" is not false; windows are not implemented"},
        {qwen3_30b_a3b,
         {"layer_types", "[\"full_attention\", \"sliding_attention\"]"},
         "\"layer_types\" has another than \"full_attention\", the only one implemented"},
        {olmoe_1b_7b, {"clip_qkv", "8.0"}, "\"clip_qkv\" is not null; clipping is not implemented"},
        {olmoe_1b_7b,
         {"head_dim", "64"},
         "\"head_dim\" is not \"hidden_size\" / \"num_attention_heads\""},
        {deepseek_v2_lite, {"q_lora_rank", NULL}, "\"q_lora_rank\" is missing"},
        {deepseek_v2_lite, {"kv_lora_rank", "null"}, "\"kv_lora_rank\" is not a positive integer"},
        {deepseek_v2_lite,
         {"attention_bias", "true"},
         "\"attention_bias\" is not 0, the only value implemented"},
        {deepseek_v2_lite,
         {"num_key_value_heads", "8"},
         "\"num_key_value_heads\" is not \"num_attention_heads\""},
        {deepseek_v2_lite,
         {"qk_rope_head_dim", "63"},
         "\"qk_rope_head_dim\" is odd, so RoPE has no pairs to rotate"},
        {deepseek_v2_lite,
         {"v_head_dim", "256"},
         "\"v_head_dim\" is more than \"qk_nope_head_dim\" and \"qk_rope_head_dim\" together"},
        {deepseek_v2_lite,
         {"first_k_dense_replace", "-1"},
         "\"first_k_dense_replace\" is not a number of layers"},
        {deepseek_v2_lite,
         {"n_shared_experts", "null"},
         "\"n_shared_experts\" is not a positive integer"},
        {deepseek_v2_lite,
         {"moe_layer_freq", "2"},
         "\"moe_layer_freq\" is not 1, the only value implemented"},
        {deepseek_v2_lite,
         {"norm_topk_prob", "true"},
         "\"norm_topk_prob\" is not false, the only value implemented"},
        {deepseek_v2_lite,
         {"scoring_func", "\"sigmoid\""},
         "\"scoring_func\" is not \"softmax\", the only one implemented"},
        {deepseek_v2_lite,
         {"topk_method", "\"noaux_tc\""},
         "\"topk_method\" is not \"greedy\" or \"group_limited_greedy\", the only ones "
         "implemented"},
        {deepseek_v2_lite,
         {"n_group", "8"},
         "\"topk_method\" is \"greedy\", and \"topk_group\" is less than \"n_group\""},
        {deepseek_v2_lite, {"topk_group", "2"}, "\"topk_group\" is more than \"n_group\""},
        {deepseek_v2_lite,
         {"rope_scaling", "{\"type\": \"linear\", \"factor\": 4}"},
         "\"rope_scaling\" of the type \"linear\" is not implemented for latent attention"},
        {deepseek_v2_lite,
         {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 40, \"mscale\": 1, "
                          "\"original_max_position_embeddings\": 4096}"},
         "\"rope_scaling\" does without \"attention_factor\", with both \"mscale\" and "
         "\"mscale_all_dim\" or none; all else is not implemented"},
        {olmoe_1b_7b,
         {"attention_bias", "true"},
         "\"attention_bias\" is not 0, the only value implemented"},
    };
    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text = changed_of(cases[i].base, CHANGES(cases[i].change));
        ok(refuses(text.data, text.len, cases[i].says), "%s", cases[i].says);
        buf_release(&text);
    }
}

int main(void)
{
    tool_name = "arch";
    test_refusals();
    test_families();
    return finish();
}
