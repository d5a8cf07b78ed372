/* arch.h -- model families: a config reader and one table of tensors each.
 *
 * A row of a family's table is one tensor under its Hugging Face name; rows of the same role
 * are laid end to end in one fused tensor (q, k, v in P_QKV; gate and up of every expert in
 * P_UP).  Allocation, checkpoint names, initial values, weight decay, slices and FLOPs come from
 * the table and nowhere else.  To add a family: one file with a table, one line in arch_list.h. */
#ifndef ARCH_H
#define ARCH_H

#include "mesh/mesh.h"

/* How frequencies of RoPE are changed for long sequences: a row of a table in rope.c. */
struct rope_type;
struct rope_scaling {
    const struct rope_type *type;
    double factor, original;      /* original_max_position_embeddings */
    double low_factor, high_factor; /* low_freq_factor, high_freq_factor */
    double fast, slow, attention;   /* beta_fast, beta_slow, attention_factor (NAN: not given) */
    double mscale, mscale_all;      /* mscale, mscale_all_dim; NAN: not given */
};

/* Of all layers together; a file that asks for more is mistaken, and would fill memory. */
enum { EXPERTS_MAX = 100000 };

/* In Hugging Face's terms (config.json), one letter each as in op_list.h. */
struct config {
    const struct arch *arch;
    char *json;            /* the config.json text it came from; kept for writing it back */
    int64_t layers;        /* num_hidden_layers */
    int64_t d;             /* hidden_size */
    int64_t heads, groups; /* num_attention_heads, num_key_value_heads */
    int64_t c;             /* head_dim; of latent attention of queries and keys: c_own + c_turn */
    int64_t cv;            /* of values: c, or v_head_dim */
    int64_t c_own, c_turn; /* qk_nope_head_dim, qk_rope_head_dim; or 0, c */
    int64_t q_rank, kv_rank; /* q_lora_rank (0: queries have none), kv_lora_rank (0: attention is
                              * not latent) */
    int64_t f;             /* intermediate_size of an expert */
    int64_t f_dense;       /* the same of a layer without experts */
    int64_t f_shared;      /* and of the shared expert beside the others; 0: there is none */
    int64_t experts, k;    /* num_local_experts or num_experts, num_experts_per_tok; or 0 */
    uint8_t *dense;        /* (layers) 1 where a layer has no experts; NULL: all are alike */
    int64_t vocab;         /* vocab_size */
    int64_t positions;     /* max_position_embeddings */
    double theta, eps;     /* rope_theta, rms_norm_eps */
    struct rope_scaling rope; /* rope_scaling, or rope_parameters beside rope_theta */
    double init;           /* initializer_range */
    double aux, z;         /* router_aux_loss_coef, router_z_loss_coef */
    int norm_gate;         /* gates of the chosen experts are divided by their sum: norm_topk_prob */
    int sigmoid;           /* the router's probabilities are sigmoids, not softmax; the family's */
    double gate_scale;     /* what gates are multiplied by at last: routed_scaling_factor */
    int64_t expert_groups; /* n_group: experts in so many groups, of which a token may... */
    int64_t group_limit;   /* ...choose from the best topk_group */
    int64_t group_best;    /* by the sum of their so many best; the family's */
    int qk_whole;          /* QK-norm, where the family has it, takes one mean of squares over all
                            * query heads and one over all key heads, not one a head; the family's */
    int tied;              /* tie_word_embeddings: the head is the embedding */
    int reward;            /* a reward model: one score a token instead of the head
                            * (architectures: ...ForSequenceClassification with one label) */
    int64_t further;       /* num_nextn_predict_layers: layers past the last, the ith of which predicts
                            * the token i + 2 places on; a reward model has none */
    int64_t bos, eos;      /* token ids, of a list the first; -1 for none */
};

enum role { /* the fused tensors of a layer, then those outside the layers */
    P_NORM1, P_QKV, P_QKV_BIAS, P_QKNORM,
    P_LATENT, P_Q_NORM, P_Q, P_KV_NORM, P_KV, /* latent attention: down (of q, of k and v with the key
                                               * all share), norms, up */
    P_OUT, P_NORM2,
    P_DENSE_UP, P_DENSE_DOWN, /* a layer's only network, or the shared expert */
    P_SHARED_GATE,
    P_ROUTER, P_ROUTER_BIAS, P_UP, P_DOWN,
    P_JOIN_E, P_JOIN_H, P_JOIN, P_JOIN_NORM, /* of a layer that predicts further tokens: norms of the
                                              * embedding and of hidden states, the matrix that joins
                                              * them, its head's norm */
    ROLE_LAYER,
    P_EMBED = ROLE_LAYER, P_NORM, P_HEAD, P_SCORE, ROLES
};
enum dim {
    DIM_ONE, DIM_D, DIM_C, DIM_Q /* heads * c */, DIM_KV /* groups * c */, DIM_F, DIM_F_DENSE,
    DIM_F_SHARED, DIM_E, DIM_V,
    DIM_O /* heads * cv */, DIM_Q_RANK, DIM_KV_RANK, DIM_LATENT /* kv_rank + c_turn */,
    DIM_Q_PLAIN /* heads * c where queries have no rank, else 0 */, DIM_KV_UP /* heads (c_own + cv) */,
    DIM_2D
};
enum layer_kind { ALL_LAYERS, DENSE_LAYERS, EXPERT_LAYERS, FURTHER_LAYERS };
enum init { INIT_NORMAL, INIT_ONES, INIT_ZEROS, INIT_SCORE /* sd 1 / sqrt(hidden_size + 1) */ };

