/* model.h -- the decoder: weights and gradients of one rank, and the segments a step is made of.
 *
 * A layer is attention and then route, dispatch, experts, combine, with dense among them where all
 * tokens also go through a shared expert, or dense alone; around the layers stand embed and head,
 * between pipeline stages send and receive, and layers that predict further tokens, on the last
 * stage, begin with join and end with heads of their own.  Each segment has a forward pass, a data gradient
 * and a weight gradient, which a schedule (train.h) orders freely: what a segment keeps for later
 * lies in struct saved, one per (micro-batch, layer), and nowhere else.  Every collective that any
 * mapping needs is called here on its group; a group of one costs nothing.
 *
 * Shapes, on one rank: T tokens of a micro-batch (after the cut over CP), Tl = T / TP of them
 * between the blocks (sequence parallelism), D hidden, H and G query and key/value heads held here,
 * C head size, Cv that of values, E experts in all, El held here, F expert width held here, K chosen, V vocabulary
 * rows held here, R rows received by the experts, M rows of the row map. */
#ifndef MODEL_H
#define MODEL_H

#include "arch/arch.h"
#include "ckpt/ckpt.h"
#include "comm/comm.h"
#include "mesh/mesh.h"
#include "op/op.h"

/* ---- batch.c: one micro-batch, fixed-capacity device arrays ---- */

struct batch {
    int64_t rows, seq, t; /* packed rows, tokens of each held here, rows * seq */
    int64_t groups;       /* accounting groups: stretches of as many rows each */
    int64_t spans;        /* documents and runs of pads, then any number of empty ones */
    int64_t queries, keys; /* no span has more; bounds that hold for every batch */
    char *block;          /* what the arrays lie in */
    int64_t put_bytes;    /* from its beginning on: what the host fills in */
    int whole;             /* each row is one document, without pads */
    int32_t *token;       /* (T) -1: none, whose embedding is 0 */
    int32_t *label;       /* (T) the next token of the same document where it is learnt, else -1 */
    int32_t *position;    /* (T) within the document */
    int32_t *group;       /* (T) accounting group, -1 for pads */
    int32_t *q_at;        /* (T+1) spans, as op_list.h's attn takes them */
    int32_t *k_beg, *k_end;        /* (T) */
    void *weight;                  /* S (T) of the label, 0 where there is none */
    void *dlogp, *logp;            /* S (T) written by the loss, and by the head (or the score) */
    int32_t *chosen;               /* (T) by span: 1 where the span and the next are a pair */
    void *base, *margin;           /* S (T) by span */
    const struct context *context; /* NULL when CP is 1 */
    /* decoding only */
    const int32_t *cache_row; /* (T) row of the cache that each token's key and value go to */
    struct cache *cache;
};
struct model;
/* Arrays for rows of seq tokens each, zeroed. */
void batch_init(struct batch *b, const struct model *m, int64_t rows, int64_t seq);
void batch_release(struct batch *b, const struct model *m);
/* Host arrays of the same meaning, filled row by row before a batch is put on the device. */
struct batch_host {
    int64_t rows, seq, spans;
    int64_t group_rows; /* packed rows of an accounting group */
    int32_t *token, *label, *position, *group, *q_at, *k_beg, *k_end;
    double *weight;
    int32_t *chosen; /* by span, as base and margin */
    double *base, *margin;
    double weight_sum; /* of labels */
    int64_t pairs;
    int64_t live; /* tokens that are no pads */
};
void batch_host_init(struct batch_host *h, int64_t rows, int64_t seq);
void batch_host_release(struct batch_host *h);
void batch_host_clear(struct batch_host *h);
/* The rows as layers that predict a token further see them, from those of the layer before, which may
 * be `to` itself: each token's are those of the next one in its document, but for its position, and
 * the last has none: its token and label are -1, and it is routed as little as a pad is. */
void batch_host_shift(struct batch_host *to, const struct batch_host *from);
/* Fills row i from a packed sequence: document numbers ascend from 0, -1 marks pads (at the end).
 */
void batch_host_row(struct batch_host *h, int64_t i, const int32_t *token, const uint8_t *target,
                    const int32_t *document, const float *weight);

/* All that the host knows of a batch, with empty spans up to `spans`, in one copy from `stage`:
 * put_bytes of host memory, which are the device's to read for as long as dev->put() says. */
void batch_put(struct batch *b, const struct model *m, const struct batch_host *h, int64_t spans,
               void *stage);

/* What a pair loss needs of the documents just laid in row i, first span on: weights anew
 * (TOKENS_LAST or TOKENS_LEARNT), pairs, margins and reference log-probabilities.  n documents. */
