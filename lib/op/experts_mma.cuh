/* experts_mma.cuh -- the products of all experts on tensor cores, for bf16 rows of whole 64 elements.
 *
 * One persistent kernel, six modes.  A tile is 128 x 256 of an expert's product; counts are read on the
 * device, so blocks find their tiles from the row map.  The copier gathers rows while it copies them; the
 * epilogue applies the activation, or its gradient, to the sums in registers.
 *
 *   mode      A (128 rows)       B (256 columns)      K       out
 *   UP        x[row] (.,D)       up_e (2F,D)          D       h, a; 128 columns of each half of h
 *   DOWN      a (M,F)            down_e (D,F)         F       y
 *   DH        dout[row] (.,D)    down_e (D,F)^T       D       dh, a, parts of dgate
 *   DX        dh (M,2F)          up_e (2F,D)^T        2F      dx
 *   UP_W      dh (M,2F)^T        x[row]^T             rows    dw += (E,2F,D)
 *   DOWN_W    dout[row]^T        a^T                  rows    dw += (E,D,F)
 *
 * Bound: tensor cores; 96 operations a byte copied from L2. */
#ifndef EXPERTS_MMA_CUH
#define EXPERTS_MMA_CUH

#include "experts.cuh"

enum mma_mode { UP, DOWN, DH, DX, UP_W, DOWN_W };

struct mma_args {
    const void *a, *b;
    void *out, *act;   /* h, y, dh, dx or dw; a */
    const void *h, *gate;
    float *part;       /* (tiles across F, M) parts of dgate */
    struct map r;
    int m, n, k;       /* of an expert's product: m of weight gradients, k of the others */
    int64_t part_ld;
};

#ifdef REAL_BF16
#include "ring.cuh"

enum { TILE_M = 128, TILE_N = 256, TILE_K = 64, A_BYTES = TILE_M * 128, STAGE_BYTES = A_BYTES + TILE_N * 128 };
enum { MMA_SHARED = STAGES * STAGE_BYTES + 1024 };

template <int MODE> struct traits {
    static constexpr int wgrad = MODE == UP_W || MODE == DOWN_W;
    static constexpr int at = wgrad, bt = wgrad || MODE == DH || MODE == DX;
    static constexpr int gather_a = MODE == UP || MODE == DH || MODE == DOWN_W, gather_b = MODE == UP_W;
    static constexpr int cols = MODE == UP ? TILE_N / 2 : TILE_N; /* of n that a tile covers */
};

struct mma_tile {
    int expert, i0, j0, steps; /* i0: row of the map, or of the weight */
    int begin, end;            /* of the expert's rows */
};

template <int MODE> static __device__ __forceinline__ int64_t tile_count(const mma_args &g)
{
    int64_t across = (g.n + traits<MODE>::cols - 1) / traits<MODE>::cols;
    return traits<MODE>::wgrad ? (int64_t)g.r.e * ((g.m + TILE_M - 1) / TILE_M) * across
                               : (int64_t)(g.r.at[g.r.e] / TILE_M) * across;
}

/* Tile number i; steps 0 where there is nothing to do. */
template <int MODE> static __device__ __forceinline__ mma_tile tile_at(const mma_args &g, int64_t i)
{
    using t = traits<MODE>;
    int across = (g.n + t::cols - 1) / t::cols;
    mma_tile x;
    x.j0 = (int)(i % across) * t::cols;
    int64_t down = i / across;
    if (t::wgrad) {
        int tall = (g.m + TILE_M - 1) / TILE_M;
        x.expert = (int)(down / tall);
        x.i0 = (int)(down % tall) * TILE_M;
    } else {
        x.i0 = (int)down * TILE_M;
        x.expert = expert_of(g.r, x.i0);
    }
    x.begin = g.r.at[x.expert];
    x.end = x.begin + g.r.count[x.expert];
    x.steps = ((t::wgrad ? x.end - x.begin : g.k) + TILE_K - 1) / TILE_K;
    return x;
}

