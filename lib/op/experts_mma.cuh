/* experts_mma.cuh -- the products of all experts on tensor cores, for bf16 rows of whole 64
 * elements.
 *
 * One persistent kernel, six modes.  A tile is 128 x 192 of an expert's product (128 x 128 in DH,
 * whose epilogue needs registers); counts are read on the device, so blocks find their tiles from
 * the row map.  The two computing warpgroups of a block take turns: while one multiplies, the other
 * has the epilogue (experts_finish.cuh), which applies the activation, or its gradient, to the sums
 * in registers.  Where K is long the epilogue matters less than what L2 must deliver, and they join
 * in a tile of 256 rows.
 *
 * Operands come in boxes by the copy engine.  Rows that were sent are gathered while they are
 * copied or, where K is long or runs over them, laid in the order of the map first, since a box is
 * then faster than threads that copy.
 *
 *   mode      A                  B                    K       out
 *   UP        x[row] (.,D)       up_e (2F,D)          D       h, a; N/2 columns of each half of h
 *   DOWN      a (M,F)            down_e (D,F)         F       y
 *   DH        dout[row] (.,D)    down_e (D,F)^T       D       dh, a, parts of dgate
 *   DX        dh (M,2F)          up_e (2F,D)^T        2F      dx
 *   UP_W      dh (M,2F)^T        x[row]^T             rows    dw (E,2F,D), written or added to
 *   DOWN_W    dout[row]^T        a^T                  rows    dw (E,D,F), as well
 *
 * Bound: tensor cores; 77 operations a byte copied from L2, 110 when joined. */
#ifndef EXPERTS_MMA_CUH
#define EXPERTS_MMA_CUH

#include "experts.cuh"

#ifdef REAL_BF16
#include "stages.cuh"

enum mma_mode { UP, DOWN, DH, DX, UP_W, DOWN_W };

enum {
    HALF_M = 128, /* rows of a warpgroup */
    TILE_K = 64,
    PANEL = 1024,               /* rows of A that share what comes of B while both are in L2 */
    HALF_BYTES = HALF_M * 128,  /* of a stage */
    BLOCK_BYTES = TILE_K * 128, /* of an operand with K along its rows: 64 columns */
    LONG = 48                   /* steps from which on warpgroups join */
};

struct mma_args {
    CUtensorMap a_map, b_map;
    const void *in;  /* (n,D) what A is gathered from, in place of a_map */
    void *out, *act; /* h, y, dh, dx or dw; a */
    const void *h, *gate;
    float *part; /* (tiles across F, M) parts of dgate; or (blocks, warps) of sums of squares */
    struct map r;
    int m, n, k; /* of an expert's product: m of weight gradients, k of the others */
    int64_t part_ld;
    int coarse, add; /* as in struct grad */
};

template <int MODE, int JOINT>
struct traits {
    static constexpr int wgrad = MODE == UP_W || MODE == DOWN_W;
    static constexpr int at = wgrad, bt = wgrad || MODE == DH || MODE == DX; /* K along rows */
    static constexpr int gathers = (MODE == UP || MODE == DH) && !JOINT;     /* A */
    static constexpr int halves = JOINT ? 2 : 1, m = halves * HALF_M;        /* rows of a tile */
    static constexpr int n = MODE == DH ? 128 : 192;                         /* and columns */
    static constexpr int cols = MODE == UP ? n / 2 : n; /* of the product's n that it covers */
    static constexpr int sums = n / 2;                  /* of a thread, for 64 rows */
    static constexpr int a_bytes = m * 128, b_bytes = n * 128, bytes = a_bytes + b_bytes;
    static constexpr int depth = (JOINT ? 229376 : 228352) / bytes, shared = depth * bytes + 1024;
    static constexpr int experts = JOINT ? LONG_EXPERTS : 1024; /* at most */
    using ring = stages<depth>;
};

struct mma_tile {
    int expert, i0, j0, steps; /* i0: row of the map, or of the weight */
    int begin, end;            /* of the expert's rows */
    int halves;                /* that are there */
};

#include "experts_finish.cuh"

static __device__ __forceinline__ int across(int n, int tile)
{
    return (n + tile - 1) / tile;
}

/* first (E+1): before each expert, how many tiles of `m` rows the others have.  One warp. */
static __device__ __forceinline__ void count_tiles(int *first, const struct map &r, int m)
{
    int sum = 0, lane = threadIdx.x % 32;
    for (int e0 = 0; e0 < r.e; e0 += 32) {
        int e = e0 + lane, n = e < r.e ? across(r.at[e + 1] - r.at[e], m) : 0, x = n;
#pragma unroll
        for (int i = 1; i < 32; i *= 2) {
            int before = __shfl_up_sync(~0u, x, i);
            x += lane >= i ? before : 0;
        }
        if (e < r.e)
            first[e] = sum + x - n;
        sum += __shfl_sync(~0u, x, 31);
    }
    if (lane == 0)
        first[r.e] = sum;
}

