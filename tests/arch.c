/* arch.c -- config.json both ways (arch_refused.c: what is refused), and a family's list of
 * tensors against published parameter counts, names, meshes and first values. */
#include "published.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

static struct config parsed_of(const char *base, const struct change *to)
{
    struct config c;
    struct buf text = changed_of(base, to);
    config_parse(&c, text.data, text.len, "config.json");
    buf_release(&text);
    return c;
}
static struct config parsed(const struct change *to)
{
    return parsed_of(mixtral_8x7b, to);
}
static void test_read(void)
{
    struct config c = parsed(NULL);
    ok(c.layers == 32 && c.d == 4096 && c.heads == 32 && c.groups == 8 && c.c == 128 &&
           c.f == 14336 && c.experts == 8 && c.k == 2 && c.vocab == 32000 && c.positions == 32768,
       "the sizes are read");
    ok(c.theta == 1e6 && c.eps == 1e-5 && c.init == 0.02 && c.aux == 0.02 && c.z == 0 &&
           c.norm_gate && !c.tied && c.bos == 1 && c.eos == 2,
       "and the rest");
    ok(!strcmp(c.json, mixtral_8x7b), "the text is kept as it came");
    config_release(&c);

    c = parsed(CHANGES({"rope_theta", NULL}, {"router_aux_loss_coef", NULL},
                       {"initializer_range", NULL}, {"bos_token_id", NULL},
                       {"eos_token_id", "null"}, {"head_dim", "96"},
                       {"num_key_value_heads", "null"}, {"tie_word_embeddings", "true"},
                       {"router_z_loss_coef", "1e-3"}, {"sliding_window", "32768"},
                       {"rope_parameters", "{\"rope_theta\": 5e5, \"rope_type\": \"default\"}"}));
    ok(c.theta == 5e5, "rope_theta is read from rope_parameters");
    ok(c.c == 96 && c.groups == 32, "head_dim may be given, and null groups are as many as heads");
    ok(c.bos == -1 && c.eos == -1 && c.tied && c.z == 1e-3 && c.aux == 0.001 && c.init == 0.02,
       "absent ids are -1, other absent fields as transformers has them");
    config_release(&c);

    c = parsed(CHANGES({"num_local_experts", "1"}, {"num_experts_per_tok", "1"},
                       {"head_dim", "null"}, {"rope_scaling", "{\"type\": \"default\"}"},
                       {"rope_parameters", "null"}));
    ok(c.experts == 1 && c.k == 1 && c.c == 128 && c.theta == 1e6,
       "one expert, and scaling that is none");
    config_release(&c);
}

