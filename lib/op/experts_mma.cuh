/* experts_mma.cuh -- the products of all experts on tensor cores, for bf16 rows of whole 64
 * elements.
 *
 * One persistent kernel, six modes.  A tile is 128 x 256 of an expert's product; counts are read on
 * the device, so blocks find their tiles from the row map.  The copier gathers rows while it copies
 * them; the epilogue applies the activation, or its gradient, to the sums in registers.
 *
 *   mode      A (128 rows)       B (256 columns)      K       out
 *   UP        x[row] (.,D)       up_e (2F,D)          D       h, a; 128 columns of each half of h
 *   DOWN      a (M,F)            down_e (D,F)         F       y
 *   DH        dout[row] (.,D)    down_e (D,F)^T       D       dh, a, parts of dgate
 *   DX        dh (M,2F)          up_e (2F,D)^T        2F      dx
 *   UP_W      dh (M,2F)^T        x[row]^T             rows    dw (E,2F,D), written or added to
 *   DOWN_W    dout[row]^T        a^T                  rows    dw (E,D,F), as well
 *
 * Bound: tensor cores; 96 operations a byte copied from L2. */
#ifndef EXPERTS_MMA_CUH
#define EXPERTS_MMA_CUH

#include "experts.cuh"

enum mma_mode { UP, DOWN, DH, DX, UP_W, DOWN_W };

struct mma_args {
    const void *a, *b;
    void *out, *act; /* h, y, dh, dx or dw; a */
    const void *h, *gate;
    float *part; /* (tiles across F, M) parts of dgate */
    struct map r;
    int m, n, k; /* of an expert's product: m of weight gradients, k of the others */
    int64_t part_ld;
    int coarse, add; /* as in struct grad */
};

#ifdef REAL_BF16
#include "ring.cuh"

enum {
    TILE_M = 128,
    TILE_N = 256,
    TILE_K = 64,
    A_BYTES = TILE_M * 128,
    STAGE_BYTES = A_BYTES + TILE_N * 128
};
enum { MMA_SHARED = STAGES * STAGE_BYTES + 1024 };

template <int MODE>
struct traits {
    static constexpr int wgrad = MODE == UP_W || MODE == DOWN_W;
    static constexpr int at = wgrad, bt = wgrad || MODE == DH || MODE == DX;
    static constexpr int gather_a = MODE == UP || MODE == DH || MODE == DOWN_W,
                         gather_b = MODE == UP_W;
    static constexpr int cols = MODE == UP ? TILE_N / 2 : TILE_N; /* of n that a tile covers */
};

struct mma_tile {
    int expert, i0, j0, steps; /* i0: row of the map, or of the weight */
    int begin, end;            /* of the expert's rows */
};

template <int MODE>
static __device__ __forceinline__ int64_t tile_count(const mma_args &g)
{
    int64_t across = (g.n + traits<MODE>::cols - 1) / traits<MODE>::cols;
    return traits<MODE>::wgrad ? (int64_t)g.r.e * ((g.m + TILE_M - 1) / TILE_M) * across
                               : (int64_t)(g.r.at[g.r.e] / TILE_M) * across;
}

/* Tile number i; steps 0 where there is nothing to do. */
template <int MODE>
static __device__ __forceinline__ mma_tile tile_at(const mma_args &g, int64_t i)
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
static __device__ __forceinline__ int copy_rows(const mma_args &g, ring *ring, char *tiles,
                                                const mma_tile &x, int at, int p)
{
    using t = traits<MODE>;
    int r0 = p / 8, part = p % 8;
    const bf16 *a[TILE_M / 16];
    int live = 0;
#pragma unroll
    for (int i = 0; i < TILE_M / 16; i++) {
        int m = x.i0 + r0 + 16 * i, there = m < x.end;
        live |= there << i;
        a[i] = (const bf16 *)g.a + (int64_t)(there ? row_from(g.r, m, t::gather_a) : 0) * g.k +
               part * 8;
    }
    const bf16 *b =
        (const bf16 *)g.b + (int64_t)x.expert * (MODE == UP ? 2 : 1) * g.n * g.k + part * 8;
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
static __device__ __forceinline__ int copy_steps(const mma_args &g, ring *ring, char *tiles,
                                                 const mma_tile &x, int at, int p)
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
            copy16(tile + i * 2048, there ? a + from * g.m + i / 4 * 64 : (const bf16 *)g.a,
                   there ? 16 : 0);
        }
