/* experts_mma.cuh -- the products of all experts on tensor cores, for bf16 rows of whole 64
 * elements.
 *
 * One persistent kernel, six modes.  A tile is 128 x 192 of an expert's product (128 x 128 in DH,
 * whose epilogue needs registers); counts are read on the device, so blocks find their tiles from
 * the row map.  Operands come in boxes by the copy engine.  Rows that were sent are gathered while
 * they are copied where K lies along them; where it runs over them they are laid in the order of
 * the map first, since there a box is twice as fast as threads that copy.  The epilogue
 * (experts_finish.cuh) applies the activation, or its gradient, to the sums in registers, while the
 * block's other warpgroup multiplies its own tile.
 *
 *   mode      A (128 rows)       B (N columns)        K       out
 *   UP        x[row] (.,D)       up_e (2F,D)          D       h, a; N/2 columns of each half of h
 *   DOWN      a (M,F)            down_e (D,F)         F       y
 *   DH        dout[row] (.,D)    down_e (D,F)^T       D       dh, a, parts of dgate
 *   DX        dh (M,2F)          up_e (2F,D)^T        2F      dx
 *   UP_W      dh (M,2F)^T        x[row]^T             rows    dw (E,2F,D), written or added to
 *   DOWN_W    dout[row]^T        a^T                  rows    dw (E,D,F), as well
 *
 * Bound: tensor cores; 77 operations a byte copied from L2. */
#ifndef EXPERTS_MMA_CUH
#define EXPERTS_MMA_CUH

#include "experts.cuh"

#ifdef REAL_BF16
#include "stages.cuh"

enum mma_mode { UP, DOWN, DH, DX, UP_W, DOWN_W };

enum {
    TILE_M = 128,
    TILE_K = 64,
    PANEL = 8,                  /* tiles of A that share those of B while both are in L2 */
    A_BYTES = TILE_M * 128,     /* of a stage */
    BLOCK_BYTES = TILE_K * 128, /* of an operand with K along its rows: 64 columns */
    SHARED = 224 << 10,         /* what the stages of a block may take */
    EXPERTS = 1024              /* at most */
};

struct mma_args {
    CUtensorMap a_map, b_map;
    const void *in;  /* (n,D) what A is gathered from, in place of a_map */
    void *out, *act; /* h, y, dh, dx or dw; a */
    const void *h, *gate;
    float *part; /* (tiles across F, M) parts of dgate */
    struct map r;
    int m, n, k; /* of an expert's product: m of weight gradients, k of the others */
    int64_t part_ld;
    int coarse, add; /* as in struct grad */
};

template <int MODE>
struct traits {
    static constexpr int wgrad = MODE == UP_W || MODE == DOWN_W;
    static constexpr int at = wgrad, bt = wgrad || MODE == DH || MODE == DX; /* K along rows */
    static constexpr int gathers = MODE == UP || MODE == DH;                 /* A */
    static constexpr int n = MODE == DH ? 128 : 192;                         /* columns of a tile */
    static constexpr int cols = MODE == UP ? n / 2 : n; /* of the product's n that it covers */
    static constexpr int sums = n / 2;                  /* of a thread, for 64 rows */
    static constexpr int b_bytes = n * 128, bytes = A_BYTES + b_bytes; /* of a stage */
    static constexpr int stages = (SHARED - 1024) / bytes, shared = stages * bytes + 1024;
};

struct mma_tile {
    int expert, i0, j0, steps; /* i0: row of the map, or of the weight */
    int begin, end;            /* of the expert's rows */
};

#include "experts_finish.cuh"

static __device__ __forceinline__ int across(int n, int tile)
{
    return (n + tile - 1) / tile;
}

/* first (E+1): tiles of rows before each expert. */
template <int MODE>
static __device__ __forceinline__ int tile_count(const mma_args &g, const int *first)
{
    using t = traits<MODE>;
    return (t::wgrad ? g.r.e * across(g.m, TILE_M) : first[g.r.e]) * across(g.n, t::cols);
}