/* What the other families read and write of their own. */
static void test_families(void)
{
    struct config c = parsed_of(qwen3_30b_a3b, NULL);
    ok(c.f == 768 && c.c == 128 && c.experts == 128 && c.k == 8 && c.norm_gate && !c.qk_whole,
       "Qwen3-MoE: sizes, and gates that are normed");
    config_release(&c);
    c = parsed_of(qwen3_30b_a3b, CHANGES({"num_experts", NULL}, {"num_local_experts", "16"},
                                         {"norm_topk_prob", NULL}, {"mlp_only_layers", "null"}));
    struct buf out = {0};
    config_write(&c, &out, "bfloat16");
    ok(c.experts == 16 && !c.norm_gate && strstr(out.data, "\"num_experts\":16") &&
           !strstr(out.data, "num_local_experts"),
       "num_local_experts is num_experts by another name, and written as that");
    config_release(&c);
    buf_release(&out);
    c = parsed_of(olmoe_1b_7b, NULL);
    ok(c.f == 1024 && c.c == 128 && c.experts == 64 && !c.norm_gate && c.qk_whole,
       "OLMoE: sizes, gates as they are, norms over all heads");
    config_release(&c);

    c = parsed_of(qwen3_30b_a3b, CHANGES({"num_hidden_layers", "6"}, {"decoder_sparse_step", "2"},
                                         {"mlp_only_layers", "[3]"}));
    ok(config_is_dense(&c, 0) && !config_is_dense(&c, 1) && config_is_dense(&c, 2) &&
           config_is_dense(&c, 3) && !config_is_dense(&c, 5) && config_expert_layers(&c) == 2 &&
           c.f_dense == 6144,
       "layers without experts, by the step and by number");
    config_release(&c);
    c = parsed_of(qwen2_57b_a14b, NULL);
    ok(c.f == 2560 && c.f_shared == 20480 && c.experts == 64 && !c.norm_gate && c.c == 128,
       "Qwen2-MoE: sizes, and a shared expert");
    config_release(&c);
    c = parsed_of(llama_3_8b, CHANGES({"num_key_value_heads", NULL}, {"rope_theta", NULL},
                                      {"rope_scaling", NULL}));
    ok(c.experts == 0 && c.f_dense == 14336 && c.groups == 32 && c.theta == 10000,
       "Llama: dense; files of the first have neither groups nor theta");
    config_release(&c);

    c = parsed_of(deepseek_v2_lite, CHANGES({"head_dim", "128"}));
    ok(c.c == 192 && c.cv == 128 && c.c_own == 128 && c.c_turn == 64 && c.q_rank == 0 &&
           c.kv_rank == 512 && c.f_shared == 2816 && c.f_dense == 10944 && c.gate_scale == 1 &&
           c.expert_groups == 1 && config_is_dense(&c, 0) && config_expert_layers(&c) == 26,
       "DeepSeek-V2-Lite: heads of two parts, shared experts as one network, a dense layer first");
    buf_reset(&out);
    config_write(&c, &out, "bfloat16");
    ok(strstr(out.data, "\"head_dim\":64") && strstr(out.data, "\"q_lora_rank\": null"),
       "head_dim is written as transformers has it, and no rank stays null");
    config_release(&c);
    c = parsed_of(deepseek_v2_lite,
                  CHANGES({"q_lora_rank", "1536"}, {"n_group", "8"}, {"topk_group", "3"},
                          {"rope_scaling", "null"}, {"topk_method", "\"group_limited_greedy\""},
                          {"routed_scaling_factor", "16"}));
    ok(c.q_rank == 1536 && c.expert_groups == 8 && c.group_limit == 3 && c.group_best == 1 &&
           c.gate_scale == 16 && !c.sigmoid && rope_magnitude(&c) == 1,
       "DeepSeek-V2: a latent of queries, groups of experts by their best one, scaled gates");
    config_release(&c);

    c = parsed_of(deepseek_v2_lite, CHANGES(V3, {"num_nextn_predict_layers", "0"}));
    ok(c.sigmoid && c.norm_gate && c.group_best == 2 && c.expert_groups == 8 &&
           c.group_limit == 4 && c.gate_scale == 2.5 && c.further == 0,
       "DeepSeek-V3: sigmoids, groups by their best two, gates normed and scaled");
    config_release(&c);

    c = parsed_of(llama_3_8b, CHANGES({"eos_token_id", "[128001, 128008]"}));
    buf_reset(&out);
    config_write(&c, &out, "bfloat16");
    ok(c.eos == 128001 && strstr(out.data, "[128001, 128008]"), "a list of ends is kept");
    c.eos = 7;
    buf_reset(&out);
    config_write(&c, &out, "bfloat16");
    ok(strstr(out.data, "\"eos_token_id\": 7,") != NULL, "until another one is set");
    config_release(&c);
    c = parsed_of(qwen3_30b_a3b, CHANGES({"intermediate_size", NULL}));
    buf_reset(&out);
    config_write(&c, &out, "bfloat16");
    ok(!strstr(out.data, "\"intermediate_size\""), "what a model has not is not written");
    config_release(&c);
    buf_release(&out);
}

