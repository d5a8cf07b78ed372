/* op.h -- kernels: one list (op_list.h), one table a (device, type).
 *
 * The f64 CPU variant of each is the definition; every other variant is held to it by tests/op.c.
 * lib/op/NAME.c holds the CPU twin (compiled for f32 and for f64), lib/op/NAME.cu the CUDA twin. */
#ifndef OP_H
#define OP_H

#include "dev/dev.h"

enum { ROW_ALIGN = 128 }; /* expert rows begin at multiples of this, so that GPU tiles fit */

/* Whether the experts' products along k take rows in tiles of 256 on tensor cores, laid in the order
 * of the map first: in scratch, which is why it is said here. */
enum { LONG_K = 3072, LONG_EXPERTS = 512 };
static inline int experts_long(int64_t e, int64_t k)
{
    return k >= LONG_K && e <= LONG_EXPERTS;
}

/* A matrix operand, row-major: element (i, j) at data[i * ld + j].  scale and type leave room for
 * block-scaled FP8 and FP4. */
struct mat {
    void *data;
    void *scale; /* NULL for the unscaled types */
    enum dtype type;
    int64_t rows, cols, ld;
};
static inline struct mat mat(const void *data, enum dtype type, int64_t rows, int64_t cols)
{
    return (struct mat){(void *)data, NULL, type, rows, cols, cols};
}

/* Queries and keys of attention in spans (op_list.h, attn).  The arrays are on the device; what the
 * host knows of them chooses kernels. */
struct spans {
    const int32_t *q_at;          /* (n+1) */
    const int32_t *k_beg, *k_end; /* (n) */
    int64_t n;
    int64_t queries, keys; /* no span has more */
    int self;              /* the keys of a span, if any, lie among the rows of its own queries */
    int whole;             /* all spans have so many queries, and these rows are their keys */
    int cached;            /* keys but those of a span's queries are of earlier steps */
};

/* How a router chooses experts and weighs them. */
struct router {
    int64_t k;       /* chosen of a token's experts */
    int sigmoid;     /* probabilities are sigmoids of the logits, else their softmax */
    int norm;        /* gates are divided by their sum */
    double scale;    /* what gates are multiplied by at the end */
    int64_t groups;  /* E / groups experts each, and only those of the best `limit` are chosen from;... */
    int64_t limit;   /* ...equal: from all */
    int64_t best;    /* what ranks a group: the sum of its so many largest prob + bias, 1 or 2 */
    const void *bias; /* S (E), seen by choices only; or NULL */
};
static inline int router_is_limited(const struct router *r)
{
    return r->limit < r->groups;
}

/* Constants of a run that step_control and adamw need.  The learning rate rises linearly over
 * `warmup` steps to lr, then falls along a half cosine to lr * floor at `steps`. */
struct step_plan {
    double lr, floor, warmup, steps;
    double beta1, beta2, eps, clip; /* clip: largest gradient norm, 0 for none */
};
enum { /* indices into the step state, S on the device */
    STEP_COUNT,  /* committed steps */
    STEP_NORM,   /* gradient norm before clipping */
    STEP_SCALE,  /* what gradients are multiplied by: 1, or clip / norm */
    STEP_OK,     /* 1 when this step commits */
    STEP_LR,
    STEP_BIAS1,  /* 1 - beta1^count */
    STEP_BIAS2,
    STEP_STATE
};

/* A shard of the optimizer: stretches of tensors end to end, on the device.  Arrays of bf16 that are
 * updated in place are rounded stochastically: element e of a tensor is rounded in step s by 16 of
 * the bits of rng_bits(key, 4 s + array, e / 8), the (e % 8)th from the lowest, so that neither
 * ranks nor mappings change them. */
enum { STRETCH_BLOCK = 16384 };
enum { DRAW_WEIGHT, DRAW_M, DRAW_V }; /* array */
struct stretch {
    int64_t at;       /* its first element in the shard; it ends where the next begins */
    double decay;     /* of its weights */
    uint64_t key;     /* of its tensor */
    int64_t first;    /* element of the tensor that stands at `at` */
    int64_t cols, ld; /* a slice: rows `cols` elements long, `ld` apart in the tensor */
};
struct stretches {
    struct stretch *stretch; /* (n + 1), the last one an end; the first begins at 0 */
    int32_t *of_block;       /* (blocks) the stretch of element i * STRETCH_BLOCK */
    int64_t n;
};

/* Queries and keys as they lie in rows of qkv, H + G heads of C, rows ld apart, and their norm.
 * Each head is divided by its own root mean square and has the weights of queries or of keys; where
 * whole, all queries of a token are divided by theirs and all keys by theirs, and each head has its
 * own weights. */
struct qk {
    int64_t h, g, c, ld;
    const void *w; /* R (2,C), whole: R (H+G,C); NULL: no norm */
    int whole;
    int64_t ranks; /* that heads are cut over; these share the mean squares of whole */
    double eps;
};
static inline int64_t qk_norms(const struct qk *n) /* a token */
{
    return n->whole ? 2 : n->h + n->g;
}
static inline int64_t qk_weights(const struct qk *n) /* elements of w */
{
    return (n->whole ? n->h + n->g : 2) * n->c;
}
static inline int64_t qk_span(const struct qk *n, int64_t i) /* elements of norm i, on all ranks */
{
    return n->whole ? (i ? n->g : n->h) * n->c * n->ranks : n->c;
}
enum { QK_PARTS = 264 }; /* of a weight gradient; two blocks on each of 132 multiprocessors */

struct op {
    enum dtype real, stat; /* R and S of this table */
#define OP(name, args) void(*name) args;
#include "op_list.h"
#undef OP
};

/* The table for a device ("cpu", "cuda") and an activation type; NULL when there is none. */
const struct op *op_table(const char *device, enum dtype real);
/* The same by what options say ("f32", "f64", "bf16"); dies (2) when there is none, or no such device
 * here. */
const struct op *op_open(const char *device, const char *type);
/* What it asks for "cuda": op_cuda.cu or, in builds without it, op_nocuda.c; and for "dry". */
const struct op *op_table_cuda(enum dtype real);
const struct op *op_table_dry(enum dtype real);

#define OP(name, args)                                                                             \
    void name##_cpu_f32 args;                                                                      \
    void name##_cpu_f64 args;
#include "op_list.h"
#undef OP

#endif