/* Tile number i: expert by expert, in an expert panel by panel, in a panel down before across. */
template <int MODE>
static __device__ __forceinline__ mma_tile tile_at(const mma_args &g, const int *first, int i)
{
    using t = traits<MODE>;
    int wide = across(g.n, t::cols), tall = across(g.m, TILE_M);
    mma_tile x;
    if (t::wgrad) {
        x.expert = i / (tall * wide);
        i -= x.expert * tall * wide;
    } else {
        int low = 0, high = g.r.e; /* first[low] <= i / wide < first[high] */
        while (high - low > 1) {
            int mid = (low + high) / 2;
            if (first[mid] <= i / wide)
                low = mid;
            else
                high = mid;
        }
        x.expert = low;
        i -= first[low] * wide;
        tall = first[low + 1] - first[low];
    }
    x.begin = g.r.at[x.expert];
    x.end = x.begin + g.r.count[x.expert];
    int top = i / (PANEL * wide) * PANEL, high = MIN(PANEL, tall - top);
    i -= top * wide;
    x.i0 = (top + i % high) * TILE_M + (t::wgrad ? 0 : x.begin);
    x.j0 = i / high * t::cols;
    x.steps = across(t::wgrad ? x.end - x.begin : g.k, TILE_K);
    return x;
}

/* ---- filling stages ---- */

static __device__ __forceinline__ int uniform(int x)
{
    return __shfl_sync(~0u, x, 0);
}

/* Step s of what comes in boxes.  Called by a warp with a tile that the compiler knows to be the
 * same in all lanes. */
template <int MODE>
static __device__ __forceinline__ void copy_boxes(const mma_args &g, const mma_tile &x, int s,
                                                  uint32_t a, uint64_t *full)
{
    using t = traits<MODE>;
    uint32_t b = a + A_BYTES;
    int k = s * TILE_K, row = t::wgrad ? x.begin : x.expert * (t::bt ? g.k : g.n);
    if (!elected())
        return;
    barrier_arrive_bytes(full, t::gathers ? t::b_bytes : t::bytes);
    if (t::at)
        copy_box(a, &g.a_map, 0, x.begin + k, x.i0 / 64, full);
    else if (!t::gathers)
        copy_box(a, &g.a_map, k, x.i0, 0, full);
    if (MODE == UP)
        copy_box(b, &g.b_map, k, x.j0, x.expert * 2, full);
    else if (t::bt)
        copy_box(b, &g.b_map, 0, row + k, x.j0 / 64, full);
    else
        copy_box(b, &g.b_map, k, row + x.j0, 0, full);
}

/* What is gathered is copied by all of the warpgroup, what comes in boxes by one thread.  Rows past
 * an expert's last are not copied, since they only reach sums that nobody keeps. */
template <int MODE>
static __device__ __forceinline__ void fill(const mma_args &g, const int *first,
                                            stages<traits<MODE>::stages> *ring, uint32_t tiles)
{
    using t = traits<MODE>;
    int at = 0, p = threadIdx.x, r0 = p / 8, all = uniform(tile_count<MODE>(g, first));
    for (int i = blockIdx.x; i < all; i += gridDim.x) {
        mma_tile x = tile_at<MODE>(g, first, i);
        uint32_t row[TILE_M / 16], live = 0; /* in 16 bytes; the thread has every 16th row */
        x.expert = uniform(x.expert), x.i0 = uniform(x.i0), x.j0 = uniform(x.j0);
        x.steps = uniform(x.steps), x.begin = uniform(x.begin);
#pragma unroll
        for (int j = 0; j < TILE_M / 16 && t::gathers; j++) {
            int m = x.i0 + r0 + 16 * j;
            live |= (uint32_t)(m < x.end) << j;
            row[j] =
                (uint32_t)g.r.source[MIN(m, x.end - 1)] / (uint32_t)g.r.k * (uint32_t)(g.k / 8) +
                p % 8;
        }
        for (int s = 0; s < x.steps; s++, at++) {
            int stage = stage_space(ring, at);
            uint32_t tile = tiles + stage * t::bytes;
            if (p < 32)
                copy_boxes<MODE>(g, x, s, tile, &ring->full[stage]);
            if constexpr (t::gathers) {
#pragma unroll
                for (int j = 0; j < TILE_M / 16; j++)
                    copy16(tile + swizzled(r0, p % 8) + j * 2048,
                           (const uint4 *)g.in + (row[j] + s * (TILE_K / 8)),
                           live >> j & 1 ? 16 : 0);
                copies_arrive(&ring->full[stage]);
            }
        }
    }
}