static void test_write(void)
{
    struct config c =
        parsed(CHANGES({"made_by", "{\"a\": [1, 2.50]}"}, {"dtype", "\"bfloat16\""},
                       {"rope_parameters", "{\"rope_theta\": 1e6}"}, {"bos_token_id", "null"}));
    /* Everything that may be set, set to something else. */
    c.layers = 3, c.d = 64, c.heads = 6, c.groups = 2, c.c = 16, c.f = 40, c.experts = 4, c.k = 3;
    c.vocab = 1000000, c.positions = 128, c.theta = 123456.789, c.eps = 1e-6, c.init = 0.1;
    c.aux = 0.3, c.z = 1e-4, c.tied = 1, c.eos = 77;
    struct buf out = {0}, again = {0};
    config_write(&c, &out, "float32");
    struct config r;
    config_parse(&r, out.data, out.len, "written");
    ok(r.arch == c.arch && r.layers == c.layers && r.d == c.d && r.heads == c.heads &&
           r.groups == c.groups && r.c == c.c && r.f == c.f && r.experts == c.experts &&
           r.k == c.k && r.vocab == c.vocab && r.positions == c.positions && r.theta == c.theta &&
           r.eps == c.eps && r.init == c.init && r.aux == c.aux && r.z == c.z && r.tied == c.tied &&
           r.bos == -1 && r.eos == 77,
       "every field that is written reads back");
    ok(strstr(out.data, "{\"a\": [1, 2.50]}") != NULL, "unknown fields keep their bytes");
    ok(strstr(out.data, "\"torch_dtype\": \"float32\"") != NULL && !strstr(out.data, "\"dtype\""),
       "the type is torch_dtype alone");
    ok(strstr(out.data, "\"vocab_size\": 1000000,") &&
           strstr(out.data, "\"num_hidden_layers\": 3,"),
       "counts are written as integers");
    config_write(&r, &again, "float32");
    ok(again.len == out.len && !memcmp(again.data, out.data, out.len),
       "writing again changes nothing");
    config_release(&c);
    config_release(&r);
    buf_release(&again);

    /* A configuration that came from no file. */
    c = parsed(NULL);
    free(c.json);
    c.json = NULL;
    buf_reset(&out);
    config_write(&c, &out, "bfloat16");
    config_parse(&r, out.data, out.len, "written");
    ok(r.d == 4096 && r.theta == 1e6 && strstr(out.data, "[\"MixtralForCausalLM\"]"),
       "a whole config.json is written from the fields alone");
    ok(strstr(out.data, "\"rope_theta\":1000000.0") != NULL, "and reals are never integers");
    config_release(&c);
    config_release(&r);
    buf_release(&out);
}