#pragma unroll
        for (int i = 0; i < TILE_N / 16; i++) {
            int m = m0 + i % 4 * 16, there = m < x.end && x.j0 + i / 4 * 64 < g.n;
            int64_t from = t::gather_b ? row[i % 4] : m;
            copy16(tile + A_BYTES + i * 2048,
                   there ? b + from * g.n + i / 4 * 64 : (const bf16 *)g.b, there ? 16 : 0);
        }
        at = ring_put(ring, at);
#pragma unroll
        for (int i = 0; i < 4; i++)
            row[i] = next[i];
    }
    return at;
}

/* ---- what becomes of the sums: d as wgmma leaves it, rows i and i + 8, columns j + 8 c + {0, 1}
 * ---- */

/* Among four lanes: v[i] of lane l becomes v[l] of lane i.  Pairs of columns 8 c + 2 l of four c
 * become the eight columns of c = l, which are 16 bytes of a row; and the reverse. */
static __device__ __forceinline__ void quad_transpose(uint32_t *v)
{
    int odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        uint32_t a = v[i], b = v[i + 1], x = __shfl_xor_sync(~0u, odd ? a : b, 1);
        v[i] = odd ? x : a;
        v[i + 1] = odd ? b : x;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t a = v[i], b = v[i + 2], x = __shfl_xor_sync(~0u, high ? a : b, 2);
        v[i] = high ? x : a;
        v[i + 2] = high ? b : x;
    }
}

/* Columns of four c of a row: pairs in v, column j the lane's in the first of them.  Called by
 * whole warps. */
static __device__ __forceinline__ void put_quad(void *row, int j, int n, int live, uint32_t *v)
{
    int l = threadIdx.x % 4, col = j - 2 * l + 8 * l;
    quad_transpose(v);
    if (live && col < n)
        *(uint4 *)((bf16 *)row + col) = make_uint4(v[0], v[1], v[2], v[3]);
}
static __device__ __forceinline__ uint4 get_quad(const void *row, int j, int n, int live)
{
    int l = threadIdx.x % 4, col = j - 2 * l + 8 * l;
    return live && col < n ? *(const uint4 *)((const bf16 *)row + col) : make_uint4(0, 0, 0, 0);
}
static __device__ __forceinline__ float2 unpack2(uint32_t v)
{
    return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}

static __device__ __forceinline__ float gate_of(const mma_args &g, int m, int live)
{
    return live ? ((const float *)g.gate)[g.r.source[m]] : 0;
}

static __device__ __forceinline__ void finish_up(const mma_args &g, const mma_tile &x,
                                                 const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t m = i + 8 * h;
        int live = m < x.end;
        float gate = gate_of(g, (int)m, live);
        bf16 *to = (bf16 *)g.out + m * 2 * g.n;
#pragma unroll
        for (int c0 = 0; c0 < 16; c0 += 4) {
            uint32_t u[4], v[4], a[4];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const float *p = d + 4 * (c0 + c) + 2 * h, *q = p + 64;
                u[c] = pack2(p[0], p[1]);
                v[c] = pack2(q[0], q[1]);
                a[c] = pack2(gate * p[0] * q[0] / (1 + __expf(-p[0])),
                             gate * p[1] * q[1] / (1 + __expf(-p[1])));
            }
            put_quad(to, j + 8 * c0, g.n, live, u);
            put_quad(to + g.n, j + 8 * c0, g.n, live, v);
            put_quad((bf16 *)g.act + m * g.n, j + 8 * c0, g.n, live, a);
        }
    }
}

static __device__ __forceinline__ void finish_rows(const mma_args &g, const mma_tile &x,
                                                   const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int c0 = 0; c0 < 32; c0 += 4) {
            uint32_t v[4];
            int64_t m = i + 8 * h;
#pragma unroll
            for (int c = 0; c < 4; c++)
                v[c] = pack2(d[4 * (c0 + c) + 2 * h], d[4 * (c0 + c) + 2 * h + 1]);
            put_quad((bf16 *)g.out + m * g.n, j + 8 * c0, g.n, m < x.end, v);
        }
}