static __device__ __forceinline__ int row_from(const struct map &r, int m, int gathered)
{
    return gathered ? (int)((unsigned)r.source[m] / (unsigned)r.k) : m;
}

/* Rows of the map as rows of shared tiles, K along a row. */
template <int MODE>
static __device__ __forceinline__ int copy_rows(const mma_args &g, ring *ring, char *tiles, const mma_tile &x,
                                                int at, int p)
{
    using t = traits<MODE>;
    int r0 = p / 8, part = p % 8;
    const bf16 *a[TILE_M / 16];
    int live = 0;
#pragma unroll
    for (int i = 0; i < TILE_M / 16; i++) {
        int m = x.i0 + r0 + 16 * i, there = m < x.end;
        live |= there << i;
        a[i] = (const bf16 *)g.a + (int64_t)(there ? row_from(g.r, m, t::gather_a) : 0) * g.k + part * 8;
    }
    const bf16 *b = (const bf16 *)g.b + (int64_t)x.expert * (MODE == UP ? 2 : 1) * g.n * g.k + part * 8;
    b += t::bt ? (int64_t)r0 * g.n + x.j0 : (int64_t)(x.j0 + r0) * g.k;
    uint32_t to = swizzled(r0, part);
    for (int s = 0; s < x.steps; s++) {
        uint32_t tile = shared_addr(tiles + ring_space(ring, at) * STAGE_BYTES) + to;
#pragma unroll
        for (int i = 0; i < TILE_M / 16; i++)
            copy16(tile + i * 2048, a[i] + s * TILE_K, live >> i & 1 ? 16 : 0);
#pragma unroll
        for (int i = 0; i < TILE_N / 16; i++) {
            const bf16 *from;
            int there;
            if (t::bt) { /* rows of K, blocks of 64 columns */
                there = x.j0 + i / 4 * 64 < g.n;
                from = b + (int64_t)(s * TILE_K + i % 4 * 16) * g.n + i / 4 * 64;
            } else {
                int second = MODE == UP && i >= 8, j = 16 * i - (second ? 128 : 0);
                there = x.j0 + r0 + j < g.n;
                from = b + (int64_t)(j + (second ? g.n : 0)) * g.k + s * TILE_K;
            }
            copy16(tile + A_BYTES + i * 2048, there ? from : (const bf16 *)g.b, there ? 16 : 0);
        }
        at = ring_put(ring, at);
    }
    return at;
}

/* Rows of the map along K: both operands have K as their rows. */
template <int MODE>
static __device__ __forceinline__ int copy_steps(const mma_args &g, ring *ring, char *tiles, const mma_tile &x,
                                                 int at, int p)
{
    using t = traits<MODE>;
    int r0 = p / 8, part = p % 8, row[4];
    const bf16 *a = (const bf16 *)g.a + x.i0 + part * 8, *b = (const bf16 *)g.b + x.j0 + part * 8;
    uint32_t to = swizzled(r0, part);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int m = x.begin + r0 + 16 * i;
        row[i] = m < x.end ? row_from(g.r, m, 1) : 0;
    }
    for (int s = 0; s < x.steps; s++) {
        int m0 = x.begin + s * TILE_K + r0, next[4];
#pragma unroll
        for (int i = 0; i < 4; i++) { /* of the next step, so that nobody waits for them */
            int m = m0 + TILE_K + 16 * i;
            next[i] = m < x.end ? row_from(g.r, m, 1) : 0;
        }
        uint32_t tile = shared_addr(tiles + ring_space(ring, at) * STAGE_BYTES) + to;
#pragma unroll
        for (int i = 0; i < TILE_M / 16; i++) {
            int m = m0 + i % 4 * 16, there = m < x.end && x.i0 + i / 4 * 64 < g.m;
            int64_t from = t::gather_a ? row[i % 4] : m;
            copy16(tile + i * 2048, there ? a + from * g.m + i / 4 * 64 : (const bf16 *)g.a, there ? 16 : 0);
        }
#pragma unroll
        for (int i = 0; i < TILE_N / 16; i++) {
            int m = m0 + i % 4 * 16, there = m < x.end && x.j0 + i / 4 * 64 < g.n;
            int64_t from = t::gather_b ? row[i % 4] : m;
            copy16(tile + A_BYTES + i * 2048, there ? b + from * g.n + i / 4 * 64 : (const bf16 *)g.b,
                   there ? 16 : 0);
        }
        at = ring_put(ring, at);
#pragma unroll
        for (int i = 0; i < 4; i++)
            row[i] = next[i];
    }
    return at;
}

