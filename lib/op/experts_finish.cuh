/* experts_finish.cuh -- what becomes of the sums of a tile of experts_mma.cuh, mode by mode.
 *
 * d is what wgmma leaves in a thread of 64 rows of N columns: of rows i and i + 8 the columns
 * j + 8 c + {0, 1}.  Four lanes exchange pairs so that each has 16 bytes of a row.  Stores are
 * marked as not to be read soon, since L2 is for the operands. */
#ifndef EXPERTS_FINISH_CUH
#define EXPERTS_FINISH_CUH

#include "experts_tiles.cuh"

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

/* Eight columns of a row from column col on, where it has them. */
static __device__ __forceinline__ void put_row(void *row, int col, int n, int live,
                                               const uint32_t *v)
{
    if (live && col < n)
        __stcs((uint4 *)((bf16 *)row + col), make_uint4(v[0], v[1], v[2], v[3]));
}
static __device__ __forceinline__ uint4 get_row(const void *row, int col, int n, int live)
{
    return live && col < n ? *(const uint4 *)((const bf16 *)row + col) : make_uint4(0, 0, 0, 0);
}

/* What is not read again: it leaves L2 to the operands. */
static __device__ __forceinline__ uint4 get_once(const void *row, int col, int n, int live)
{
    return live && col < n ? __ldcs((const uint4 *)((const bf16 *)row + col))
                           : make_uint4(0, 0, 0, 0);
}

/* Columns of four c of a row: pairs in v, column j the lane's in the first of them.  Called by
 * whole warps. */
static __device__ __forceinline__ void put_quad(void *row, int j, int n, int live, uint32_t *v)
{
    quad_transpose(v);
    put_row(row, j + (int)(threadIdx.x % 4) * 6, n, live, v);
}
static __device__ __forceinline__ uint4 get_quad(const void *row, int j, int n, int live)
{
    return get_row(row, j + (int)(threadIdx.x % 4) * 6, n, live);
}
static __device__ __forceinline__ float2 unpack2(uint32_t v)
{
    return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}

static __device__ __forceinline__ float gate_of(const mma_args &g, int m, int live)
{
    return live ? ((const float *)g.gate)[g.r.source[m]] : 0;
}

template <int N>
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
        for (int c0 = 0; c0 < N / 16; c0 += 4) {
            uint32_t u[4], v[4], a[4];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const float *p = d + 4 * (c0 + c) + 2 * h, *q = p + N / 4;
                u[c] = pack2(p[0], p[1]);
                v[c] = pack2(q[0], q[1]);
                a[c] = pack2(gate * q[0] * (p[0] * sigmoid_near(p[0])),
                             gate * q[1] * (p[1] * sigmoid_near(p[1])));
            }
            put_quad(to, j + 8 * c0, g.n, live, u);
            put_quad(to + g.n, j + 8 * c0, g.n, live, v);
            put_quad((bf16 *)g.act + m * g.n, j + 8 * c0, g.n, live, a);
        }
    }
}

template <int N>
static __device__ __forceinline__ void finish_rows(const mma_args &g, const mma_tile &x,
                                                   const float *d, int i, int j)
{
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int c0 = 0; c0 < N / 8; c0 += 4) {
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
    float s = sigmoid_near(u), silu = u * s, y = silu * v, dy = gate * da;
    *a = gate * y;
    *du = dy * v * (s + silu * (1 - s));
    *dv = dy * silu;
    return da * y;
}

/* Eight columns of a row of dh and a, from those of da and h; the sum of da y, for the gate. */
static __device__ __forceinline__ float put_dh(const mma_args &g, int64_t m, int col,
                                               const uint32_t *da, uint4 u4, uint4 v4, float gate)
{
    uint32_t u[4] = {u4.x, u4.y, u4.z, u4.w}, v[4] = {v4.x, v4.y, v4.z, v4.w}, a[4];
    bf16 *to = (bf16 *)g.out + m * 2 * g.n;
    float sum = 0;
#pragma unroll
    for (int c = 0; c < 4; c++) {
        float2 d2 = unpack2(da[c]), hu = unpack2(u[c]), hv = unpack2(v[c]), du, dv, y;
        sum += one_dh(d2.x, hu.x, hv.x, gate, &du.x, &dv.x, &y.x);
        sum += one_dh(d2.y, hu.y, hv.y, gate, &du.y, &dv.y, &y.y);
        u[c] = pack2(du.x, du.y);
        v[c] = pack2(dv.x, dv.y);
        a[c] = pack2(y.x, y.y);
    }
    put_row(to, col, g.n, 1, u);
    put_row(to + g.n, col, g.n, 1, v);
    put_row((bf16 *)g.act + m * g.n, col, g.n, 1, a);
    return sum;
}