struct batch_doc {
    int64_t pair; /* number of the pair, -1 for none; the two are neighbours, chosen first */
    double margin, ref_logp;
};
void batch_host_pairs(struct batch_host *h, int64_t i, const struct batch_doc *doc, int64_t n,
                      int last_token_only);

/* ---- context.c: rows cut over CP ---- */

/* Where tokens are, on the device: "held" numbers the tokens of CP rank 0, then those of rank 1,
 * and so on. */
struct context {
    int64_t tokens; /* of whole rows: CP T */
    /* (tokens) token i of the whole rows is held as from[i]; held i is token to[i] */
    int32_t *from, *to;
    int32_t *own; /* 0, 1, 2, ... */
};
/* seq is of the whole rows, a multiple of 2 CP. */
void context_init(struct context *c, const struct mesh *m, struct lane *l, int64_t rows,
                  int64_t seq);
void context_release(struct context *c, const struct dev_ops *dev);
/* A statistic of every token: S (tokens) in the order of the whole rows from everybody's S (T), and
 * back what of it this rank holds. */
void context_join(const struct context *c, struct model *m, struct lane *l, void *whole,
                  const void *held);
void context_part(const struct context *c, struct model *m, struct lane *l, void *held,
                  const void *whole);
/* The tokens this rank holds of whole rows; keys of its spans are numbered in the whole rows.  part
 * has been made for seq / CP; its sums are left 0. */
void batch_host_cut(struct batch_host *part, const struct batch_host *whole, const struct mesh *m);

/* ---- saved.c: what a segment keeps for its backward passes ---- */

enum slot { /* activations of one (micro-batch, layer) */
    SLOT_X,                                  /* R (Tl,D) input of the layer */
    SLOT_RSTD1, SLOT_QKV, SLOT_O, SLOT_LSE,  /* S (Tl), R (T,(H+2G)C), R (T,HC), S (T,H) */
    /* latent attention: what is down, R (T,q_rank), (T,kv_rank), (T,c_turn) end to end, before its
     * norms; S (2,T) of queries, of keys; SLOT_QKV is R (T,HC) then */
    SLOT_LATENT, SLOT_LATENT_RSTD,
    SLOT_X1, SLOT_RSTD2, SLOT_H2,            /* R (Tl,D), S (Tl), R (Tl,D) */
    SLOT_INDEX, SLOT_GATE, SLOT_PROB, SLOT_ROUTE_LSE, SLOT_COUNT, /* (Tl,K) (Tl,K) (Tl,E) (Tl) (A,E) */
    SLOT_KEPT,                               /* (Tl,K) the choices that are not dropped */
    SLOT_DENSE_H, SLOT_DENSE_Z, SLOT_X2,     /* R (T,2F) dense or shared, S (T), R (Tl,D) */
    SLOT_RX, SLOT_RINDEX, SLOT_RGATE,        /* R (R,D), I32 (R,K), S (R,K): as received */
    SLOT_SEND_ROW, SLOT_SEND_PLACE, SLOT_SEND_INDEX, /* I32 (sent), (Tl, ranks), (sent,K) */
    SLOT_MAP_AT, SLOT_MAP_COUNT, SLOT_MAP_SOURCE, SLOT_MAP_PLACE,
    SLOT_H,                                  /* R (M,2F) before the activation; becomes SLOT_DH */
    SLOT_RY,                                 /* R (R,D) */
    SLOT_DX, SLOT_DRY, SLOT_DH, SLOT_A, SLOT_DRX, SLOT_DRGATE, /* gradients, in the order of backward */
    SLOT_DENSE_DY, SLOT_DENSE_DH, SLOT_DENSE_A, SLOT_DENSE_DZ,
    SLOT_DH2, SLOT_DGATE, SLOT_DLOGITS, SLOT_DX1, SLOT_DY1, SLOT_DQKV, SLOT_DQKNORM,
    SLOT_NEXT,                               /* R (Tl,D) embeddings of the next tokens */
    SLOT_DLATENT, SLOT_DKV,                  /* as SLOT_LATENT, R (tokens,H(c_own+Cv)) */
    SLOTS
};
struct saved {
    struct heap *heap; /* of the lane that works on it */
    struct saved_block *slot[SLOTS];
    int64_t received; /* R */
    int64_t map_rows; /* M */
    int64_t *sent,
        *recvd; /* rows to and from each rank of the dispatcher's group; NULL when alone */
};
void *saved_keep(struct saved *s, enum slot k, int64_t bytes); /* memory to write the slot into */
void *saved_fetch(struct saved *s, enum slot k);               /* dies when the slot is empty */
int saved_holds(const struct saved *s, enum slot k);
void saved_share(struct saved *to, enum slot k, struct saved *from,
                 enum slot j);                    /* the same memory */
