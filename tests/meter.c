/* meter.c -- FLOPs and parameter counts against published figures, and the log there and back. */
#include "meter/meter.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void mixtral(struct config *c, int d, int f, int layers, int heads, int experts, int k,
                    int tied)
{
    char *text = xasprintf(
        "{\"model_type\":\"mixtral\",\"architectures\":[\"MixtralForCausalLM\"],\"hidden_size\":%d,"
        "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
        "\"num_key_value_heads\":8,\"num_local_experts\":%d,\"num_experts_per_tok\":%d,"
        "\"vocab_size\":32000,\"max_position_embeddings\":32768,\"rope_theta\":1e6,"
        "\"rms_norm_eps\":1e-5,\"router_aux_loss_coef\":0.02,\"hidden_act\":\"silu\","
        "\"initializer_range\":0.02,\"tie_word_embeddings\":%s,\"bos_token_id\":1,"
        "\"eos_token_id\":2}",
        d, f, layers, heads, experts, k, tied ? "true" : "false");
    config_parse(c, text, strlen(text), "test");
    free(text);
}

static int near(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b);
}

static void test_flops(void)
{
    struct config c, tied;
    const double seq = 4096, giga = 1e9;
    mixtral(&c, 6144, 16384, 56, 48, 8, 2, 0);
    struct work w = meter_work(&c);
    double causal = meter_flops(&w, 1, seq, COUNT_CAUSAL) / giga;
    double full = meter_flops(&w, 1, seq, COUNT_FULL) / giga;
    ok(near(causal, 242.167578624, 1e-12), "Mixtral-8x22B at 4096: 242.17 GFLOP a token (%.2f)",
       causal);
    ok(near(full, 250.623295488, 1e-12), "counting masked pairs too: 250.62 (%.2f)", full);
    double ratio =
        meter_flops(&w, 1, 131072, COUNT_FULL) / meter_flops(&w, 1, 131072, COUNT_CAUSAL);
    ok(near(ratio, 1.537, 5e-4), "full / causal at 128k: 1.537 (%.4f)", ratio);
    double whole = meter_flops(&w, 8192, 8192.0 * 8192, COUNT_CAUSAL);
    double cut = meter_flops(&w, 8192, 2 * 4096.0 * 4096, COUNT_CAUSAL);
    ok(near(whole - cut, w.square * 2 * 4096.0 * 4096, 1e-9), "two documents cost less than one");

    mixtral(&tied, 6144, 16384, 56, 48, 8, 2, 1);
    struct work wt = meter_work(&tied);
    ok(near(wt.token, w.token, 1e-15), "a tied head is still a product with the vocabulary");
    config_release(&tied);
    config_release(&c);
}

