/* experts_finish.cuh -- what becomes of the sums of a tile of experts_mma.cuh, mode by mode.
 *
 * d is what wgmma leaves in a thread of 64 rows of N columns: of rows i and i + 8 the columns
 * j + 8 c + {0, 1}.  Four lanes exchange pairs so that each has 16 bytes of a row.  Stores are
 * marked as not to be read soon, since L2 is for the operands. */
#ifndef EXPERTS_FINISH_CUH
#define EXPERTS_FINISH_CUH

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
        bf16 *to = (bf16 *)g.out + m * 2 * g.n, *act = (bf16 *)g.act + m * g.n;
        uint4 u4[N / 32], v4[N / 32]; /* all on their way before the first is needed */
#pragma unroll
        for (int q = 0; q < N / 32; q++) {
            u4[q] = get_row(from, j + 32 * q, g.n, live);
            v4[q] = get_row(from + g.n, j + 32 * q, g.n, live);
        }
#pragma unroll
        for (int q = 0; q < N / 32; q++) {
            uint32_t u[4] = {u4[q].x, u4[q].y, u4[q].z, u4[q].w},
                     v[4] = {v4[q].x, v4[q].y, v4[q].z, v4[q].w}, a[4];
            __syncwarp(); /* or the compiler mixes all q, for want of registers spilling them */
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float2 d2 = unpack2(da[h][q][c]), hu = unpack2(u[c]), hv = unpack2(v[c]), du, dv, y;
                sum += one_dh(d2.x, hu.x, hv.x, gate, &du.x, &dv.x, &y.x);
                sum += one_dh(d2.y, hu.y, hv.y, gate, &du.y, &dv.y, &y.y);
                u[c] = pack2(du.x, du.y);
                v[c] = pack2(dv.x, dv.y);
                a[c] = pack2(y.x, y.y);
            }
            put_row(to, j + 32 * q, g.n, 1, u);
            put_row(to + g.n, j + 32 * q, g.n, 1, v);
            put_row(act, j + 32 * q, g.n, 1, a);
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

#endif