static __device__ __forceinline__ float one_dh(float da, float u, float v, float gate, float *du,
                                               float *dv, float *a)
{
    float s = 1 / (1 + __expf(-u)), silu = u * s;
    *a = gate * silu * v;
    *du = gate * da * v * (s + silu * (1 - s));
    *dv = gate * da * silu;
    return da * silu * v;
}

static __device__ __forceinline__ void finish_dh(const mma_args &g, const mma_tile &x,
                                                 const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t m = i + 8 * h;
        int live = m < x.end;
        float sum = 0, gate = gate_of(g, (int)m, live);
        const bf16 *from = (const bf16 *)g.h + m * 2 * g.n;
        bf16 *to = (bf16 *)g.out + m * 2 * g.n;
#pragma unroll
        for (int half = 0; half < 32; half += 16) {
            uint4 u4[4], v4[4]; /* all on their way before the first is needed */
#pragma unroll
            for (int c = 0; c < 4; c++) {
                u4[c] = get_quad(from, j + 8 * (half + 4 * c), g.n, live);
                v4[c] = get_quad(from + g.n, j + 8 * (half + 4 * c), g.n, live);
            }
#pragma unroll
            for (int q = 0; q < 4; q++) {
                uint32_t u[4] = {u4[q].x, u4[q].y, u4[q].z, u4[q].w},
                         v[4] = {v4[q].x, v4[q].y, v4[q].z, v4[q].w}, a[4];
                quad_transpose(u);
                quad_transpose(v);
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const float *da = d + 4 * (half + 4 * q + c) + 2 * h;
                    float2 hu = unpack2(u[c]), hv = unpack2(v[c]), du, dv, act;
                    sum += one_dh(da[0], hu.x, hv.x, gate, &du.x, &dv.x, &act.x);
                    sum += one_dh(da[1], hu.y, hv.y, gate, &du.y, &dv.y, &act.y);
                    u[c] = pack2(du.x, du.y);
                    v[c] = pack2(dv.x, dv.y);
                    a[c] = pack2(act.x, act.y);
                }
                int col = j + 8 * (half + 4 * q);
                put_quad(to, col, g.n, live, u);
                put_quad(to + g.n, col, g.n, live, v);
                put_quad((bf16 *)g.act + m * g.n, col, g.n, live, a);
            }
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (threadIdx.x % 4 == 0 && live)
            g.part[x.j0 / TILE_N * g.part_ld + m] = sum;
    }
}

/* Two neighbours of a weight gradient. */
static __device__ __forceinline__ void put_pair(const mma_args &g, int64_t at, float a, float b)
{
    float *f = (float *)g.out + at;
    uint32_t *h = (uint32_t *)((bf16 *)g.out + at);
    float2 was = g.coarse && g.add ? unpack2(*h) : make_float2(0, 0);
    if (g.coarse)
        *h = pack2(was.x + a, was.y + b);
    else if (g.add)
        add2(f, a, b);
    else
        *(float2 *)f = make_float2(a, b);
}
static __device__ __forceinline__ void finish_wgrad(const mma_args &g, const mma_tile &x,
                                                    const float *d, int i, int j)
{
    int64_t at = (int64_t)x.expert * g.m * g.n + (int64_t)i * g.n + j;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int c = 0; c < 32; c++)
            if (i + 8 * h < g.m && j + 8 * c < g.n)
                put_pair(g, at + 8 * h * (int64_t)g.n + 8 * c, d[4 * c + 2 * h],
                         d[4 * c + 2 * h + 1]);
}
/* An expert without rows. */
static __device__ __forceinline__ void zero_wgrad(const mma_args &g, const mma_tile &x, int i,
                                                  int j)
{
    int64_t at = (int64_t)x.expert * g.m * g.n + (int64_t)i * g.n + j;
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < 32; c++)
            if (i + 8 * h < g.m && j + 8 * c < g.n)
                put_pair(g, at + 8 * h * (int64_t)g.n + 8 * c, 0, 0);
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
                wgmma<256, t::at, t::bt>(
                    d, tile_desc(a + group * 8192 + (t::at ? k * 2048 : k * 32), 8192),
                    tile_desc(b + (t::bt ? k * 2048 : k * 32), 8192), s + k > 0);
            wgmma_commit();
            if (s > 0) {
                wgmma_wait<1>();
                ring_free(&ring, at - 1);
            }
        }
        wgmma_wait<0>();
        int row = x.i0 + group * 64 + warp * 16 + lane / 4, col = x.j0 + lane % 4 * 2;
        if (!x.steps) {
            if (t::wgrad && !g.add)
                zero_wgrad(g, x, row, col);
            continue;
        }
        ring_free(&ring, at - 1);
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