static void test_params(void)
{
    static const struct {
        const char *name;
        int d, f, layers, heads;
        double total, active;
    } known[] = {
        {"Mixtral-8x7B", 4096, 14336, 32, 32, 46.70e9, 12.88e9},
        {"Mixtral-8x22B", 6144, 16384, 56, 48, 140.6e9, 39.2e9},
    };
    for (int64_t i = 0; i < ARRAY_LEN(known); i++) {
        struct config c;
        mixtral(&c, known[i].d, known[i].f, known[i].layers, known[i].heads, 8, 2, 0);
        struct param_counts n = meter_params(&c);
        ok(near(n.total, known[i].total, 5e-4), "%s has %.4g parameters (%lld)", known[i].name,
           known[i].total, (long long)n.total);
        ok(near(n.active, known[i].active, 2e-3), "%s: %.4g active (%lld)", known[i].name,
           known[i].active, (long long)n.active);
        config_release(&c);
    }
    struct config c;
    mixtral(&c, 512, 96, 2, 8, 1, 1, 0);
    struct param_counts n = meter_params(&c);
    ok(n.total == n.active, "with one expert every parameter is active");
    config_release(&c);

    static const char qwen2_57b[] =
        "{\"model_type\":\"qwen2_moe\",\"hidden_size\":3584,\"num_hidden_layers\":28,"
        "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"num_experts\":64,"
        "\"num_experts_per_tok\":8,\"moe_intermediate_size\":2560,"
        "\"shared_expert_intermediate_size\":20480,\"vocab_size\":151936,"
        "\"max_position_embeddings\":131072,\"rope_theta\":1e6,\"rms_norm_eps\":1e-6}";
    config_parse(&c, qwen2_57b, strlen(qwen2_57b), "test");
    n = meter_params(&c);
    ok(near(n.total, 57.41e9, 5e-4) && near(n.active, 14.25e9, 2e-3),
       "Qwen2-57B-A14B has 57.41e9 parameters, 14.25e9 active with its shared expert (%lld, %lld)",
       (long long)n.total, (long long)n.active);
    config_release(&c);
    static const char v2_lite[] =
        "{\"model_type\":\"deepseek_v2\",\"hidden_size\":2048,\"num_hidden_layers\":27,"
        "\"num_attention_heads\":16,\"num_key_value_heads\":16,\"n_routed_experts\":64,"
        "\"num_experts_per_tok\":6,\"moe_intermediate_size\":1408,\"intermediate_size\":10944,"
        "\"n_shared_experts\":2,\"first_k_dense_replace\":1,\"kv_lora_rank\":512,"
        "\"q_lora_rank\":null,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
        "\"vocab_size\":102400,\"max_position_embeddings\":163840,\"rope_theta\":1e4,"
        "\"rms_norm_eps\":1e-6}";
    config_parse(&c, v2_lite, strlen(v2_lite), "test");
    n = meter_params(&c);
    ok(near(n.total, 15.71e9, 5e-4) && near(n.active, 2.66e9, 2e-3),
       "DeepSeek-V2-Lite has 15.71e9 parameters, 2.66e9 active (%lld, %lld)", (long long)n.total,
       (long long)n.active);
    ok(meter_work(&c).square == 27.0 * 16 * 6 * (192 + 128) / 2,
       "attention's work is that of keys of 192 and values of 128");
    config_release(&c);
    static const char v3[] =
        "{\"model_type\":\"deepseek_v3\",\"hidden_size\":7168,\"num_hidden_layers\":61,"
        "\"num_attention_heads\":128,\"num_key_value_heads\":128,\"n_routed_experts\":256,"
        "\"num_experts_per_tok\":8,\"moe_intermediate_size\":2048,\"intermediate_size\":18432,"
        "\"n_shared_experts\":1,\"first_k_dense_replace\":3,\"kv_lora_rank\":512,"
        "\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
        "\"n_group\":8,\"topk_group\":4,\"num_nextn_predict_layers\":1,"
        "\"vocab_size\":129280,\"max_position_embeddings\":163840,\"rope_theta\":1e4,"
        "\"rms_norm_eps\":1e-6}";
    config_parse(&c, v3, strlen(v3), "test");
    struct work with = meter_work(&c);
    c.further = 0;
    struct work without = meter_work(&c);
    double s = 4096, x = meter_flops(&with, s, s * s, COUNT_CAUSAL) / s / 1e9,
           y = meter_flops(&without, s, s * s, COUNT_CAUSAL) / s / 1e9;
    ok(near(x, 259.99, 1e-4) && near(y, 249.81, 1e-4),
       "DeepSeek-V3 takes 259.99 GFLOP a token of 4096 as Megatron-LM counts, 249.81 without its "
       "layer "
       "that predicts further tokens (%.2f, %.2f)",
       x, y);
    config_release(&c);
    static const char llama3_8b[] =
        "{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":32,"
        "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"intermediate_size\":14336,"
        "\"vocab_size\":128256,\"max_position_embeddings\":8192,\"rope_theta\":5e5,"
        "\"rms_norm_eps\":1e-5}";
    config_parse(&c, llama3_8b, strlen(llama3_8b), "test");
    n = meter_params(&c);
    double matrices = n.total - 128256.0 * 4096 - 65 * 4096;
    ok(n.total == n.active && meter_work(&c).token == 6 * matrices,
       "a dense model is active whole, and 6 operations a matrix element and token");
    config_release(&c);
}

static void test_squares(void)
{
    static const int32_t document[] = {0, 0, 0, 1, 2, 2, -1, -1, -1, -1};
    ok(meter_squares(document, 10) == 9 + 1 + 4, "squares of documents, pads left out");
    ok(meter_squares(document, 6) == 14, "and of a full sequence");
    ok(meter_squares(document, 0) == 0, "and of none");
}