/* ---- what becomes of the sums: d as wgmma leaves it, rows i and i + 8, columns j + 8 c + {0, 1} ---- */

static __device__ __forceinline__ void put2(void *p, int64_t at, float a, float b)
{
    *(uint32_t *)((bf16 *)p + at) = pack2(a, b);
}
static __device__ __forceinline__ float2 get2(const void *p, int64_t at)
{
    return __bfloat1622float2(*(const __nv_bfloat162 *)((const bf16 *)p + at));
}

static __device__ __forceinline__ void finish_up(const mma_args &g, const mma_tile &x, const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t m = i + 8 * h;
        if (m >= x.end)
            continue;
        float gate = ((const float *)g.gate)[g.r.source[m]];
#pragma unroll
        for (int c = 0; c < 16; c++) {
            int col = j + 8 * c;
            float u0 = d[4 * c + 2 * h], u1 = d[4 * c + 2 * h + 1];
            float v0 = d[64 + 4 * c + 2 * h], v1 = d[64 + 4 * c + 2 * h + 1];
            if (col >= g.n)
                continue;
            put2(g.out, m * 2 * g.n + col, u0, u1);
            put2(g.out, m * 2 * g.n + g.n + col, v0, v1);
            put2(g.act, m * g.n + col, gate * u0 * v0 / (1 + __expf(-u0)), gate * u1 * v1 / (1 + __expf(-u1)));
        }
    }
}

static __device__ __forceinline__ void finish_rows(const mma_args &g, const mma_tile &x, const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int c = 0; c < 32; c++)
            if (i + 8 * h < x.end && j + 8 * c < g.n)
                put2(g.out, (int64_t)(i + 8 * h) * g.n + j + 8 * c, d[4 * c + 2 * h], d[4 * c + 2 * h + 1]);
}

static __device__ __forceinline__ float one_dh(float da, float u, float v, float gate, float *du, float *dv, float *a)
{
    float s = 1 / (1 + __expf(-u)), silu = u * s;
    *a = gate * silu * v;
    *du = gate * da * v * (s + silu * (1 - s));
    *dv = gate * da * silu;
    return da * silu * v;
}

static __device__ __forceinline__ void finish_dh(const mma_args &g, const mma_tile &x, const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t m = i + 8 * h;
        float sum = 0, gate = m < x.end ? ((const float *)g.gate)[g.r.source[m]] : 0;
#pragma unroll
        for (int c0 = 0; c0 < 32; c0 += 8) {
            float2 u[8], v[8]; /* all on their way before the first is needed */
            if (m >= x.end)
                continue;
#pragma unroll
            for (int c = 0; c < 8; c++)
                if (j + 8 * (c0 + c) < g.n) {
                    u[c] = get2(g.h, m * 2 * g.n + j + 8 * (c0 + c));
                    v[c] = get2(g.h, m * 2 * g.n + g.n + j + 8 * (c0 + c));
                }
#pragma unroll
            for (int c = 0; c < 8; c++) {
                int col = j + 8 * (c0 + c);
                const float *da = d + 4 * (c0 + c) + 2 * h;
                float2 du, dv, a;
                if (col >= g.n)
                    continue;
                sum += one_dh(da[0], u[c].x, v[c].x, gate, &du.x, &dv.x, &a.x);
                sum += one_dh(da[1], u[c].y, v[c].y, gate, &du.y, &dv.y, &a.y);
                put2(g.out, m * 2 * g.n + col, du.x, du.y);
                put2(g.out, m * 2 * g.n + g.n + col, dv.x, dv.y);
                put2(g.act, m * g.n + col, a.x, a.y);
            }
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (threadIdx.x % 4 == 0 && m < x.end)
            g.part[x.j0 / TILE_N * g.part_ld + m] = sum;
    }
}

