/* deepseek_v3.c -- DeepSeek-V3: as V2, with a router of sigmoids that chooses by probability plus a
 * bias of each expert, from the groups with the best two together, and gates that are divided by
 * their sum; and after its last layer others, that predict further tokens. */
#include "arch/rows.h"

#define EXPERT LAYER "mlp.experts.{e}."
static const struct arch_row rows[] = {
    ROW_EMBED,
    ROWS_NORM_LATENT,
    ROWS_OUT_NORM,
    ROWS_DENSE(DENSE_LAYERS, "mlp.", DIM_F_DENSE),
    ROWS_DENSE(EXPERT_LAYERS, "mlp.shared_experts.", DIM_F_SHARED),
    ROW_ROUTER("mlp.gate.weight"),
    ROW_ROUTER_BIAS("mlp.gate.e_score_correction_bias"),
    ROWS_EXPERT(EXPERT "gate_proj.weight", EXPERT "up_proj.weight", EXPERT "down_proj.weight"),
    ROWS_FURTHER,
    ROWS_NORM_HEAD,
};

static const struct arch_copy copies[] = {
    {LAYER "embed_tokens.weight", "model.embed_tokens.weight"},
    {LAYER "shared_head.head.weight", "lm_head.weight"},
};

/* What is absent is as in transformers, which builds no layers that predict further tokens. */
#define AT(member) offsetof(struct config, member)
static const struct config_field fields[] = {
    FIELDS_LATENT,
    {"n_group", AT(expert_groups), FIELD_COUNT, .otherwise = 8},
    {"topk_group", AT(group_limit), FIELD_COUNT, .otherwise = 4},
    {"routed_scaling_factor", AT(gate_scale), FIELD_REAL, .otherwise = 2.5},
    {"norm_topk_prob", AT(norm_gate), FIELD_FLAG, .otherwise = 1},
    {"num_nextn_predict_layers", AT(further), FIELD_WHOLE},
};

static const char *read_own(struct config *c, struct json root)
{
    struct json v;
    int interleave;
    const char *why = config_read_string(root, "scoring_func", "sigmoid");
    if (!why)
        why = config_read_string(root, "topk_method", "noaux_tc");
    if (why)
        return why;
    if (json_get(root, "rope_interleave", &v) && (json_bool(v, &interleave) || !interleave))
        return "\"rope_interleave\" is not true, the only value implemented";
    c->sigmoid = 1;
    c->group_best = 2;
    if ((why = config_read_latent(c, root)))
        return why;
    return c->experts / c->expert_groups < 2 ? "\"n_group\" leaves groups of a single expert"
                                             : NULL;
}

const struct arch arch_deepseek_v3 = {
    .model_type = "deepseek_v3",
    .architecture = "DeepseekV3ForCausalLM",
    .reward_architecture = "DeepseekV3ForSequenceClassification",
    .rows = rows,
    .n = ARRAY_LEN(rows),
    .copies = copies,
    .copies_n = ARRAY_LEN(copies),
    .fields = fields,
    .fields_n = ARRAY_LEN(fields),
    .read = read_own,
};