/* Llama 3.1's frequencies: short waves as they are, long ones stretched, and those between. */
static void test_rope(void)
{
    struct config c = parsed_of(llama_3_8b, NULL);
    double f[64], pi = acos(-1);
    int kept = 0, stretched = 0, between = 0;
    rope_frequencies(&c, f);
    for (int i = 0; i < 64; i++) {
        double plain = pow(500000, -2.0 * i / 128), waves = 8192 * plain / (2 * pi);
        double at = (waves - 1) / 3, want = (1 - at) * plain / 8 + at * plain;
        if (waves > 4)
            kept += fabs(f[i] / plain - 1) < 1e-15;
        else if (waves < 1)
            stretched += fabs(f[i] / plain * 8 - 1) < 1e-15;
        else
            between += fabs(f[i] / want - 1) < 1e-15;
    }
    ok(kept == 29 && between == 6 && stretched == 29,
       "Llama 3.1: %d waves kept, %d between, %d long", kept, between, stretched);
    config_release(&c);

    /* as transformers 5.17's _compute_yarn_parameters() has them, in f32 */
    static const struct {
        int i;
        double f;
    } yarn[] = {{0, 1},
                {20, 0.01333521492779255},
                {30, 0.0010643609566614032},
                {35, 0.0002462583943270147},
                {40, 4.4456985051510856e-05},
                {63, 3.102344408034696e-07}};
    double off = 0;
    c = parsed_of(llama_3_8b,
                  CHANGES({"rope_theta", "1e6"},
                          {"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4.0, "
                                           "\"original_max_position_embeddings\": 32768}"}));
    rope_frequencies(&c, f);
    for (int i = 0; i < ARRAY_LEN(yarn); i++)
        off = fmax(off, fabs(f[yarn[i].i] / yarn[i].f - 1));
    ok(c.c == 128 && off < 1e-6 && fabs(rope_magnitude(&c) - 1.138629436111989) < 1e-15,
       "YaRN: frequencies and magnitude are those of transformers (%.1e)", off);
    config_release(&c);

    static const struct {
        const char *scaling;
        double whole, turned;
    } latent[] = {
        {"{\"type\": \"yarn\", \"factor\": 40, \"original_max_position_embeddings\": 4096, "
         "\"mscale\": 1, \"mscale_all_dim\": 0.5}",
         1.184443972705696805, 1.1557219901962608}, /* 0.1 m ln 40 + 1, and their quotient */
        {"{\"type\": \"yarn\", \"factor\": 40, \"original_max_position_embeddings\": 4096}", 1,
         1.368887945411393611},
    };
    for (int i = 0; i < ARRAY_LEN(latent); i++) {
        c = parsed_of(deepseek_v2_lite, CHANGES({"rope_scaling", latent[i].scaling}));
        ok(fabs(rope_magnitude(&c) - latent[i].whole) < 1e-12 &&
               fabs(rope_turned(&c) - latent[i].turned) < 1e-12,
           "YaRN of latent attention: heads of %.4g, of which what turns of %.4g more",
           rope_magnitude(&c), rope_turned(&c));
        config_release(&c);
    }

    struct buf out = {0};
    struct config r;
    static const char text[] = "{\"rope_type\": \"linear\", \"factor\": 4.0, \"rope_theta\": 1e4}";
    c = parsed_of(llama_3_8b,
                  CHANGES({"rope_theta", NULL}, {"rope_scaling", NULL}, {"rope_parameters", text}));
    rope_frequencies(&c, f);
    ok(c.theta == 1e4 && f[0] == 0.25, "linear scaling");
    config_write(&c, &out, "float32");
    config_parse(&r, out.data, out.len, "written");
    ok(r.rope.type == c.rope.type && r.rope.factor == 4 && r.theta == 1e4,
       "and it is written as it was read");
    config_release(&c), config_release(&r);
    buf_release(&out);
}