/* d is rounded and transposed first: so it takes half the registers, and lanes have the columns
 * that they load and store.  Rows of padding come out 0, since weight gradients run over them. */
template <int N>
static __device__ __forceinline__ void finish_dh(const mma_args &g, const mma_tile &x,
                                                 const float *d, int i, int j)
{
    uint32_t da[2][N / 32][4];
    j += threadIdx.x % 4 * 6; /* of eight columns */
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int q = 0; q < N / 32; q++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const float *p = d + 4 * (4 * q + c) + 2 * h;
                da[h][q][c] = pack2(p[0], p[1]);
            }
            quad_transpose(da[h][q]);
        }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t m = i + 8 * h;
        int live = m < x.end;
        float sum = 0, gate = gate_of(g, (int)m, live);
        const bf16 *from = (const bf16 *)g.h + m * 2 * g.n;
        uint4 u4[N / 32], v4[N / 32]; /* all on their way before the first is needed */
#pragma unroll
        for (int q = 0; q < N / 32; q++) {
            u4[q] = get_once(from, j + 32 * q, g.n, live);
            v4[q] = get_once(from + g.n, j + 32 * q, g.n, live);
        }
#pragma unroll
        for (int q = 0; q < N / 32; q++) {
            __syncwarp(); /* or the compiler mixes all q, for want of registers spilling them */
            sum += put_dh(g, m, j + 32 * q, da[h][q], u4[q], v4[q], gate);
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (threadIdx.x % 4 == 0 && live)
            g.part[x.j0 / N * g.part_ld + m] = sum;
    }
}

/* Rows of a weight's gradient: written or added to, in f32 or, coarse, in bf16; and where there are
 * parts, the sum of squares of what is written.  Past the edges sums are 0. */
template <int N>
static __device__ __forceinline__ void finish_wgrad(const mma_args &g, const mma_tile &x,
                                                    const float *d, int i, int j)
{
    float squares = 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = ((int64_t)x.expert * g.m + i + 8 * h) * g.n;
        int live = i + 8 * h < g.m;
#pragma unroll
        for (int c0 = 0; c0 < N / 8; c0 += 4) {
            const float *p = d + 4 * c0 + 2 * h;
            bf16 *to = (bf16 *)g.out + row;
            uint32_t v[4];
            if (g.coarse) {
                uint4 old = g.add ? get_quad(to, j + 8 * c0, g.n, live) : make_uint4(0, 0, 0, 0);
                uint32_t was[4] = {old.x, old.y, old.z, old.w};
                quad_transpose(was);
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    float2 w = unpack2(was[c]);
                    v[c] = pack2(w.x + p[4 * c], w.y + p[4 * c + 1]);
                    w = unpack2(v[c]);
                    squares += w.x * w.x + w.y * w.y;
                }
                put_quad(to, j + 8 * c0, g.n, live, v);
                continue;
            }
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float *w = (float *)g.out + row + j + 8 * (c0 + c);
                squares += p[4 * c] * p[4 * c] + p[4 * c + 1] * p[4 * c + 1];
                if (live && j + 8 * (c0 + c) < g.n && g.add)
                    add2(w, p[4 * c], p[4 * c + 1]);
                else if (live && j + 8 * (c0 + c) < g.n)
                    __stcs((float2 *)w, make_float2(p[4 * c], p[4 * c + 1]));
            }
        }
    }
    if (!g.part)
        return;
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0)
        g.part[(blockIdx.x * blockDim.x + threadIdx.x) / 32] += squares;
}

template <int MODE, int N>
static __device__ __forceinline__ void finish(const mma_args &g, const mma_tile &x, const float *d,
                                              int i, int j)
{
    if constexpr (MODE == UP)
        finish_up<N>(g, x, d, i, j);
    else if constexpr (MODE == DH)
        finish_dh<N>(g, x, d, i, j);
    else if constexpr (MODE == UP_W || MODE == DOWN_W)
        finish_wgrad<N>(g, x, d, i, j);
    else
        finish_rows<N>(g, x, d, i, j);
}

/* ---- DH, joint: sums go through shared memory to warps of their own, the finishers ---- */

/* A warpgroup's half of a tile at a time: the finishers take its sums into registers at once, so
 * that the other half may follow, and read h, which takes longest, and write dh and a while the
 * next tile is multiplied. */