/* d (128,N) = A B over all steps of a tile, from stage number `at` on; called by a warpgroup. */
template <int MODE>
static __device__ __forceinline__ void multiply(float d[2][traits<MODE>::sums],
                                                stages<traits<MODE>::stages> *ring, uint32_t tiles,
                                                int at, int steps)
{
    using t = traits<MODE>;
    for (int s = 0; s < steps; s++) {
        uint32_t a = tiles + stage_get(ring, at + s) * t::bytes, b = a + A_BYTES;
        if (t::gathers)
            fence_async(); /* copies of 16 bytes are ordinary writes */
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                wgmma<t::n, t::at, t::bt>(
                    d[i], tile_desc(a + i * BLOCK_BYTES + (t::at ? k * 2048 : k * 32), BLOCK_BYTES),
                    tile_desc(b + (t::bt ? k * 2048 : k * 32), BLOCK_BYTES), s + k > 0);
        wgmma_commit();
        if (s > 0) {
            wgmma_wait<1>();
            stage_free(ring, at + s - 1);
        }
    }
}

/* The tiles of one of the two warpgroups. */
template <int MODE>
static __device__ __forceinline__ void take(const mma_args &g, const int *first,
                                            stages<traits<MODE>::stages> *ring, uint32_t tiles,
                                            int me)
{
    using t = traits<MODE>;
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, at = 0, turn = 0;
    int all = tile_count<MODE>(g, first);
    for (int i = blockIdx.x; i < all; i += gridDim.x, turn ^= 1) {
        mma_tile x = tile_at<MODE>(g, first, i);
        if (turn == me) {
            float d[2][t::sums];
            if (i >= gridDim.x)
                turn_wait(me);
            multiply<MODE>(d, ring, tiles, at, x.steps);
            if (i + gridDim.x < all)
                turn_pass(me);
            wgmma_wait<0>();
            if (x.steps)
                stage_free(ring, at + x.steps - 1);
#pragma unroll
            for (int b = 0; b < 2; b++) {
                if (!x.steps) /* a weight of an expert without rows */
                    for (int c = 0; c < t::sums; c++)
                        d[b][c] = 0;
                finish<MODE>(g, x, d[b], x.i0 + b * 64 + warp * 16 + lane / 4, x.j0 + lane % 4 * 2);
            }
        }
        at += x.steps;
    }
}

template <int MODE>
static __global__ void __launch_bounds__(ROLES, 1) mma_kernel(__grid_constant__ const mma_args g)
{
    using t = traits<MODE>;
    __shared__ stages<t::stages> ring;
    __shared__ int first[t::wgrad ? 1 : EXPERTS + 1]; /* (E+1) tiles of rows before each expert */
    uint32_t tiles = shared_addr(shared_tiles());
    int role = threadIdx.x / 128;
    for (int e = threadIdx.x; e <= g.r.e && !t::wgrad; e += ROLES)
        first[e] = g.r.at[e] / TILE_M;
    stages_init(&ring, t::gathers ? FILLERS + 1 : 1);
    if (role == 0) {
        registers_less<FILLER_REGISTERS>();
        if (t::gathers || threadIdx.x < 32)
            fill<MODE>(g, first, &ring, tiles);
    } else {
        registers_more<TAKER_REGISTERS>();
        take<MODE>(g, first, &ring, tiles, role - 1);
    }
}