static __device__ __forceinline__ void finish_wgrad(const mma_args &g, const mma_tile &x, const float *d, int i, int j)
{
    float *w = (float *)g.out + (int64_t)x.expert * g.m * g.n + (int64_t)i * g.n + j;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int c0 = 0; c0 < 32; c0 += 16) {
            float2 y[16]; /* all on their way before the first is needed */
            if (i + 8 * h >= g.m)
                continue;
#pragma unroll
            for (int c = 0; c < 16; c++)
                if (j + 8 * (c0 + c) < g.n)
                    y[c] = *(const float2 *)(w + 8 * h * (int64_t)g.n + 8 * (c0 + c));
#pragma unroll
            for (int c = 0; c < 16; c++)
                if (j + 8 * (c0 + c) < g.n)
                    *(float2 *)(w + 8 * h * (int64_t)g.n + 8 * (c0 + c)) =
                        make_float2(y[c].x + d[4 * (c0 + c) + 2 * h], y[c].y + d[4 * (c0 + c) + 2 * h + 1]);
        }
}

template <int MODE>
static __global__ void __launch_bounds__(ROLES, 1) mma_kernel(__grid_constant__ const mma_args g)
{
    using t = traits<MODE>;
    __shared__ ring ring;
    char *tiles = shared_tiles();
    int64_t all = tile_count<MODE>(g);
    ring_init(&ring);
    if (threadIdx.x < COPIERS) {
        registers_less<COPIER_REGISTERS>();
        int at = 0;
        for (int64_t i = blockIdx.x; i < all; i += gridDim.x) {
            mma_tile x = tile_at<MODE>(g, i);
            if constexpr (t::wgrad)
                at = copy_steps<MODE>(g, &ring, tiles, x, at, threadIdx.x);
            else
                at = copy_rows<MODE>(g, &ring, tiles, x, at, threadIdx.x);
        }
        ring_end(&ring, at);
        return;
    }
    registers_more<COMPUTER_REGISTERS>();
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, at = 0;
    for (int64_t i = blockIdx.x; i < all; i += gridDim.x) {
        mma_tile x = tile_at<MODE>(g, i);
        float d[128];
        for (int s = 0; s < x.steps; s++, at++) {
            uint32_t a = shared_addr(tiles + ring_get(&ring, at) * STAGE_BYTES), b = a + A_BYTES;
            wgmma_begin();
#pragma unroll
            for (int k = 0; k < 4; k++)
                wgmma<256, t::at, t::bt>(d, tile_desc(a + group * 8192 + (t::at ? k * 2048 : k * 32), 8192),
                                         tile_desc(b + (t::bt ? k * 2048 : k * 32), 8192), s + k > 0);
            wgmma_commit();
            if (s > 0) {
                wgmma_wait<1>();
                ring_free(&ring, at - 1);
            }
        }
        wgmma_wait<0>();
        if (!x.steps)
            continue;
        ring_free(&ring, at - 1);
        int row = x.i0 + group * 64 + warp * 16 + lane / 4, col = x.j0 + lane % 4 * 2;
        if constexpr (MODE == UP)
            finish_up(g, x, d, row, col);
        else if constexpr (MODE == DH)
            finish_dh(g, x, d, row, col);
        else if constexpr (t::wgrad)
            finish_wgrad(g, x, d, row, col);
        else
            finish_rows(g, x, d, row, col);
    }
}

template <int MODE> static void mma_run(struct lane *l, const char *name, const mma_args &g)
{
    static int raised;
    if (!raised)
        cu(cudaFuncSetAttribute(mma_kernel<MODE>, cudaFuncAttributeMaxDynamicSharedMemorySize, MMA_SHARED));
    raised = 1;
    mma_kernel<MODE><<<cuda_lane(l)->processors, ROLES, MMA_SHARED, stream(l)>>>(g);
    launched(name, "%d,%d,%d,%d", g.r.e, g.m, g.n, g.k);
}

