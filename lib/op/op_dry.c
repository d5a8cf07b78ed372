/* op_dry.c -- ops that do nothing, for the device that has no memory (dev_dry.c).
 *
 * Those whose CUDA twins need much scratch memory take as much and give it back, so that a step on
 * that device takes what one on a GPU does; tests/gpu.c holds one to the other. */
#include "op/op.h"

enum { LITTLE = 1 << 20 }; /* that any op may take */

static void take(struct lane *l, int64_t bytes)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    arena_take(&l->scratch, LITTLE);
    arena_take(&l->scratch, bytes);
    arena_back(&l->scratch, mark);
}

#define OP(name, args)                                                                             \
    static void name##_idle args                                                                   \
    {                                                                                              \
        take(l, 0);                                                                                \
    }
#include "op_list.h"
#undef OP

static void take_rows(struct lane *l, int64_t live, int64_t e, int64_t row_bytes)
{
    take(l, (live + e * (ROW_ALIGN - 1)) * row_bytes);
}
/* A row by the row map, laid before a product, and its place. */
static int64_t laid(int64_t d)
{
    return d * 2 + 4;
}

/* Parts of dw: 32 bytes a thread. */
static void rmsnorm_grad_takes(struct lane *l, void *dx, struct mat dw, const void *dres,
                               const void *dy, const void *x, const void *w, const void *rstd,
                               int64_t t, int add)
{
    take(l, MIN(t * dw.cols, 132 * 1024 * 8) * 4);
}

/* Statistics rounded. */
static void gemm_takes(struct lane *l, struct mat c, struct mat a, struct mat b, int ta, int tb,
                       int add)
{
    take(l,
         (a.type == DT_F32 ? a.rows * a.ld * 2 : 0) + (b.type == DT_F32 ? b.rows * b.ld * 2 : 0));
}

/* Sums of dq, and lse and delta as cuDNN has them. */
static void attn_dgrad_takes(struct lane *l, void *dq, void *dk, void *dv, const void *d_o,
                             const void *q, const void *k, const void *v, const void *o,
                             const void *lse, struct spans s, int64_t tk, int64_t h, int64_t g,
                             int64_t c, int64_t cv, int64_t ldq, int64_t ldk, double scale)
{
    take(l, tk * (ldq + 2 * h) * 4);
}

static void experts_up_takes(struct lane *l, void *h, void *a, const void *x, const void *up,
                             const void *gate, const int32_t *at, const int32_t *count,
                             const int32_t *source, int64_t live, int64_t e, int64_t k, int64_t d,
                             int64_t f)
{
    take_rows(l, live, e, experts_long(e, d) ? laid(d) : 0);
}

/* The parts of dgate, of 128 columns each, and the rows of dout where they are laid. */
static void experts_dh_takes(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                             const void *down, const void *h, const void *gate, const int32_t *at,
                             const int32_t *count, const int32_t *source, int64_t n, int64_t e,
                             int64_t k, int64_t d, int64_t f)
{
    take_rows(l, n * k, e, (f + 127) / 128 * 4 + (experts_long(e, d) ? laid(d) : 0));
}

/* da whole, where no tensor core takes it. */
static void experts_dh_takes_f32(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                                 const void *down, const void *h, const void *gate,
                                 const int32_t *at, const int32_t *count, const int32_t *source,
                                 int64_t n, int64_t e, int64_t k, int64_t d, int64_t f)
{
    take_rows(l, n * k, e, f * 4);
}

static void experts_up_wgrad_takes(struct lane *l, struct mat dw, const void *dh, const void *x,
                                   const int32_t *at, const int32_t *count, const int32_t *source,
                                   int64_t live, int64_t e, int64_t k, int add, void *squares)
{
    take_rows(l, live, e, laid(dw.cols));
}

static void experts_down_wgrad_takes(struct lane *l, struct mat dw, const void *dout, const void *a,
                                     const int32_t *at, const int32_t *count, const int32_t *source,
                                     int64_t live, int64_t e, int64_t k, int add, void *squares)
{
    take_rows(l, live, e, laid(dw.rows / e));
}

const struct op *op_table_dry(enum dtype real)
{
    static struct op f32 = {
        DT_F32,
        DT_F32,
#define OP(name, args) name##_idle,
#include "op_list.h"
#undef OP
    };
    static struct op bf16;
    f32.rmsnorm_grad = rmsnorm_grad_takes;
    bf16 = f32;
    f32.experts_dh = experts_dh_takes_f32;
    bf16.real = DT_BF16;
    bf16.gemm = gemm_takes;
    bf16.attn_dgrad = attn_dgrad_takes;
    bf16.experts_up = experts_up_takes;
    bf16.experts_dh = experts_dh_takes;
    bf16.experts_up_wgrad = experts_up_wgrad_takes;
    bf16.experts_down_wgrad = experts_down_wgrad_takes;
    return real == DT_F32 ? &f32 : real == DT_BF16 ? &bf16 : NULL;
}