template <int MODE>
static void mma_run(struct lane *l, const char *name, const mma_args &g)
{
    static int raised;
    if (!raised)
        cu(cudaFuncSetAttribute(mma_kernel<MODE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                MMA_SHARED));
    raised = 1;
    mma_kernel<MODE><<<cuda_lane(l)->processors, ROLES, MMA_SHARED, stream(l)>>>(g);
    launched(name, "%d,%d,%d,%d", g.r.e, g.m, g.n, g.k);
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
static inline int whole(const void *p, const void *q, const void *o, int64_t d, int64_t f)
{
    return d % 64 == 0 && f % 64 == 0 && ((uintptr_t)p | (uintptr_t)q | (uintptr_t)o) % 16 == 0;
}

static inline int mma_up(struct lane *l, void *h, void *a, const void *x, const void *up,
                         const void *gate, struct map r, int64_t d, int64_t f)
{
    if (!whole(x, up, h, d, f))
        return 0;
    mma_args g = {x, up, h, a, NULL, gate, NULL, r, 0, (int)f, (int)d};
    mma_run<UP>(l, "experts_up", g);
    return 1;
}
static inline int mma_down(struct lane *l, void *y, const void *a, const void *down, struct map r,
                           int64_t d, int64_t f)
{
    if (!whole(a, down, y, d, f))
        return 0;
    mma_args g = {a, down, y, NULL, NULL, NULL, NULL, r, 0, (int)d, (int)f};
    mma_run<DOWN>(l, "experts_down", g);
    return 1;
}
static inline int mma_dh(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                         const void *down, const void *h, const void *gate, struct map r, int64_t n,
                         int64_t d, int64_t f)
{
    int parts = (int)ceil_div(f, TILE_N);
    int64_t rows = n * r.k + (int64_t)r.e * (ROW_ALIGN - 1);
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole(dout, down, dh, d, f))
        return 0;
    float *part = (float *)arena_take(&l->scratch, parts * rows * (int64_t)sizeof *part);
    mma_args g = {dout, down, dh, a, h, gate, part, r, 0, (int)f, (int)d, rows};
    mma_run<DH>(l, "experts_dh", g);
    dgate_kernel<<<cuda_lane(l)->processors * 4, 256, 0, stream(l)>>>((stat *)dgate, part, r, parts,
                                                                      rows);
    launched("experts_dh", "%d", parts);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_dx(struct lane *l, void *dx, const void *dh, const void *up, struct map r,
                         int64_t d, int64_t f)
{
    if (!whole(dh, up, dx, d, f))
        return 0;
    mma_args g = {dh, up, dx, NULL, NULL, NULL, NULL, r, 0, (int)d, (int)(2 * f)};
    mma_run<DX>(l, "experts_dx", g);
    return 1;
}
static inline int mma_up_wgrad(struct lane *l, struct grad dw, const void *dh, const void *x,
                               struct map r, int64_t d, int64_t f)
{
    if (!whole(dh, x, dw.data, d, f))
        return 0;
    mma_args g = {dh,           x,      dw.data, NULL, NULL,      NULL,  NULL, r,
                  (int)(2 * f), (int)d, 0,       0,    dw.coarse, dw.add};
    mma_run<UP_W>(l, "experts_up_wgrad", g);
    return 1;
}
static inline int mma_down_wgrad(struct lane *l, struct grad dw, const void *dout, const void *a,
                                 struct map r, int64_t d, int64_t f)
{
    if (!whole(dout, a, dw.data, d, f))
        return 0;
    mma_args g = {dout, a,      dw.data, NULL, NULL, NULL,      NULL,
                  r,    (int)d, (int)f,  0,    0,    dw.coarse, dw.add};
    mma_run<DOWN_W>(l, "experts_down_wgrad", g);
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