void saved_release(struct saved *s, enum slot k); /* no-op when empty */
void saved_clear(struct saved *s);

/* ---- model.c ---- */

/* What stands at an index of model.at and of a micro-batch's saved state: the layers of this stage; at
 * `layers` what is outside the layers, the head; then by turns the layers that predict further
 * tokens and their heads. */
struct weights {
    void *w[ROLES]; /* R, pointers into model.weight */
    void *g[ROLES]; /* pointers into model.grad; NULL when the model does not train */
};
enum {
    LOSS_MAIN,
    LOSS_WON,
    LOSS_AUX,
    LOSS_Z,
    LOSS_DROPPED,
    LOSS_FURTHER,
    LOSS_SUMS
}; /* the loss, pairs won, the router's two, choices dropped, the loss of further tokens */
struct model {
    struct config cfg;
    struct mesh mesh;
    const struct op *op;
    struct lane *lane;
    struct comm *comm[GROUP_COUNT];
    struct comm
        *back; /* GROUP_PP again, for gradients: between two ranks both kinds may be under way */
    struct comm *ends; /* first and last stage, which has copies of what the first owns; or NULL */
    struct param *param;
    int64_t params;
    struct layout layout;
    void *weight[BUFFERS]; /* R (layout.size), S of fine tensors */
    void *grad[BUFFERS];   /* (layout.size) of grad_type, NULL of fine tensors; gaps between tensors
                            * stay 0 */
    enum dtype grad_type;  /* S, or R where it is asked for */
    struct weights *at;    /* (model_slots()) of this stage */
    int64_t layers;        /* held by this stage, numbered from 0 in order */
    int64_t further;       /* the same of those that predict further tokens */
    int64_t chunks,
        *chunk; /* pipeline chunks of this stage; (chunks + 1) the first layer of each */
    int64_t h, g, c, cv, el, f, v, v0; /* local sizes */
    void *freq;                    /* S (C/2) rotary frequencies, of the part that turns */
    double scale;                  /* of <query, key> */
    double turned;                 /* what the part of a latent head that turns is multiplied by */
    double capacity; /* of an expert, in mean loads (op_list.h, drop); 0: no choice is dropped */
    const struct dispatcher *dispatch; /* dispatch.h */
    int any_dispatch;              /* it was chosen here, and may become the window */
    int32_t *everywhere;           /* (Tl, ranks) where the answers to them are then */
    int64_t everywhere_rows;       /* Tl */
    struct window **window;        /* (windows) the last one is in use, the others were too small */
    int64_t windows, window_rows;  /* for so many rows of a rank */
    void *coef;                    /* S (2) of route_dgrad; the trainer's, set before each step */
    void *loss;                    /* S (LOSS_SUMS) of the step */
    void *load;    /* S (model_slots(), E) += choices of the step by expert, or NULL: nobody asks */
    void *squares; /* S (1) += those of the experts' gradients as they are written, or NULL */
};
/* Builds the model of this rank: groups, layout, memory, zero weights.  cfg is taken over.  Dies (2)
 * when the mesh does not fit the model. */
void model_init(struct model *m, struct config *cfg, const struct mesh *mesh, struct world *w,
                struct lane *lane, const struct op *op);
void model_gradients(struct model *m, enum dtype type); /* memory for them: the model can train */
void model_random(struct model *m, uint64_t seed); /* the initial weights of arch.h */
/* How tokens reach the ranks of their experts: "rows" by count, "all" to all, "padded" to what capacity
 * allows (set before), "window" straight into their memory, or "auto": the window where there can be
 * one. */
void model_dispatch(struct model *m, const char *how);
const char *model_dispatch_name(const struct model *m);
int model_asks_host(const struct model *m); /* so that a step cannot be captured */
/* What the window takes of the device for n tokens a rank (Tl), beside the step's memory; 0 where it is not
 * to be used. */
int64_t model_window_bytes(const struct model *m, int64_t n);
/* Opens what it needs for n tokens a rank, with all members of the group; where that is not possible
 * "auto" is another way, and "window" dies (2).  A window that has become too small stays, since what
 * was captured goes on using it. */
void model_window(struct model *m, struct lane *l, int64_t n);
/* Weights from a checkpoint.  A tensor of the role `fresh` (-1: none) that is not in it keeps what
 * it has: a language model that becomes a reward model has no score yet, and a head too many.  Else a
 * tensor that is not of the model is refused. */
void model_load(struct model *m, struct ckpt *k, int fresh);
void model_release(struct model *m);
static inline int64_t model_slots(const struct model *m)
{
    return m->layers + 1 + 2 * m->further;
}
/* What this stage calls a layer of the model that it holds. */
int64_t model_local_layer(const struct model *m, int64_t layer);
void *model_weight(const struct model *m, const struct local *l); /* a slice's weights */
enum dtype model_type(const struct model *m, int buffer);         /* and their type */