struct relay {
    uint64_t full[2], empty[2]; /* by half */
};
static __device__ __forceinline__ void relay_init(struct relay *r)
{
    for (int i = 0; i < 2 && threadIdx.x == 0; i++) {
        barrier_init(&r->full[i], TAKERS / 32);
        barrier_init(&r->empty[i], FINISHERS / 32);
    }
}
/* Of a taker: until the half before its own has been taken.  turn: of the tile, 0 or 1. */
static __device__ __forceinline__ void relay_wait(struct relay *r, int half, int turn)
{
    barrier_wait(&r->empty[half ^ 1], half ? turn : turn ^ 1);
}
static __device__ __forceinline__ void relay_pass(uint64_t *b)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        barrier_arrive(b);
}

/* Where chunk `part` (16 bytes) of row r lies among rows of N sums. */
template <int N>
static __device__ __forceinline__ uint32_t relay_at(uint32_t sums, int r, int part)
{
    return sums + r * N * 2 + ((part ^ (r & 7)) << 4);
}
/* The warp's 16 rows of d, from row r of the half on. */
template <int N>
static __device__ __forceinline__ void relay_put(uint32_t sums, int r, const float *d)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < N / 8; c += 2) {
        const float *p = d + 4 * c;
        uint32_t v[4] = {pack2(p[0], p[1]), pack2(p[2], p[3]), pack2(p[4], p[5]),
                         pack2(p[6], p[7])};
        store_matrices(relay_at<N>(sums, r + lane % 16, c + lane / 16), v);
    }
}

/* Eight columns of row m, of which 16 lanes have N. */
template <int N>
static __device__ __forceinline__ void relay_row(const mma_args &g, const mma_tile &x, int64_t m,
                                                 int col, uint4 d4, uint4 u4, uint4 v4, float gate)
{
    uint32_t da[4] = {d4.x, d4.y, d4.z, d4.w};
    float sum = put_dh(g, m, col, da, u4, v4, gate);
#pragma unroll
    for (int i = 1; i < 16; i *= 2)
        sum += __shfl_xor_sync(~0u, sum, i);
    if (threadIdx.x % 16 == 0 && m < x.end && col < g.n)
        g.part[x.j0 / N * g.part_ld + m] = sum;
}

/* All tiles of the block.  16 lanes have a row, eight columns each, so a warp two rows at a time.
 * Rows of padding come out 0, since weight gradients run over them. */
template <typename t>
static __device__ __forceinline__ void finish_relayed(const mma_args &g,
                                                      const typename t::count *first,
                                                      struct relay *relay, uint32_t sums)
{
    enum { APART = FINISHERS / 16, ROWS = HALF_M / APART, AT_ONCE = 4 }; /* rows of a thread */
    int all = tile_count<t>(g, first), part = threadIdx.x % 16;
    int own = threadIdx.x % FINISHERS / 16;
    for (int i = tile_first<t>(), turn = 0; i < all; i += tile_next<t>(), turn ^= 1) {
        mma_tile x = tile_at<t>(g, first, i);
        int col = x.j0 + part * 8;
        for (int half = 0; half < 2; half++) {
            int64_t top = x.i0 + half * HALF_M + own, mine = top + part * APART; /* ROWS parts */
            float gates = gate_of(g, (int)mine, mine < x.end);
            uint4 d4[ROWS];
            if (half == x.halves) { /* is not there */
                barrier_wait(&relay->full[half], turn);
                relay_pass(&relay->empty[half]);
                break;
            }
#pragma unroll
            for (int r = 0; r < ROWS; r += AT_ONCE) {
                uint4 u4[AT_ONCE], v4[AT_ONCE]; /* all on their way before the first is needed */
                int64_t m0 = top + r * APART;
#pragma unroll
                for (int q = 0; q < AT_ONCE; q++) {
                    int64_t m = m0 + q * APART;
                    int live = m < x.end;
                    const bf16 *from = (const bf16 *)g.h + m * 2 * g.n;
                    u4[q] = get_once(from, col, g.n, live);
                    v4[q] = get_once(from + g.n, col, g.n, live);
                }
                if (r == 0) {
                    barrier_wait(&relay->full[half], turn);
#pragma unroll
                    for (int q = 0; q < ROWS; q++)
                        d4[q] = load_shared(relay_at<t::n>(sums, own + q * APART, part));
                    relay_pass(&relay->empty[half]);
                }
#pragma unroll
                for (int q = 0; q < AT_ONCE; q++)
                    relay_row<t::n>(g, x, m0 + q * APART, col, d4[r + q], u4[q], v4[q],
                                    __shfl_sync(~0u, gates, r + q, 16));
            }
        }
    }
}

#endif