/* dgate[choice] from the parts of its row. */
static __global__ void dgate_kernel(stat *dgate, const float *part, struct map r, int parts, int64_t ld)
{
    for (int64_t m = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; m < r.at[r.e]; m += (int64_t)gridDim.x * blockDim.x) {
        float sum = 0;
        if (r.source[m] < 0)
            continue;
        for (int i = 0; i < parts; i++)
            sum += part[i * ld + m];
        dgate[r.source[m]] = sum;
    }
}

static inline int whole(const void *p, const void *q, const void *o, int64_t d, int64_t f)
{
    return d % 64 == 0 && f % 64 == 0 && ((uintptr_t)p | (uintptr_t)q | (uintptr_t)o) % 16 == 0;
}

static inline int mma_up(struct lane *l, void *h, void *a, const void *x, const void *up, const void *gate,
                         struct map r, int64_t d, int64_t f)
{
    if (!whole(x, up, h, d, f))
        return 0;
    mma_args g = {x, up, h, a, NULL, gate, NULL, r, 0, (int)f, (int)d};
    mma_run<UP>(l, "experts_up", g);
    return 1;
}
static inline int mma_down(struct lane *l, void *y, const void *a, const void *down, struct map r, int64_t d,
                           int64_t f)
{
    if (!whole(a, down, y, d, f))
        return 0;
    mma_args g = {a, down, y, NULL, NULL, NULL, NULL, r, 0, (int)d, (int)f};
    mma_run<DOWN>(l, "experts_down", g);
    return 1;
}
static inline int mma_dh(struct lane *l, void *dh, void *a, void *dgate, const void *dout, const void *down,
                         const void *h, const void *gate, struct map r, int64_t n, int64_t d, int64_t f)
{
    int parts = (int)ceil_div(f, TILE_N);
    int64_t rows = n * r.k + (int64_t)r.e * (ROW_ALIGN - 1);
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole(dout, down, dh, d, f))
        return 0;
    float *part = (float *)arena_take(&l->scratch, parts * rows * (int64_t)sizeof *part);
    mma_args g = {dout, down, dh, a, h, gate, part, r, 0, (int)f, (int)d, rows};
    mma_run<DH>(l, "experts_dh", g);
    dgate_kernel<<<cuda_lane(l)->processors * 4, 256, 0, stream(l)>>>((stat *)dgate, part, r, parts, rows);
    launched("experts_dh", "%d", parts);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_dx(struct lane *l, void *dx, const void *dh, const void *up, struct map r, int64_t d,
                         int64_t f)
{
    if (!whole(dh, up, dx, d, f))
        return 0;
    mma_args g = {dh, up, dx, NULL, NULL, NULL, NULL, r, 0, (int)d, (int)(2 * f)};
    mma_run<DX>(l, "experts_dx", g);
    return 1;
}
static inline int mma_up_wgrad(struct lane *l, void *dw, const void *dh, const void *x, struct map r, int64_t d,
                               int64_t f)
{
    if (!whole(dh, x, dw, d, f))
        return 0;
    mma_args g = {dh, x, dw, NULL, NULL, NULL, NULL, r, (int)(2 * f), (int)d, 0};
    mma_run<UP_W>(l, "experts_up_wgrad", g);
    return 1;
}
static inline int mma_down_wgrad(struct lane *l, void *dw, const void *dout, const void *a, struct map r,
                                 int64_t d, int64_t f)
{
    if (!whole(dout, a, dw, d, f))
        return 0;
    mma_args g = {dout, a, dw, NULL, NULL, NULL, NULL, r, (int)d, (int)f, 0};
    mma_run<DOWN_W>(l, "experts_down_wgrad", g);
    return 1;
}

#else /* f32 has no tensor-core path that keeps f32's digits */
template <typename... T> static inline int mma_none(T...)
{
    return 0;
}
#define mma_up mma_none
#define mma_down mma_none
#define mma_dh mma_none
#define mma_dx mma_none
#define mma_up_wgrad mma_none
#define mma_down_wgrad mma_none
#endif
#endif