static void test_counts(void)
{
    static const struct {
        const char *name, *base;
        struct change change[24];
        int64_t params; /* published */
    } models[] = {
        {"Mixtral-8x7B", mixtral_8x7b, {{NULL, NULL}}, 46702792704},
        {"Qwen3-30B-A3B", qwen3_30b_a3b, {{NULL, NULL}}, 30532122624},
        {"OLMoE-1B-7B", olmoe_1b_7b, {{NULL, NULL}}, 6919161856},
        {"Mixtral-8x22B",
         mixtral_8x7b,
         {{"hidden_size", "6144"},
          {"num_attention_heads", "48"},
          {"num_hidden_layers", "56"},
          {"intermediate_size", "16384"},
          {"max_position_embeddings", "65536"}},
         140620634112},
        {"Qwen3-235B-A22B",
         qwen3_30b_a3b,
         {{"hidden_size", "4096"},
          {"num_attention_heads", "64"},
          {"num_hidden_layers", "94"},
          {"moe_intermediate_size", "1536"},
          {"intermediate_size", "12288"}},
         235093634560},
        {"Qwen2-57B-A14B", qwen2_57b_a14b, {{NULL, NULL}}, 57408658944},
        {"Qwen1.5-MoE-A2.7B",
         qwen2_57b_a14b,
         {{"hidden_size", "2048"},
          {"num_attention_heads", "16"},
          {"num_key_value_heads", "16"},
          {"num_hidden_layers", "24"},
          {"num_experts", "60"},
          {"moe_intermediate_size", "1408"},
          {"shared_expert_intermediate_size", "5632"}},
         14315784192},
        {"DeepSeek-V2-Lite", deepseek_v2_lite, {{NULL, NULL}}, 15706484224},
        {"DeepSeek-V2",
         deepseek_v2_lite,
         {{"hidden_size", "5120"},
          {"num_hidden_layers", "60"},
          {"num_attention_heads", "128"},
          {"num_key_value_heads", "128"},
          {"q_lora_rank", "1536"},
          {"n_routed_experts", "160"},
          {"intermediate_size", "12288"},
          {"moe_intermediate_size", "1536"}},
         235741434880},
        {"DeepSeek-V3", deepseek_v2_lite, {V3, V3_WHOLE}, 671026419200},
        {"Llama-3.1-8B", llama_3_8b, {{NULL, NULL}}, 8030261248},
        {"Llama-3.2-1B",
         llama_3_8b,
         {{"hidden_size", "2048"},
          {"intermediate_size", "8192"},
          {"head_dim", "64"},
          {"num_hidden_layers", "16"},
          {"tie_word_embeddings", "true"}},
         1235814400},
        {"Qwen2.5-7B",
         qwen2_57b_a14b,
         {{"model_type", "\"qwen2\""}, {"architectures", NULL}, {"vocab_size", "152064"}},
         7615616512},
        {"Qwen3-8B",
         qwen3_30b_a3b,
         {{"model_type", "\"qwen3\""},
          {"architectures", NULL},
          {"hidden_size", "4096"},
          {"intermediate_size", "12288"},
          {"num_hidden_layers", "36"},
          {"num_key_value_heads", "8"}},
         8190735360},
    };
    for (int64_t i = 0; i < ARRAY_LEN(models); i++) {
        struct config c = parsed_of(models[i].base, models[i].change);
        int64_t n, count;
        struct param *p = arch_params(&c, &n);
        count = params_count(p, n);
        ok(count == models[i].params, "%s has %lld parameters", models[i].name, (long long)count);
        params_free(p, n);
        config_release(&c);
    }
}

/* The layer that predicts further tokens, and what a folder has of it. */
static void test_further(void)
{
    struct config c =
        parsed_of(deepseek_v2_lite, CHANGES(V3, V3_WHOLE, {"num_nextn_predict_layers", "1"}));
    int64_t n, m, join = 0, lent = 0;
    struct param *p = arch_params(&c, &n), *copy = arch_copies(&c, &m);
    ok(params_count(p, n) + params_count(copy, m) == 684489845504,
       "DeepSeek-V3's published files have %lld numbers, factors of FP8 apart",
       (long long)(params_count(p, n) + params_count(copy, m)));
    for (int64_t i = 0; i < n; i++) {
        join += !strcmp(p[i].name, "model.layers.61.eh_proj.weight") && p[i].layer == 61 &&
                p[i].rows == 7168 && p[i].cols == 2 * 7168;
        lent += p[i].lent ? 1 : 0;
    }
    ok(join == 1 && lent == 1 && p[0].lent && m == 2 &&
           !strcmp(copy[0].name, "model.layers.61.embed_tokens.weight") &&
           !strcmp(copy[0].of, "model.embed_tokens.weight") &&
           !strcmp(copy[1].name, "model.layers.61.shared_head.head.weight") &&
           !strcmp(copy[1].of, "lm_head.weight"),
       "its layer 61 has the embedding and the head of the model");
    params_free(p, n), params_free(copy, m);
    config_release(&c);

    c = parsed_of(deepseek_v2_lite,
                  CHANGES(V3, {"num_nextn_predict_layers", "1"},
                          {"architectures", "[\"DeepseekV3ForSequenceClassification\"]"}));
    ok(c.reward && !c.further, "a reward model predicts no tokens");
    config_release(&c);
}

/* name layer expert role rows cols kind cut, a line each; of two layers and two experts. */
/* clang-format off */
static const char list[] =
    "model.embed_tokens.weight -1 -1 embed 96x32 a rows decay\n"
