/* attn_one.cuh -- attention where no span has more than one query, as in decoding: bf16 heads of 64
 * and 128 (Dao et al. 2023: flash-decoding).
 *
 * Eight query heads that share a key head go together, so keys and values are read once.  Keys go
 * in chunks of 64 to the CLUSTER blocks in turn, whatever the length and however many spans there
 * are; at the end block i of the cluster joins what all have of head i, in order.  So a query's
 * result does not depend on the others.  Scores by mma (keys are rows, heads columns);
 * probabilities stay f32. Bound: memory, the keys and values seen read once. */
#ifndef ATTN_ONE_CUH
#define ATTN_ONE_CUH

#include "attn.cuh"

#ifdef REAL_BF16
#include "ptx.cuh"

#include <cooperative_groups.h>
namespace cg = cooperative_groups;

enum { CLUSTER = 8, EIGHT = 8, CHUNK = 64, ONE_THREADS = 128, ONE_WARPS = ONE_THREADS / 32 };

struct one {
    bf16 *o;           /* (Tq,H,C) */
    stat *lse;         /* (Tq,H) */
    const bf16 *q;     /* (Tq,H,C), rows ldq apart */
    const bf16 *k, *v; /* (Tk,G,C), rows ldk apart */
    struct spans s;
    struct heads x;
};

template <int C>
struct __align__(16) one_shared
{
    float p[CHUNK][EIGHT]; /* scores, then probabilities */
    float max[EIGHT], sum[EIGHT], shrink[EIGHT];
    float o[ONE_WARPS][EIGHT][C];
};

static __device__ __forceinline__ void unpack8(float *x, uint4 v)
{
    const uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(w[i] << 16);
        x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}

/* What a thread holds of a chunk of keys: its parts of two of them, as mma wants them, and eight
 * columns of every AT_ONCE-th value. */
template <int C>
struct one_held {
    enum {
        STEPS = C / 32,
        PER_KEY = C / 8,
        AT_ONCE = ONE_THREADS / PER_KEY,
        ROUNDS = CHUNK / AT_ONCE
    };
    uint4 k[STEPS][2], v[ROUNDS];
};

/* Of the chunk from key `at` on, those in from .. to. */
template <int C>
static __device__ __forceinline__ void one_fetch(one_held<C> &own, const one &x, int kv, int64_t at,
                                                 int64_t from, int64_t to)
{
    using held = one_held<C>;
    int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    int part = threadIdx.x % held::PER_KEY, first = threadIdx.x / held::PER_KEY;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t j = at + warp * 16 + h * 8 + row;
#pragma unroll
        for (int i = 0; i < held::STEPS; i++)
            if (j >= from && j < to)
                own.k[i][h] = load_once(x.k + j * x.x.ldk + kv * C + i * 32 + quad * 8);
    }
#pragma unroll
    for (int i = 0; i < held::ROUNDS; i++) {
        int64_t j = at + i * held::AT_ONCE + first;
        if (j >= from && j < to)
            own.v[i] = load_once(x.v + j * x.x.ldk + kv * C + part * 8);
    }
}

/* Scores of a chunk against the running maximum of each head, two heads a warp. */
template <int C>
static __device__ __forceinline__ void one_softmax(one_shared<C> &s)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < EIGHT / ONE_WARPS; i++) {
        int h = threadIdx.x / 32 * (EIGHT / ONE_WARPS) + i;
        float a = s.p[lane][h], b = s.p[lane + 32][h], old = s.max[h];
        float max = fmaxf(old, warp_max(fmaxf(a, b)));
        a = __expf(a - max);
        b = __expf(b - max);
        float sum = warp_sum(a + b), shrink = __expf(old - max);
        s.p[lane][h] = a;
        s.p[lane + 32][h] = b;
        if (lane == 0) {
            s.max[h] = max;
            s.shrink[h] = shrink;
            s.sum[h] = s.sum[h] * shrink + sum;
        }
    }
}