template <int MODE>
static void mma_run(struct lane *l, const char *name, const mma_args &g)
{
    static int raised;
    if (!raised)
        cu(cudaFuncSetAttribute(mma_kernel<MODE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                traits<MODE>::shared));
    raised = 1;
    mma_kernel<MODE><<<cuda_lane(l)->processors, ROLES, traits<MODE>::shared, stream(l)>>>(g);
    launched(name, "%d,%d,%d,%d", g.r.e, g.m, g.n, g.k);
}

/* Rows in the order of the map: out[m] = in[row of m], padding 0; a warp a row. */

static __global__ void lay_kernel(uint4 *out, const uint4 *in, struct map r, int units)
{
    int lane = threadIdx.x % 32, warps = gridDim.x * blockDim.x / 32;
    for (int m = (blockIdx.x * blockDim.x + threadIdx.x) / 32; m < r.at[r.e]; m += warps) {
        int choice = r.source[m];
        const uint4 *from = in + (int64_t)(choice / r.k) * units;
#pragma unroll 8
        for (int j = lane; j < units; j += 32)
            __stcs(&out[(int64_t)m * units + j], choice < 0 ? make_uint4(0, 0, 0, 0) : from[j]);
    }
}

/* In scratch of the lane; live: as in op_list.h. */
static inline const void *lay_rows(struct lane *l, const void *x, struct map r, int64_t live,
                                   int64_t d)
{
    int64_t rows = live + (int64_t)r.e * (ROW_ALIGN - 1);
    void *out = arena_take(&l->scratch, rows * d * (int64_t)sizeof(real));
    lay_kernel<<<cuda_lane(l)->processors * 8, 256, 0, stream(l)>>>((uint4 *)out, (const uint4 *)x,
                                                                    r, (int)(d / 8));
    launched("experts", "%lld,%lld", (long long)live, (long long)d);
    return out;
}

/* dgate[choice] from the parts of its row. */
static __global__ void dgate_kernel(stat *dgate, const float *part, struct map r, int parts,
                                    int64_t ld)
{
    for (int64_t m = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; m < r.at[r.e];
         m += (int64_t)gridDim.x * blockDim.x) {
        float sum = 0;
        if (r.source[m] < 0)
            continue;
        for (int i = 0; i < parts; i++)
            sum += part[i * ld + m];
        dgate[r.source[m]] = sum;
    }
}

/* Rows of whole 64 elements, and 16-byte accesses. */
static inline int whole(const void *p, const void *q, const void *o, struct map r, int64_t d,
                        int64_t f)
{
    return d % 64 == 0 && f % 64 == 0 && r.e <= EXPERTS &&
           ((uintptr_t)p | (uintptr_t)q | (uintptr_t)o) % 16 == 0;
}

enum { ANY_ROWS = 1 << 30 }; /* of a tensor by the row map: its rows are known on the device */

/* A is by the row map, or what it is gathered from; B is too in weight gradients, elsewhere it is a
 * weight. */
template <int MODE>
static inline mma_args mma_operands(struct map r, const void *a, int64_t a_cols, const void *b,
                                    int64_t b_rows, int64_t b_cols)
{
    using t = traits<MODE>;
    mma_args g = {};
    g.r = r, g.in = a;
    if (!t::gathers)
        g.a_map = t::at ? blocks_map(a, ANY_ROWS, a_cols, TILE_K, TILE_M / 64)
                        : rows_map(a, ANY_ROWS, a_cols, TILE_M);
    if (MODE == UP) { /* (E, 2 halves, F, D) */
        cuuint64_t size[3] = {(cuuint64_t)b_cols, (cuuint64_t)(b_rows / r.e / 2),
                              (cuuint64_t)r.e * 2};
        cuuint64_t stride[2] = {(cuuint64_t)b_cols * 2, size[1] * (cuuint64_t)b_cols * 2};
        g.b_map = box_map(b, size, stride, t::cols, 2);
    } else {
        g.b_map = t::bt ? blocks_map(b, b_rows, b_cols, TILE_K, t::n / 64)
                        : rows_map(b, b_rows, b_cols, t::n);
    }
    return g;
}