static struct step_line step_of(int64_t i)
{
    return (struct step_line){.step = i,
                              .loss = 10.0 / 3 / i,
                              .aux = 1e-300,
                              .z = 0,
                              .lr = 3e-4,
                              .grad_norm = i == 2 ? NAN : 1,
                              .tokens = 1LL << 40,
                              .step_ms = 12.5,
                              .tflops = 0.125,
                              .ok = i != 2,
                              .seconds = 0.0125 * i,
                              .won = NAN,
                              .squares = i % 2 ? 1e9 + i : NAN};
}

static void test_full(void)
{
    struct config c;
    mixtral(&c, 512, 96, 2, 8, 1, 1, 0);
    struct work w = meter_work(&c);
    const double tokens = 4096, squares = 4096.0 * 2048, ms = 250;
    struct log_head head = {.flops_square = w.square};
    struct step_line s = {.tflops = meter_flops(&w, tokens, squares, COUNT_CAUSAL) / ms / 1e9,
                          .step_ms = ms,
                          .squares = squares};
    ok(near(meter_full_tflops(&head, &s), meter_flops(&w, tokens, squares, COUNT_FULL) / ms / 1e9,
            1e-12),
       "the rate that counts masked pairs follows from the log");
    config_release(&c);
}

static void test_log(void)
{
    struct log_head head = {.config = "{\n  \"seed\": 0,\n  \"name\": \"a \\\"b\\\"\"\n}",
                            .params = 46702792704,
                            .flops_token = 1.25e9,
                            .active = 12879925248,
                            .data = "0123456789abcdef"};
    struct buf b = {0};
    meter_head_write(&b, &head);
    size_t head_len = b.len;
    for (int64_t i = 1; i <= 100; i++) {
        struct step_line s = step_of(i);
        meter_step_write(&b, &s);
        if (i % 20 == 0)
            meter_valid_write(&b, &(struct valid_line){i, 1.0 / 3 + i, 1});
    }
    int64_t lines = 0;
    for (size_t i = 0; i < b.len; i++)
        lines += b.data[i] == '\n';
    ok(lines == 106, "one line for the header, one a step and one a validation");
    size_t whole = b.len;
    buf_str(&b, "{\"step\":101,\"lo");

    char path[] = "/tmp/meter-test-XXXXXX";
    int fd = mkstemp(path);
    ok(fd >= 0 && write_all(fd, b.data, b.len) == 0, "a log is written");
    struct meter_log m;
    meter_log_read(&m, path);
    ok(m.n == 100, "a line that was cut short is not there");
    ok(!strcmp(m.head.config, "{\"seed\":0,\"name\":\"a \\\"b\\\"\"}"), "configuration: %s",
       m.head.config);
    ok(m.head.params == head.params && m.head.active == head.active &&
           m.head.flops_token == head.flops_token && m.head.peak_flops == 0 &&
           !strcmp(m.head.data, head.data),
       "the header comes back");
    int same = 1;
    for (int64_t i = 0; i < m.n; i++) {
        struct step_line s = step_of(i + 1), *r = &m.line[i];
        same &= r->step == s.step && r->loss == s.loss && r->aux == s.aux && r->z == s.z &&
                r->lr == s.lr && r->tokens == s.tokens && r->ok == s.ok &&
                r->step_ms == s.step_ms && isnan(r->won) &&
                (isnan(s.squares) ? isnan(r->squares) : r->squares == s.squares) &&
                (isnan(s.grad_norm) ? isnan(r->grad_norm) : r->grad_norm == s.grad_norm);
    }
    ok(same, "every step comes back, losses to the bit, NaN as NaN");
    ok(m.valids == 5 && m.valid[4].step == 100 && m.valid[4].loss == 1.0 / 3 + 100,
       "and every validation");
    meter_log_release(&m);

    meter_log_cut(path, 1000);
    ok(lseek(fd, 0, SEEK_END) == (off_t)whole,
       "cutting beyond the end takes the broken line alone");
    meter_log_cut(path, 60);
    meter_log_read(&m, path);
    ok(m.n == 60 && m.line[59].step == 60, "a log is cut behind step 60");
    ok(m.valids == 3 && m.valid[2].step == 60, "and behind its validation");
    meter_log_release(&m);
    meter_log_cut(path, 0);
    ok(lseek(fd, 0, SEEK_END) == (off_t)head_len, "cut at step 0 it is the header");
    close(fd);
    unlink(path);
    buf_release(&b);
}

int main(void)
{
    test_flops();
    test_params();
    test_squares();
    test_full();
    test_log();
    return finish();
}