template <typename t>
static __device__ __forceinline__ int tile_count(const mma_args &g, const int *first)
{
    return (t::wgrad ? g.r.e * across(g.m, t::m) : first[g.r.e]) * across(g.n, t::cols);
}

/* Tile number i: expert by expert, in an expert panel by panel, in a panel down before across. */
template <typename t>
static __device__ __forceinline__ mma_tile tile_at(const mma_args &g, const int *first, int i)
{
    const int panel = PANEL / t::m;
    int wide = across(g.n, t::cols), tall = across(g.m, t::m);
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
    int top = i / (panel * wide) * panel, high = MIN(panel, tall - top);
    i -= top * wide;
    x.i0 = (top + i % high) * t::m;
    x.halves = x.i0 + HALF_M < (t::wgrad ? g.m : x.end - x.begin) ? t::halves : 1;
    x.i0 += t::wgrad ? 0 : x.begin;
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
template <int MODE, typename t>
static __device__ __forceinline__ void copy_boxes(const mma_args &g, const mma_tile &x, int s,
                                                  uint32_t a, uint64_t *full)
{
    uint32_t b = a + t::a_bytes;
    int k = s * TILE_K, row = t::wgrad ? x.begin : x.expert * (t::bt ? g.k : g.n);
    if (!elected())
        return;
    barrier_arrive_bytes(full, t::b_bytes + (t::gathers ? 0
                                             : t::wgrad ? t::a_bytes
                                                        : x.halves * HALF_BYTES));
    if (t::at)
        copy_box(a, &g.a_map, 0, x.begin + k, x.i0 / 64, full);
    for (int i = 0; i < t::halves && !t::at && !t::gathers; i++)
        if (i < x.halves)
            copy_box(a + i * HALF_BYTES, &g.a_map, k, x.i0 + i * HALF_M, 0, full);
    if (MODE == UP)
        copy_box(b, &g.b_map, k, x.j0, x.expert * 2, full);
    else if (t::bt)
        copy_box(b, &g.b_map, 0, row + k, x.j0 / 64, full);
    else
        copy_box(b, &g.b_map, k, row + x.j0, 0, full);
}

/* What is gathered is copied by all of the warpgroup, what comes in boxes by one thread.  Rows past
 * an expert's last are not copied, since they only reach sums that nobody keeps. */
template <int MODE, typename t>
static __device__ __forceinline__ void fill(const mma_args &g, const int *first,
                                            typename t::ring *ring, uint32_t tiles)
{
    int at = 0, p = threadIdx.x, r0 = p / 8, all = uniform(tile_count<t>(g, first));
    for (int i = blockIdx.x; i < all; i += gridDim.x) {
        mma_tile x = tile_at<t>(g, first, i);
        uint32_t row[t::m / 16], live = 0; /* in 16 bytes; the thread has every 16th row */
        x.expert = uniform(x.expert), x.i0 = uniform(x.i0), x.j0 = uniform(x.j0);
        x.steps = uniform(x.steps), x.begin = uniform(x.begin), x.halves = uniform(x.halves);
#pragma unroll
        for (int j = 0; j < t::m / 16 && t::gathers; j++) {
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
                copy_boxes<MODE, t>(g, x, s, tile, &ring->full[stage]);
            if constexpr (t::gathers) {
#pragma unroll
                for (int j = 0; j < t::m / 16; j++)
                    copy16(tile + swizzled(r0, p % 8) + j * 2048,
                           (const uint4 *)g.in + (row[j] + s * (TILE_K / 8)),
                           live >> j & 1 ? 16 : 0);
                copies_arrive(&ring->full[stage]);
            }
        }
    }
}

/* d (128,N) = A B over all steps of a tile, from stage number `at` on; called by a warpgroup. half:
 * which of A's rows. */
template <typename t>
static __device__ __forceinline__ void multiply(float d[2][t::sums], typename t::ring *ring,
                                                uint32_t tiles, int at, int steps, int half)
{
    for (int s = 0; s < steps; s++) {
        uint32_t stage = tiles + stage_get(ring, at + s) * t::bytes;
        uint32_t a = stage + half * HALF_BYTES, b = stage + t::a_bytes;
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

/* The tiles of one of the two warpgroups: every other one, or its half of each. */
template <int MODE, typename t>
static __device__ __forceinline__ void take(const mma_args &g, const int *first,
                                            typename t::ring *ring, uint32_t tiles, int me)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, at = 0, turn = 0;
    int all = tile_count<t>(g, first), half = t::halves > 1 ? me : 0;
    for (int i = blockIdx.x; i < all; i += gridDim.x, turn ^= 1) {
        mma_tile x = tile_at<t>(g, first, i);
        if (half < x.halves && (t::halves > 1 || turn == me)) {
            float d[2][t::sums];
            if (t::halves == 1 && i >= gridDim.x)
                turn_wait(me);
            multiply<t>(d, ring, tiles, at, x.steps, half);
            if (t::halves == 1 && i + gridDim.x < all)
                turn_pass(me);
            wgmma_wait<0>();
            if (x.steps)
                stage_free(ring, at + x.steps - 1);
#pragma unroll
            for (int b = 0; b < 2; b++) {
                if (!x.steps) /* a weight of an expert without rows */
                    for (int c = 0; c < t::sums; c++)
                        d[b][c] = 0;
                finish<MODE, t::n>(g, x, d[b], x.i0 + half * HALF_M + b * 64 + warp * 16 + lane / 4,
                                   x.j0 + lane % 4 * 2);
            }
        } else if (t::halves > 1) {
            for (int s = 0; s < x.steps; s++) {
                stage_get(ring, at + s);
                stage_free(ring, at + s);
            }
        }
        at += x.steps;
    }
}

template <int MODE, int JOINT>
static __global__ void __launch_bounds__(ROLES, 1) mma_kernel(__grid_constant__ const mma_args g)
{
    using t = traits<MODE, JOINT>;
    __shared__ typename t::ring ring;
    __shared__ int first[t::wgrad ? 1 : t::experts + 1];
    uint32_t tiles = shared_addr(shared_tiles());
    int role = threadIdx.x / 128;
    if (!t::wgrad && threadIdx.x < 32)
        count_tiles(first, g.r, t::m);
    stages_init(&ring, t::gathers ? FILLERS + 1 : 1, t::halves);
    if (role == 0) {
        registers_less<FILLER_REGISTERS>();
        if (t::gathers || threadIdx.x < 32)
            fill<MODE, t>(g, first, &ring, tiles);
    } else {
        registers_more<TAKER_REGISTERS>();
        take<MODE, t>(g, first, &ring, tiles, role - 1);
    }
}

template <int MODE, int JOINT>
static void mma_launch(struct lane *l, const char *name, const mma_args &g)
{
    using t = traits<MODE, JOINT>;
    static int raised;
    if (!raised)
        cu(cudaFuncSetAttribute(mma_kernel<MODE, JOINT>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, t::shared));
    raised = 1;
    mma_kernel<MODE, JOINT><<<cuda_lane(l)->processors, ROLES, t::shared, stream(l)>>>(g);
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
    return d % 64 == 0 && f % 64 == 0 && r.e <= 1024 &&
           ((uintptr_t)p | (uintptr_t)q | (uintptr_t)o) % 16 == 0;
}

enum { ANY_ROWS = 1 << 30 }; /* of a tensor by the row map: its rows are known on the device */

/* Of a product: A (rows by the map, a_cols), or what it is gathered from; B (b_rows,b_cols), a
 * weight or, in weight gradients, rows by the map too. */
template <int MODE>
static inline void mma_run(struct lane *l, const char *name, mma_args g, int joint, const void *a,
                           int64_t a_cols, const void *b, int64_t b_rows, int64_t b_cols)
{
    using t = traits<MODE, 0>;
    g.in = a;
    if (joint || !t::gathers)
        g.a_map = t::at ? blocks_map(a, ANY_ROWS, a_cols, TILE_K, HALF_M / 64 * (1 + joint))
                        : rows_map(a, ANY_ROWS, a_cols, HALF_M);
    if (MODE == UP) { /* (E, 2 halves, F, D) */
        cuuint64_t size[3] = {(cuuint64_t)b_cols, (cuuint64_t)(b_rows / g.r.e / 2),
                              (cuuint64_t)g.r.e * 2};
        cuuint64_t stride[2] = {(cuuint64_t)b_cols * 2, size[1] * (cuuint64_t)b_cols * 2};
        g.b_map = box_map(b, size, stride, t::cols, 2);
    } else {
        g.b_map = t::bt ? blocks_map(b, b_rows, b_cols, TILE_K, t::n / 64)
                        : rows_map(b, b_rows, b_cols, t::n);
    }
    if (joint)
        mma_launch<MODE, 1>(l, name, g);
    else
        mma_launch<MODE, 0>(l, name, g);
}

/* Sums of squares of a gradient: each warp adds up those of its tiles, which are the same ones
 * every time, and the warps' are added in order. */
static __global__ void squares_kernel(stat *sum, const float *part, int n)
{
    float all = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        all += part[i];
    all = block_sum(all);
    if (threadIdx.x == 0)
        *sum += all;
}
static inline int square_parts(struct lane *l)
{
    return cuda_lane(l)->processors * (ROLES / 32);
}
static inline float *squares_take(struct lane *l, const void *squares)
{
    int64_t bytes = square_parts(l) * (int64_t)sizeof(float);
    float *part = squares ? (float *)arena_take(&l->scratch, bytes) : NULL;
    if (squares)
        cu(cudaMemsetAsync(part, 0, (size_t)bytes, stream(l)));
    return part;
}
static inline void squares_join(struct lane *l, void *squares, const float *part)
{
    if (!squares)
        return;
    squares_kernel<<<1, 256, 0, stream(l)>>>((stat *)squares, part, square_parts(l));
    launched("experts_wgrad", "%d", square_parts(l));
}

static inline int mma_up(struct lane *l, void *h, void *a, const void *x, const void *up,
                         const void *gate, struct map r, int64_t live, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int joint = experts_long(r.e, d);
    mma_args g = {};
    if (!whole(x, up, h, r, d, f))
        return 0;
    g.r = r, g.out = h, g.act = a, g.gate = gate;
    g.n = (int)f, g.k = (int)d;
    mma_run<UP>(l, "experts_up", g, joint, joint ? lay_rows(l, x, r, live, d) : x, d, up,
                r.e * 2 * f, d);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_down(struct lane *l, void *y, const void *a, const void *down, struct map r,
                           int64_t d, int64_t f)
{
    mma_args g = {};
    if (!whole(a, down, y, r, d, f))
        return 0;
    g.r = r, g.out = y;
    g.n = (int)d, g.k = (int)f;
    mma_run<DOWN>(l, "experts_down", g, experts_long(r.e, f), a, f, down, r.e * d, f);
    return 1;
}
static inline int mma_dh(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                         const void *down, const void *h, const void *gate, struct map r,
                         int64_t live, int64_t d, int64_t f)
{
    int parts = (int)ceil_div(f, traits<DH, 0>::n), joint = experts_long(r.e, d);
    struct arena_mark mark = arena_mark(&l->scratch);
    mma_args g = {};
    if (!whole(dout, down, dh, r, d, f))
        return 0;
    g.part_ld = live + (int64_t)r.e * (ROW_ALIGN - 1);
    g.part = (float *)arena_take(&l->scratch, parts * g.part_ld * (int64_t)sizeof *g.part);
    g.r = r, g.out = dh, g.act = a, g.h = h, g.gate = gate;
    g.n = (int)f, g.k = (int)d;
    mma_run<DH>(l, "experts_dh", g, joint, joint ? lay_rows(l, dout, r, live, d) : dout, d, down,
                r.e * d, f);
    dgate_kernel<<<cuda_lane(l)->processors * 4, 256, 0, stream(l)>>>((stat *)dgate, g.part, r,
                                                                      parts, g.part_ld);
    launched("experts_dh", "%d", parts);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_dx(struct lane *l, void *dx, const void *dh, const void *up, struct map r,
                         int64_t d, int64_t f)
{
    mma_args g = {};
    if (!whole(dh, up, dx, r, d, f))
        return 0;
    g.r = r, g.out = dx;
    g.n = (int)d, g.k = (int)(2 * f);
    mma_run<DX>(l, "experts_dx", g, experts_long(r.e, 2 * f), dh, 2 * f, up, r.e * 2 * f, d);
    return 1;
}
static inline int mma_up_wgrad(struct lane *l, struct grad dw, const void *dh, const void *x,
                               struct map r, int64_t live, int64_t d, int64_t f, void *squares)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    mma_args g = {};
    if (!whole(dh, x, dw.data, r, d, f))
        return 0;
    g.part = squares_take(l, squares);
    g.r = r, g.out = dw.data, g.coarse = dw.coarse, g.add = dw.add;
    g.m = (int)(2 * f), g.n = (int)d;
    mma_run<UP_W>(l, "experts_up_wgrad", g, experts_long(r.e, live / r.e), dh, 2 * f,
                  lay_rows(l, x, r, live, d), ANY_ROWS, d);
    squares_join(l, squares, g.part);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_down_wgrad(struct lane *l, struct grad dw, const void *dout, const void *a,
                                 struct map r, int64_t live, int64_t d, int64_t f, void *squares)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    mma_args g = {};
    if (!whole(dout, a, dw.data, r, d, f))
        return 0;
    g.part = squares_take(l, squares);
    g.r = r, g.out = dw.data, g.coarse = dw.coarse, g.add = dw.add;
    g.m = (int)d, g.n = (int)f;
    mma_run<DOWN_W>(l, "experts_down_wgrad", g, experts_long(r.e, live / r.e),
                    lay_rows(l, dout, r, live, d), d, a, ANY_ROWS, f);
    squares_join(l, squares, g.part);
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