#define LAYER(l) \
    "model.layers." #l ".input_layernorm.weight " #l " -1 norm1 32x0 a none 1\n" \
    "model.layers." #l ".self_attn.q_proj.weight " #l " -1 qkv 48x32 a rows decay\n" \
    "model.layers." #l ".self_attn.k_proj.weight " #l " -1 qkv 24x32 a rows decay\n" \
    "model.layers." #l ".self_attn.v_proj.weight " #l " -1 qkv 24x32 a rows decay\n" \
    "model.layers." #l ".self_attn.o_proj.weight " #l " -1 out 32x48 a cols decay\n" \
    "model.layers." #l ".post_attention_layernorm.weight " #l " -1 norm2 32x0 a none 1\n" \
    "model.layers." #l ".block_sparse_moe.gate.weight " #l " -1 router 2x32 a none decay\n" \
    "model.layers." #l ".block_sparse_moe.experts.0.w1.weight " #l " 0 up 40x32 e rows decay\n" \
    "model.layers." #l ".block_sparse_moe.experts.0.w3.weight " #l " 0 up 40x32 e rows decay\n" \
    "model.layers." #l ".block_sparse_moe.experts.1.w1.weight " #l " 1 up 40x32 e rows decay\n" \
    "model.layers." #l ".block_sparse_moe.experts.1.w3.weight " #l " 1 up 40x32 e rows decay\n" \
    "model.layers." #l ".block_sparse_moe.experts.0.w2.weight " #l " 0 down 32x40 e cols decay\n" \
    "model.layers." #l ".block_sparse_moe.experts.1.w2.weight " #l " 1 down 32x40 e cols decay\n"
    LAYER(0) LAYER(1)
    "model.norm.weight -2 -1 norm 32x0 a none 1\n"
    "lm_head.weight -2 -1 head 96x32 a rows decay\n";

static const struct change small[] = {
    {"hidden_size", "32"}, {"intermediate_size", "40"}, {"num_hidden_layers", "2"},
    {"num_attention_heads", "4"}, {"num_key_value_heads", "2"}, {"head_dim", "12"},
    {"num_local_experts", "2"}, {"vocab_size", "96"}, {"max_position_embeddings", "64"},
    {NULL, NULL},
};
/* clang-format on */

static void test_list(void)
{
    struct config c = parsed(small);
    int64_t n;
    struct param *p = arch_params(&c, &n);
    struct buf b = {0};
    static const char *const role[ROLES] = {
        [P_NORM1] = "norm1",   [P_QKV] = "qkv",  [P_OUT] = "out",   [P_NORM2] = "norm2",
        [P_ROUTER] = "router", [P_UP] = "up",    [P_DOWN] = "down", [P_EMBED] = "embed",
        [P_NORM] = "norm",     [P_HEAD] = "head"};
    for (int64_t i = 0; i < n; i++)
        buf_printf(&b, "%s %d %d %s %lldx%lld %c %s %s\n", p[i].name, p[i].layer, p[i].expert,
                   role[p[i].role], (long long)p[i].rows, (long long)p[i].cols,
                   p[i].kind == ON_EXPERTS ? 'e' : 'a',
                   (const char *[]){"none", "rows", "cols"}[p[i].cut], p[i].decay ? "decay" : "1");
    ok(!strcmp(b.data, list), "a small model's tensors, role by role and expert by expert");
    params_free(p, n);

    c.tied = 1;
    p = arch_params(&c, &n);
    ok(!strcmp(p[n - 1].name, "model.norm.weight"), "a tied head is not listed");
    params_free(p, n);
    buf_release(&b);
    config_release(&c);
}