struct arch_row {
    const char *name; /* {l} layer, {e} expert */
    enum role role;
    enum dim rows, cols; /* cols DIM_ONE: a vector; where one of them is 0 there is no such tensor */
    enum mesh_kind kind;
    enum mesh_cut cut;
    enum init init;
    int decay;
    enum layer_kind where; /* which layers have it */
    int fine;              /* struct param's */
};
/* A field of config.json and the member of struct config it is read into and written from. */
enum field_type { /* of int64_t, int64_t, double, int, int64_t */
    FIELD_COUNT, FIELD_WHOLE, FIELD_REAL, FIELD_FLAG, FIELD_TOKEN
};
struct config_field {
    const char *key;
    size_t at; /* offsetof(struct config, ...) */
    enum field_type type;
    int required;     /* must be in the file */
    int nullable;     /* null is as good as absent */
    double otherwise; /* when absent; 0 for what is derived */
    const char *alias; /* read where key is absent, never written */
};
struct arch {
    const char *model_type;   /* config.json "model_type" */
    const char *architecture; /* config.json "architectures"[0] */
    const char *reward_architecture; /* the same of a reward model */
    const char *with_experts; /* model_type of what a dense one is with experts, or NULL */
    const struct arch_row *rows; /* embedding, a layer's rows by role, norm, head */
    int64_t n;
    const struct arch_copy { /* what a layer that predicts further tokens has once more in files */
        const char *name, *of;
    } *copies;
    int64_t copies_n;
    const struct config_field *fields; /* those that other families lack or call otherwise */
    int64_t fields_n;
    /* After all fields: sets what the family fixes, and returns NULL or why the rest is refused; or
     * NULL. */
    const char *(*read)(struct config *c, struct json root);
};
const struct arch *arch_find(const char *model_type); /* or NULL */
char *arch_names(void); /* all model types, ", " between; caller frees */

/* Reads config.json text.  who names it in messages.  Dies (exit 2) naming the field when one is
 * missing, malformed or asks for what is not implemented. */
void config_parse(struct config *c, const char *text, size_t len, const char *who);
/* config.json as it is written into a checkpoint: the text it came from, with every field above
 * set and torch_dtype as given ("float32"). */
void config_write(const struct config *c, struct buf *out, const char *torch_dtype);
void config_release(struct config *c);
int64_t config_dim(const struct config *c, enum dim d);
int config_is_dense(const struct config *c, int64_t layer); /* it has no experts */
int64_t config_expert_layers(const struct config *c); /* without those that predict further tokens */

/* ---- rope.c ---- */

/* Reads c->rope from an object of config.json, called `key` there.  Dies as config_parse() does. */
void rope_read(struct config *c, struct json object, const char *key, const char *who);
/* What queries and keys are multiplied by, each. */
double rope_magnitude(const struct config *c);
/* And beyond that, of latent attention, the part of them that turns. */
double rope_turned(const struct config *c);
/* (c_turn/2) angles that a position turns by. */
void rope_frequencies(const struct config *c, double *freq);

/* Every tensor of the model, in table order: embedding, layer by layer, norm, head; within a
 * layer role by role, and in a role of the experts expert by expert (w1 and w3 of one, then of
 * the next).  A tied head is not listed.  Free with params_free(). */
struct param *arch_params(const struct config *c, int64_t *n);
/* What a Hugging Face folder has of them under a second name. */
struct param *arch_copies(const struct config *c, int64_t *n);
void params_free(struct param *p, int64_t n);
int64_t params_count(const struct param *p, int64_t n); /* elements in all */

/* Why a mesh does not fit the model beyond what mesh_check() sees (whole heads on every rank), or
 * NULL. */
const char *arch_check(const struct config *c, const struct mesh *m);

/* Element i (flat, global) of a tensor before training: a pure function of seed, name and i.
 * Matrices are normal with deviation c->init, all alike; norms are 1. */
double param_initial(const struct config *c, const struct param *p, uint64_t seed, int64_t i);

#endif
