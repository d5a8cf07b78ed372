/* experts_few.cuh -- experts of a few rows each, for decoding: h, a and y as in experts.cu, in
 * bf16, by few.cuh.
 *
 * A block takes 16 rows of both halves of an expert's `up`, or 32 of its `down`, and all rows of
 * the expert, 16 at a time; what these read again of the weight comes from L2.  Experts without
 * rows get no blocks: the block finds the expert of its number among those with rows.  Bound:
 * memory, the touched experts read once. */
#ifndef EXPERTS_FEW_CUH
#define EXPERTS_FEW_CUH

#include "experts.cuh"
#include "few.cuh"

#ifdef REAL_BF16

enum { FEW_ROWS = 8 /* an expert has on average at most */, FEW_WARPS = 4 };

struct few_expert {
    int expert, at, rows; /* rows at .. at + rows of the map */
};

/* The i-th expert that has rows; without rows when there are not so many.  Every warp looks for
 * itself, at 128 experts at a time. */
static __device__ __forceinline__ few_expert expert_with_rows(const struct map &r, int i)
{
    enum { PARTS = 4 };
    int lane = threadIdx.x % 32;
    for (int x = 0; x < r.e; x += 32 * PARTS) {
        int rows[PARTS], at[PARTS];
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            int mine = x + 32 * p + lane, here = mine < r.e;
            rows[p] = here ? r.count[mine] : 0;
            at[p] = here ? r.at[mine] : 0;
        }
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            unsigned some = __ballot_sync(~0u, rows[p] > 0);
            unsigned found = __ballot_sync(~0u, rows[p] && __popc(some & ((1u << lane) - 1)) == i);
            if (found) {
                int from = __ffs(found) - 1;
                return {x + 32 * p + from, __shfl_sync(~0u, at[p], from),
                        __shfl_sync(~0u, rows[p], from)};
            }
            i -= __popc(some);
        }
    }
    return {};
}

struct few_args {
    const bf16 *in, *w;
    bf16 *out, *act; /* h or y (M,N); a */
    const stat *gate;
    struct map r;
    int n, k; /* rows of the expert's weight, or of half of it (up); what is summed over */
};

/* rows <= 8 NB rows of the map from m0 on; block x makes columns 16 x and on of both halves (UP),
 * or 32 x and on. */
template <int UP, int NB>
static __device__ __forceinline__ void few_tile(const few_args &g, int expert, int64_t m0, int rows)
{
    float d[2][NB][4], sum[2];
    int j0 = blockIdx.x * (UP ? 16 : 32), second = UP ? g.n : 16;
    const bf16 *w = g.w + ((int64_t)expert * (UP ? 2 : 1) * g.n + j0) * g.k;
    const bf16 *tile[2] = {w, UP || j0 + 16 < g.n ? w + (int64_t)second * g.k : w};
    auto row_of = [&](int i) { return i < rows ? g.in + source_row(g.r, m0 + i, UP) * g.k : NULL; };
    few_product<FEW_WARPS, 2, NB>(d, tile, g.k, row_of, g.k);
#pragma unroll
    for (int b = 0; b < NB; b++) {
        int i = 8 * b + threadIdx.x / 16, j = j0 + threadIdx.x % 16;
        few_join<FEW_WARPS, 2, NB>(sum, d, b);
        if (i >= rows)
            continue;
        if (UP) {
            bf16 *to = g.out + (m0 + i) * 2 * g.n + j;
            float gate = g.gate[g.r.source[m0 + i]];
            store(to, sum[0]);
            store(to + g.n, sum[1]);
            store(g.act + (m0 + i) * g.n + j, gate * sum[0] * sum[1] / (1 + __expf(-sum[0])));
        } else {
            bf16 *to = g.out + (m0 + i) * g.n + j;
            store(to, sum[0]);
            if (j0 + 16 < g.n)
                store(to + 16, sum[1]);
        }
    }
}

template <int UP>
static __global__ void __launch_bounds__(FEW_WARPS * 32, 4) few_experts_kernel(const few_args g)
{
    if (UP) /* the row map is the work of the kernel before; `down`, called after it, may read it */
        take_turn();
    else
        call_next();
    few_expert x = expert_with_rows(g.r, blockIdx.y);
    if (!x.rows)
        await_turn();
    for (int i = 0; i < x.rows; i += 16)
        if (x.rows - i <= 8)
            few_tile<UP, 1>(g, x.expert, x.at + i, x.rows - i);
        else
            few_tile<UP, 2>(g, x.expert, x.at + i, MIN(16, x.rows - i));
}

/* 1 when it has done the product; `live` rows at most are live. */
template <int UP>
static int few_experts(struct lane *l, const char *name, const few_args &g, int64_t live)
{
    if (live > (int64_t)FEW_ROWS * g.r.e || g.n % 16 || !few_rows(g.in, g.k, g.k) ||
        !few_rows(g.w, g.k, g.k))
        return 0;
    dim3 grid(blocks_of(g.n, UP ? 16 : 32), (unsigned)MIN(live, (int64_t)g.r.e));
    if (live)
        launch_early(l, few_experts_kernel<UP>, grid, FEW_WARPS * 32, g);
    launched(name, "%d,%d,%d", g.r.e, g.n, g.k);
    return 1;
}

static int few_up(struct lane *l, void *h, void *a, const void *x, const void *up, const void *gate,
                  struct map r, int64_t live, int64_t d, int64_t f)
{
    few_args g = {
        (const bf16 *)x, (const bf16 *)up, (bf16 *)h, (bf16 *)a, (const stat *)gate, r, (int)f,
        (int)d};
    return few_experts<1>(l, "experts_up", g, live);
}
static int few_down(struct lane *l, void *y, const void *a, const void *down, struct map r,
                    int64_t live, int64_t d, int64_t f)
{
    few_args g = {(const bf16 *)a, (const bf16 *)down, (bf16 *)y, NULL, NULL, r, (int)d, (int)f};
    return few_experts<0>(l, "experts_down", g, live);
}

#else
template <typename... T>
static inline int few_none(T...)
{
    return 0;
}
#define few_up   few_none
#define few_down few_none
#endif
#endif