/* grid: (CLUSTER, G x eights of its heads, spans) */
template <int C>
static __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(ONE_THREADS)
    one_kernel(const __grid_constant__ one x)
{
    using held = one_held<C>;
    __shared__ one_shared<C> s;
    cg::cluster_group cluster = cg::this_cluster();
    int rank = blockIdx.x, eights = gridDim.y / x.x.g, kv = blockIdx.y / eights;
    int head = kv * (x.x.h / x.x.g) + blockIdx.y % eights * EIGHT; /* the first of the block */
    int heads = min(EIGHT, (kv + 1) * (x.x.h / x.x.g) - head);
    int64_t t = x.s.q_at[blockIdx.z], begin = x.s.k_beg[blockIdx.z], end = x.s.k_end[blockIdx.z];
    int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    int part = threadIdx.x % held::PER_KEY, first = threadIdx.x / held::PER_KEY;
    uint4 q[held::STEPS];
    held own = {};
    float acc[EIGHT][8] = {};
    int64_t mine = begin + rank * CHUNK, old = x.s.cached ? end - 1 : begin;
    call_next();
    one_fetch(own, x, kv, mine, mine, old);
    await_turn();
    one_fetch(own, x, kv, mine, old, end);
    if (t == x.s.q_at[blockIdx.z + 1]) /* no query: the whole cluster leaves */
        return;
#pragma unroll
    for (int i = 0; i < held::STEPS; i++)
        q[i] = row < heads
                   ? *(const uint4 *)(x.q + t * x.x.ldq + (head + row) * C + i * 32 + quad * 8)
                   : make_uint4(0, 0, 0, 0);
    if (threadIdx.x < EIGHT) {
        s.max[threadIdx.x] = -INFINITY;
        s.sum[threadIdx.x] = 0;
    }
    __syncthreads();
    for (int64_t at = mine; at < end; at += CLUSTER * CHUNK) {
        float d[4] = {};
#pragma unroll
        for (int i = 0; i < held::STEPS; i++) {
            uint4 a = own.k[i][0], b = own.k[i][1];
            mma16(d, a.x, b.x, a.y, b.y, q[i].x, q[i].y);
            mma16(d, a.z, b.z, a.w, b.w, q[i].z, q[i].w);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int j = warp * 16 + i / 2 * 8 + row;
            s.p[j][quad * 2 + i % 2] = at + j < end ? d[i] * x.x.scale : -INFINITY;
        }
        __syncthreads();
        one_softmax(s);
        __syncthreads();
#pragma unroll
        for (int h = 0; h < EIGHT; h++)
#pragma unroll
            for (int c = 0; c < 8; c++)
                acc[h][c] *= s.shrink[h];
#pragma unroll
        for (int i = 0; i < held::ROUNDS; i++) {
            float f[8], p[EIGHT];
            unpack8(f, own.v[i]);
            load_n<4>(p, &s.p[i * held::AT_ONCE + first][0]);
            load_n<4>(p + 4, &s.p[i * held::AT_ONCE + first][4]);
#pragma unroll
            for (int h = 0; h < EIGHT; h++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    acc[h][c] += p[h] * f[c];
        }
        __syncthreads(); /* p is free again */
        one_fetch(own, x, kv, at + CLUSTER * CHUNK, at, end);
    }
#pragma unroll
    for (int h = 0; h < EIGHT; h++) {
#pragma unroll
        for (int c = 0; c < 8; c++) /* lanes that have the same part of other keys */
#pragma unroll
            for (int i = held::PER_KEY; i < 32; i *= 2)
                acc[h][c] += __shfl_xor_sync(~0u, acc[h][c], i);
        if (threadIdx.x % 32 < held::PER_KEY) {
            store_n<4>(&s.o[warp][h][part * 8], acc[h]);
            store_n<4>(&s.o[warp][h][part * 8 + 4], acc[h] + 4);
        }
    }
    __syncthreads();
    for (int h = 0; h < EIGHT && threadIdx.x < C; h++)
        for (int w = 1; w < ONE_WARPS; w++)
            s.o[0][h][threadIdx.x] += s.o[w][h][threadIdx.x];
    cluster.sync();
    if (rank < heads && threadIdx.x < C) {
        float max = -INFINITY, sum = 0, o = 0, m[CLUSTER], l[CLUSTER], part[CLUSTER];
#pragma unroll
        for (int b = 0; b < CLUSTER; b++) { /* all on their way before the first is needed */
            const one_shared<C> *other = cluster.map_shared_rank(&s, b);
            m[b] = other->max[rank];
            l[b] = other->sum[rank];
            part[b] = other->o[0][rank][threadIdx.x];
        }
#pragma unroll
        for (int b = 0; b < CLUSTER; b++)
            max = fmaxf(max, m[b]);
#pragma unroll
        for (int b = 0; b < CLUSTER; b++) {
            float share = m[b] == -INFINITY ? 0 : __expf(m[b] - max);
            sum += share * l[b];
            o += share * part[b];
        }
        store(x.o + (t * x.x.h + head + rank) * C + threadIdx.x, sum > 0 ? o / sum : 0);
        if (threadIdx.x == 0)
            x.lse[t * x.x.h + head + rank] = max + logf(sum);
    }
    cluster.sync(); /* nobody leaves while its memory is read */
}

/* 1 when it has done them all. */
static int one_attn(struct lane *l, void *o, void *lse, const void *q, const void *k, const void *v,
                    struct spans s, struct heads h)
{
    one x = {(bf16 *)o, (stat *)lse, (const bf16 *)q, (const bf16 *)k, (const bf16 *)v, s, h};
    if (s.queries > 1 || s.n > 65535 || (h.c != 64 && h.c != 128) || h.cv != h.c || h.ldq % 8 ||
        h.ldk % 8 || ((uintptr_t)q | (uintptr_t)k | (uintptr_t)v) % 16)
        return 0;
    dim3 grid(CLUSTER, (unsigned)(h.g * ceil_div(h.h / h.g, EIGHT)), (unsigned)s.n);
    launch_early(l, h.c == 64 ? one_kernel<64> : one_kernel<128>, grid, ONE_THREADS, x);
    launched("attn", "%lld,%d,%d,%d", (long long)s.n, h.h, h.g, h.c);
    return 1;
}

#else
static inline int one_attn(struct lane *, void *, void *, const void *, const void *, const void *,
                           struct spans, struct heads)
{
    return 0;
}
#endif
#endif