static inline int mma_up(struct lane *l, void *h, void *a, const void *x, const void *up,
                         const void *gate, struct map r, int64_t live, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole(x, up, h, r, d, f))
        return 0;
    mma_args g = mma_operands<UP>(r, x, d, up, r.e * 2 * f, d);
    g.out = h, g.act = a, g.gate = gate;
    g.n = (int)f, g.k = (int)d;
    mma_run<UP>(l, "experts_up", g);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_down(struct lane *l, void *y, const void *a, const void *down, struct map r,
                           int64_t d, int64_t f)
{
    if (!whole(a, down, y, r, d, f))
        return 0;
    mma_args g = mma_operands<DOWN>(r, a, f, down, r.e * d, f);
    g.out = y;
    g.n = (int)d, g.k = (int)f;
    mma_run<DOWN>(l, "experts_down", g);
    return 1;
}
static inline int mma_dh(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                         const void *down, const void *h, const void *gate, struct map r,
                         int64_t live, int64_t d, int64_t f)
{
    int parts = (int)ceil_div(f, traits<DH>::n);
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole(dout, down, dh, r, d, f))
        return 0;
    mma_args g = mma_operands<DH>(r, dout, d, down, r.e * d, f);
    g.part_ld = live + (int64_t)r.e * (ROW_ALIGN - 1);
    g.part = (float *)arena_take(&l->scratch, parts * g.part_ld * (int64_t)sizeof *g.part);
    g.out = dh, g.act = a, g.h = h, g.gate = gate;
    g.n = (int)f, g.k = (int)d;
    mma_run<DH>(l, "experts_dh", g);
    dgate_kernel<<<cuda_lane(l)->processors * 4, 256, 0, stream(l)>>>((stat *)dgate, g.part, r,
                                                                      parts, g.part_ld);
    launched("experts_dh", "%d", parts);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_dx(struct lane *l, void *dx, const void *dh, const void *up, struct map r,
                         int64_t d, int64_t f)
{
    if (!whole(dh, up, dx, r, d, f))
        return 0;
    mma_args g = mma_operands<DX>(r, dh, 2 * f, up, r.e * 2 * f, d);
    g.out = dx;
    g.n = (int)d, g.k = (int)(2 * f);
    mma_run<DX>(l, "experts_dx", g);
    return 1;
}
static inline int mma_up_wgrad(struct lane *l, struct grad dw, const void *dh, const void *x,
                               struct map r, int64_t live, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole(dh, x, dw.data, r, d, f))
        return 0;
    mma_args g = mma_operands<UP_W>(r, dh, 2 * f, lay_rows(l, x, r, live, d), ANY_ROWS, d);
    g.out = dw.data, g.coarse = dw.coarse, g.add = dw.add;
    g.m = (int)(2 * f), g.n = (int)d;
    mma_run<UP_W>(l, "experts_up_wgrad", g);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_down_wgrad(struct lane *l, struct grad dw, const void *dout, const void *a,
                                 struct map r, int64_t live, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole(dout, a, dw.data, r, d, f))
        return 0;
    mma_args g = mma_operands<DOWN_W>(r, lay_rows(l, dout, r, live, d), d, a, ANY_ROWS, f);
    g.out = dw.data, g.coarse = dw.coarse, g.add = dw.add;
    g.m = (int)d, g.n = (int)f;
    mma_run<DOWN_W>(l, "experts_down_wgrad", g);
    arena_back(&l->scratch, mark);
    return 1;
}

#else /* f32 has no tensor-core path that keeps f32's digits */
template <typename... T>
static inline int mma_none(T...)
{
    return 0;
}
#define mma_up         mma_none
#define mma_down       mma_none
#define mma_dh         mma_none
#define mma_dx         mma_none
#define mma_up_wgrad   mma_none
#define mma_down_wgrad mma_none
#endif
#endif