/* ---- segments ---- */

enum segment {
    SEG_EMBED,
    SEG_RECV,
    SEG_ATTN,
    SEG_LATENT,
    SEG_ROUTE,
    SEG_DENSE,
    SEG_DISPATCH,
    SEG_EXPERTS,
    SEG_COMBINE,
    SEG_HEAD,
    SEG_JOIN,
    SEG_SCORE,
    SEG_SEND,
    SEGMENTS
};
enum pass { PASS_FORWARD, PASS_DGRAD, PASS_WGRAD, PASSES };
struct task_context {
    struct model *m;
    struct lane *l;
    struct batch *b;
    struct saved
        *s;    /* (model_slots()): s[layer] of this micro-batch; a head's holds its input */
    int add;   /* weight gradients are added to those of earlier micro-batches, not written */
    int layer; /* local; of embed and receive the chunk's first, of head and send the one past its
                  last */
};
/* A NULL entry means that the segment has nothing to do in that pass. */
extern void (*const segment_run[SEGMENTS][PASSES])(struct task_context *t);
extern const char *const segment_name[SEGMENTS];
/* Those of a layer held here, in the order of a forward pass. */
struct layer_segments {
    enum segment list[6];
    int64_t n;
};
struct layer_segments layer_segments(const struct model *m, int64_t layer);

/* ---- infer.c: forward without backward, one rank ---- */

struct cache { /* keys and values of sequences being decoded */
    void *block; /* of all layers */
    void **kv;   /* per layer: R (rows, G C + G Cv), keys then values in a row */
    int64_t rows, bytes; /* of a layer */
};
/* Leaves logits S (n, V) on the device of the n given rows (in order) of the batch. */
void model_logits_there(struct model *m, struct batch *b, const int32_t *row /* (n) */, int64_t n,
                        void *logits);
/* The same as doubles on the host. */
void model_logits(struct model *m, struct batch *b, const int32_t *token_row /* (n) host */,
                  int64_t n, double *logits);

/* The last segment's output of every token, as doubles (T): log-probability of its label (0 where
 * there is none), or a reward model's score. */
void model_outputs(struct model *m, struct batch *b, double *out);

/* A whole checkpoint on one rank, to be used and not trained: fills m and lane.  device "cpu" or
 * "cuda"; type "f32", "f64" or "bf16". */
void model_open(struct model *m, struct lane *lane, struct world *w, struct ckpt *k,
                const char *device, const char *type, int64_t threads);

/* ---- score.c: whole documents ---- */

struct score_doc {
    const int32_t *token;
    const uint8_t
        *target; /* 1 where the token is learnt: what a language model's score sums over */
    int64_t n;
};
/* score[i]: a reward model's score of the last token, or the log-probability of the learnt tokens.
 * The same bits for a document whatever n, its place and its neighbours are. */
void model_scores(struct model *m, const struct score_doc *doc, int64_t n, double *score);

/* ---- decode.c: many sequences decoded side by side ---- */

/* Slots for sequences of at most `capacity` tokens.  A step runs pending tokens of all active slots in
 * one forward pass, whole prompts and single tokens alike; those of long prompts take several steps.
 * Of a slot that has none left it draws the next token. */
struct decoder {
    struct model *m;
    int64_t slots, capacity, most; /* tokens of a step */
    double temperature, top_p;     /* of the draws, as op_list.h's draw has them */
    struct decoder_slot {
        int active;
        int64_t cached;   /* tokens whose keys and values are in the cache */
        int32_t *pending; /* (capacity) tokens still to run: ran .. pendings */
        int64_t ran, pendings;
        double u; /* in (0, 1), of the next draw: the caller's */
        int drawn; /* the last step ended in a token */
        int32_t token;
        const void *logits; /* S (V) on the device, that it was drawn from */
    } * slot;
    struct cache cache;
    struct batch batch;
    char *there, *here; /* what a step puts on the device, there and on the host */
    int32_t *token;     /* (slots) on the device, drawn */
    int32_t *got;       /* (slots) the same on the host */
    void *logits;       /* S (slots, V) on the device */
};
void decoder_init(struct decoder *d, struct model *m, int64_t slots, int64_t capacity,
                  double temperature, double top_p);
void decoder_release(struct decoder *d);
/* Begins a sequence in a free slot and returns its number, or -1 when all are taken. */
int64_t decoder_start(struct decoder *d, const int32_t *token, int64_t n);
void decoder_step(struct decoder *d);
void decoder_push(struct decoder *d, int64_t slot, int32_t token);
void decoder_stop(struct decoder *d, int64_t slot);

#endif