/* Where the slices of one (layer, role) begin and how wide they are on one rank of a mesh. */
static void test_layout(void)
{
    struct config c = parsed(small);
    int64_t n;
    struct param *p = arch_params(&c, &n);
    struct mesh m;
    struct layout y;
    if (mesh_init(&m, 4, 3, 2, 1, 1, 2, 2) || mesh_check(&m, p, n, 2, 2) || arch_check(&c, &m))
        abort();
    layout_init(&y, &m, p, n, 2, 2);
    const struct local *q = NULL, *k = NULL, *v = NULL, *w1 = NULL, *w3 = NULL, *w2 = NULL;
    const struct {
        const char *name;
        const struct local **at;
    } wanted[] = {
        {"model.layers.1.self_attn.q_proj.weight", &q},
        {"model.layers.1.self_attn.k_proj.weight", &k},
        {"model.layers.1.self_attn.v_proj.weight", &v},
        {"model.layers.1.block_sparse_moe.experts.1.w1.weight", &w1},
        {"model.layers.1.block_sparse_moe.experts.1.w3.weight", &w3},
        {"model.layers.1.block_sparse_moe.experts.1.w2.weight", &w2},
    };
    for (int64_t i = 0; i < y.n; i++)
        for (int64_t j = 0; j < ARRAY_LEN(wanted); j++)
            if (!strcmp(y.local[i].p->name, wanted[j].name))
                *wanted[j].at = &y.local[i];
    ok(q && k && v && k->at == q->at + 24 * 32 && v->at == k->at + 12 * 32 && q->r.row == 24 &&
           k->r.row == 12 && v->r.rows == 12 && v->r.cols == 32,
       "q, k and v of a rank's heads are one matrix");
    ok(w1 && w3 && w3->at == w1->at + 20 * 32 && w1->r.row == 20 && w3->r.rows == 20 && w2 &&
           w2->r.col == 20 && w2->r.cols == 20 && w2->r.rows == 32,
       "and so are gate and up of an expert");
    ok(y.bucket[2].replicated && y.bucket[2].at + y.bucket[2].n == 2 * (32 + 32 + 64) + 2 * 32 &&
           !y.bucket[3].replicated,
       "norms and routers come first");
    layout_release(&y);
    params_free(p, n);
    config_release(&c);
}

static void test_check(void)
{
    struct config c = parsed(small);
    struct mesh m;
    if (mesh_init(&m, 4, 0, 4, 1, 1, 1, 1))
        abort();
    const char *why = arch_check(&c, &m);
    ok(why && !strcmp(why, "4 heads in 2 groups cannot be dealt evenly to tp 4"),
       "whole heads on a rank");
    if (mesh_init(&m, 2, 0, 1, 1, 2, 1, 1))
        abort();
    ok(!arch_check(&c, &m), "and stages of any layers");
    config_release(&c);
}

static void test_initial(void)
{
    struct config c = parsed(small);
    int64_t n, count = 0, ones = 0, vectors = 0;
    double sum = 0, squares = 0;
    struct param *p = arch_params(&c, &n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < p[i].rows * MAX(p[i].cols, 1); j++) {
            double x = param_initial(&c, &p[i], 5, j);
            if (p[i].cols == 0) {
                vectors++;
                ones += x == 1;
                continue;
            }
            count++;
            sum += x;
            squares += x * x;
        }
    double mean = sum / (double)count, sd = sqrt(squares / (double)count - mean * mean);
    ok(fabs(mean) < 5 * 0.02 / sqrt((double)count) &&
           fabs(sd / 0.02 - 1) < 5 / sqrt(2.0 * (double)count),
       "%lld matrix elements: mean %.1e, deviation %.5f", (long long)count, mean, sd);
    ok(ones == vectors, "norms begin as ones");
    const struct param *q0 = &p[2], *q1 = &p[2 + 13];
    ok(param_initial(&c, q0, 5, 9) == param_initial(&c, q0, 5, 9), "the same each time");
    ok(param_initial(&c, q0, 5, 9) != param_initial(&c, q0, 6, 9) &&
           param_initial(&c, q0, 5, 9) != param_initial(&c, q1, 5, 9) &&
           param_initial(&c, q0, 5, 9) != param_initial(&c, q0, 5, 10),
       "another for another seed, tensor or element");
    params_free(p, n);
    config_release(&c);
}

int main(void)
{
    tool_name = "arch";
    test_read();
    test_families();
    test_write();
    test_rope();
    test_counts();
    test_further();
    test_list();
    test_layout();
    test_check();
    test_initial();
    return finish();
}
