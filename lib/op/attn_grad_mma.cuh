/* attn_grad_mma.cuh -- attention backward on tensor cores, for bf16 heads of 64 and 128.
 *
 * Two kernels, so that nothing is added atomically.  By queries: 128 of a head stay, 64 keys and
 * values at a time come through the ring; S = q k^T, dP = dO v^T, dq += dS k.  By keys: 128 of a
 * key/value head stay, 64 queries and dO of one of its query heads at a time come; S^T = k q^T,
 * dP^T = v dO^T, dv += P^T dO, dk += dS^T q.  S is made twice: 14 C operations a pair where 10 C
 * would do. */
#ifndef ATTN_GRAD_MMA_CUH
#define ATTN_GRAD_MMA_CUH

#include "attn.cuh"

#ifdef REAL_BF16
#include "tiles.cuh"

enum { BWD_ROWS = 64 }; /* keys or queries of a stage */

struct grad_args {
    bf16 *dq, *dk, *dv;
    const bf16 *d_o, *q, *k, *v, *o;
    const float *lse;
    float *delta; /* (Tq,H) */
    const int32_t *tile_at;
    spans s;
    heads x;
    int tk;
};

/* delta = <dO, O> by query and head, a warp each. */
static __global__ void delta_kernel(grad_args g)
{
    int64_t items = (int64_t)g.s.q_at[g.s.n] * g.x.h,
            warps = (int64_t)gridDim.x * (blockDim.x / 32);
    if (g.s.q_at[g.s.n] > g.tk)
        __trap(); /* there is room for as many queries as keys */
    for (int64_t i = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < items;
         i += warps) {
        float sum = 0;
        for (int c = threadIdx.x % 32 * 2; c < g.x.c; c += 64) {
            float2 a = __bfloat1622float2(*(const __nv_bfloat162 *)(g.d_o + i * g.x.c + c));
            float2 b = __bfloat1622float2(*(const __nv_bfloat162 *)(g.o + i * g.x.c + c));
            sum += a.x * b.x + a.y * b.y;
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0)
            g.delta[i] = sum;
    }
}

/* d (64,64) = a b^T: a the warpgroup's 64 rows, b 64 rows, both C wide. */
template <int C>
static __device__ __forceinline__ void rows_by_rows(float *d, uint32_t a, uint32_t b)
{
#pragma unroll
    for (int c = 0; c < C / 16; c++)
        wgmma<64, 0, 0>(d, tile_desc(a + c / 4 * 8192 + c % 4 * 32, 0),
                        tile_desc(b + c / 4 * 8192 + c % 4 * 32, 0), c > 0);
}
/* d (64,C) += a b: a (64,64) in registers, b 64 rows of C. */
template <int C>
static __device__ __forceinline__ void sums_by_rows(float *d, const uint32_t *a, uint32_t b)
{
#pragma unroll
    for (int c = 0; c < 4; c++)
        wgmma_regs<C, 1>(d, a + 4 * c, tile_desc(b + c * 2048, 8192), 1);
}

template <int C>
static __global__ void __launch_bounds__(ROLES, 1)
    attn_dq_mma_kernel(__grid_constant__ const grad_args g)
{
    constexpr int BLOCKS = C / 64, TILE = 64 * C * 2;
    __shared__ ring ring;
    char *own = shared_tiles(), *tiles = own + 4 * TILE;
    int64_t items = (int64_t)g.tile_at[g.s.n] * g.x.h;
    ring_init(&ring);
    if (threadIdx.x < COPIERS) {
        registers_less<COPIER_REGISTERS>();
        int at = 0;
        for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
            q_tile t = q_tile_at(g.tile_at, g.s, g.x, items, i);
            int64_t kv = t.head / (g.x.h / g.x.g) * C;
            for (int j = t.k_beg; j < t.k_end; j += BWD_ROWS)
                for (int which = 0; which < 2; which++) {
                    uint32_t tile = shared_addr(tiles + ring_space(&ring, at) * TILE);
                    copy_tile<BWD_ROWS, BLOCKS>(tile, (which ? g.v : g.k) + j * g.x.ldk + kv,
                                                g.x.ldk, t.k_end - j, threadIdx.x);
                    at = ring_put(&ring, at);
                }
        }
        ring_end(&ring, at);
        return;
    }
    registers_more<COMPUTER_REGISTERS>();
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, at = 0;
    float scale = g.x.scale * 1.44269504f;
    own += group * 2 * TILE; /* queries, then dO */
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        q_tile t = q_tile_at(g.tile_at, g.s, g.x, items, i);
        int first = t.t0 + group * 64, row = first + warp * 16 + lane / 4;
        float dq[C / 2], lse[2], delta[2];
#pragma unroll
        for (int j = 0; j < C / 2; j++)
            dq[j] = 0;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int64_t at = (int64_t)MIN(row + 8 * h, t.t_end - 1) * g.x.h + t.head;
            lse[h] = g.lse[at] * 1.44269504f;
            delta[h] = g.delta[at];
        }
        named_sync(1 + group, 128);
        load_own<BLOCKS>(own, g.q + first * g.x.ldq + t.head * C, g.x.ldq, t.t_end - first);
        load_own<BLOCKS>(own + TILE, g.d_o + ((int64_t)first * g.x.h + t.head) * C,
                         (int64_t)g.x.h * C, t.t_end - first);
        own_ready(1 + group);
        for (int j = t.k_beg; j < t.k_end; j += BWD_ROWS) {
            float s[32], dp[32];
            uint32_t ds[16], k = shared_addr(tiles + ring_get(&ring, at) * TILE);
            wgmma_begin();
            rows_by_rows<C>(s, shared_addr(own), k);
            wgmma_commit();
            uint32_t v = shared_addr(tiles + ring_get(&ring, at + 1) * TILE);
            wgmma_begin();
            rows_by_rows<C>(dp, shared_addr(own + TILE), v);
            wgmma_commit();
            wgmma_wait<1>();
            int masks = j + BWD_ROWS > t.limit + first;
#pragma unroll
            for (int c = 0; c < 32; c++) {
                int h = c / 2 % 2,
                    there = !masks || j + c / 4 * 8 + lane % 4 * 2 + c % 2 < t.limit + row + 8 * h;
                s[c] = there ? exp2f(s[c] * scale - lse[h]) : 0;
            }
            wgmma_wait<0>();
            ring_free(&ring, at + 1);
#pragma unroll
            for (int c = 0; c < 32; c++)
                dp[c] = s[c] * (dp[c] - delta[c / 2 % 2]) * g.x.scale;
#pragma unroll
            for (int c = 0; c < 16; c++)
                ds[c] = pack2(dp[2 * c], dp[2 * c + 1]);
            wgmma_begin();
            sums_by_rows<C>(dq, ds, k);
            wgmma_commit();
            wgmma_wait<0>();
            ring_free(&ring, at);
            at += 2;
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int c = 0; c < C / 8; c++)
                if (row + 8 * h < t.t_end)
                    *(uint32_t *)(g.dq + (row + 8 * h) * g.x.ldq + t.head * C + c * 8 +
                                  lane % 4 * 2) = pack2(dq[4 * c + 2 * h], dq[4 * c + 2 * h + 1]);
    }
}

/* Queries of span i that see any of the keys from j0 to j0 + 128: first, end (none when equal). */
struct seen_by {
    int first, end, limit, k_beg, k_end;
};
static __device__ __forceinline__ seen_by seen_at(const spans &s, int i, int j0)
{
    seen_by y;
    int beg = s.q_at[i];
    y.end = s.q_at[i + 1];
    y.k_beg = s.k_beg[i];
    y.k_end = s.k_end[i];
    y.limit = y.k_end - (y.end - 1);
    int low = MAX(j0, y.k_beg);
    y.first = MAX(beg, low - y.limit + 1);
    if (low >= MIN(j0 + 128, y.k_end) || y.first > y.end)
        y.first = y.end;
    return y;
}

template <int C>
static __global__ void __launch_bounds__(ROLES, 1)
    attn_dkv_mma_kernel(__grid_constant__ const grad_args g)
{
    constexpr int BLOCKS = C / 64, TILE = 64 * C * 2;
    __shared__ ring ring;
    __shared__ float row_stats[STAGES][64]; /* lse with queries, delta with dO */
    char *own = shared_tiles(), *tiles = own + 4 * TILE;
    int j0 = blockIdx.x / g.x.g * 128, kv = blockIdx.x % g.x.g, group_heads = g.x.h / g.x.g;
    ring_init(&ring);
    if (threadIdx.x < COPIERS) {
        registers_less<24>();
        int at = 0;
        for (int i = 0; i < g.s.n; i++) {
            seen_by y = seen_at(g.s, i, j0);
            for (int t = y.first; t < y.end; t += BWD_ROWS)
                for (int head = kv * group_heads; head < (kv + 1) * group_heads; head++)
                    for (int which = 0; which < 2; which++) {
                        int slot = ring_space(&ring, at), there = threadIdx.x < y.end - t;
                        int64_t row = (int64_t)t * g.x.h + head;
                        const float *stats = (which ? g.delta : g.lse) + row;
                        copy_tile<BWD_ROWS, BLOCKS>(
                            shared_addr(tiles + slot * TILE),
                            which ? g.d_o + row * C : g.q + t * g.x.ldq + head * C,
                            which ? (int64_t)g.x.h * C : g.x.ldq, y.end - t, threadIdx.x);
                        if (threadIdx.x < 64)
                            copy4(shared_addr(&row_stats[slot][threadIdx.x]),
                                  stats + (there ? threadIdx.x * g.x.h : 0), there ? 4 : 0);
                        at = ring_put(&ring, at);
                    }
        }
        ring_end(&ring, at);
        return;
    }
    registers_more<240>(); /* two sums of 64 x C and two of 64 x 64 */
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, at = 0;
    int first = j0 + group * 64, row = first + warp * 16 + lane / 4;
    float scale = g.x.scale * 1.44269504f, dk[C / 2], dv[C / 2];
    own += group * 2 * TILE; /* keys, then values */
    load_own<BLOCKS>(own, g.k + first * g.x.ldk + kv * C, g.x.ldk, g.tk - first);
    load_own<BLOCKS>(own + TILE, g.v + first * g.x.ldk + kv * C, g.x.ldk, g.tk - first);
    own_ready(1 + group);
#pragma unroll
    for (int j = 0; j < C / 2; j++)
        dk[j] = dv[j] = 0;
    for (int i = 0; i < g.s.n; i++) {
        seen_by y = seen_at(g.s, i, j0);
        for (int t = y.first; t < y.end; t += BWD_ROWS)
            for (int head = 0; head < group_heads; head++) {
                float s[32], dp[32];
                uint32_t p[16];
                int slot = ring_get(&ring, at);
                uint32_t q = shared_addr(tiles + slot * TILE);
                wgmma_begin();
                rows_by_rows<C>(s, shared_addr(own), q);
                wgmma_commit();
                int slot_o = ring_get(&ring, at + 1);
                uint32_t d_o = shared_addr(tiles + slot_o * TILE);
                wgmma_begin();
                rows_by_rows<C>(dp, shared_addr(own + TILE), d_o);
                wgmma_commit();
                wgmma_wait<1>();
                /* all keys of this warpgroup are the span's and seen by query t */
                int masks = first < y.k_beg || first + 64 > MIN(y.k_end, y.limit + t);
#pragma unroll
                for (int c = 0; c < 32; c++) {
                    int key = row + c / 2 % 2 * 8, col = c / 4 * 8 + lane % 4 * 2 + c % 2;
                    int there =
                        !masks || (key >= y.k_beg && key < y.k_end && key < y.limit + t + col);
                    s[c] = there ? exp2f(s[c] * scale - row_stats[slot][col] * 1.44269504f) : 0;
                }
#pragma unroll
                for (int c = 0; c < 16; c++)
                    p[c] = pack2(s[2 * c], s[2 * c + 1]);
                wgmma_wait<0>();
                wgmma_begin();
                sums_by_rows<C>(dv, p, d_o);
                wgmma_commit();
#pragma unroll
                for (int c = 0; c < 32; c++)
                    dp[c] = s[c] * (dp[c] - row_stats[slot_o][c / 4 * 8 + lane % 4 * 2 + c % 2]) *
                            g.x.scale;
                uint32_t ds[16];
#pragma unroll
                for (int c = 0; c < 16; c++)
                    ds[c] = pack2(dp[2 * c], dp[2 * c + 1]);
                wgmma_begin();
                sums_by_rows<C>(dk, ds, q);
                wgmma_commit();
                wgmma_wait<0>();
                ring_free(&ring, at);
                ring_free(&ring, at + 1);
                at += 2;
            }
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int c = 0; c < C / 8; c++)
            if (row + 8 * h < g.tk) {
                int64_t to = (row + 8 * h) * g.x.ldk + kv * C + c * 8 + lane % 4 * 2;
                *(uint32_t *)(g.dk + to) = pack2(dk[4 * c + 2 * h], dk[4 * c + 2 * h + 1]);
                *(uint32_t *)(g.dv + to) = pack2(dv[4 * c + 2 * h], dv[4 * c + 2 * h + 1]);
            }
}

template <int C>
static void attn_grad_run(struct lane *l, const grad_args &g)
{
    static int raised;
    int bytes = (4 + STAGES) * 64 * C * 2 + 1024;
    if (!raised) {
        cu(cudaFuncSetAttribute(attn_dq_mma_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                bytes));
        cu(cudaFuncSetAttribute(attn_dkv_mma_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                bytes));
    }
    raised = 1;
    if (g.s.n)
        attn_dq_mma_kernel<C><<<cuda_lane(l)->processors, ROLES, bytes, stream(l)>>>(g);
    attn_dkv_mma_kernel<C><<<blocks_of(g.tk, 128) * g.x.g, ROLES, bytes, stream(l)>>>(g);
    launched("attn_dgrad", "%lld,%d,%d,%d", (long long)g.s.n, g.x.h, g.x.g, g.x.c);
}

static inline int mma_attn_dgrad(struct lane *l, void *dq, void *dk, void *dv, const void *d_o,
                                 const void *q, const void *k, const void *v, const void *o,
                                 const void *lse, struct spans s, struct heads x, int64_t tk)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    if (x.cv != x.c || !whole_heads(x, q, k, v, o) || !whole_heads(x, dq, dk, dv, d_o) || !tk)
        return 0;
    grad_args g = {(bf16 *)dq,
                   (bf16 *)dk,
                   (bf16 *)dv,
                   (const bf16 *)d_o,
                   (const bf16 *)q,
                   (const bf16 *)k,
                   (const bf16 *)v,
                   (const bf16 *)o,
                   (const float *)lse,
                   (float *)arena_take(&l->scratch, tk * x.h * (int64_t)sizeof(float)),
                   tiles_cut(l, s),
                   s,
                   x,
                   (int)tk};
    if (s.n)
        delta_kernel<<<cuda_lane(l)->processors * 8, 256, 0, stream(l)>>>(g);
    if (x.c == 64)
        attn_grad_run<64>(l, g);
    else
        attn_grad_run<128>(l, g);
    arena_back(&l->scratch, mark);
    return 1;
}
#else
template <typename... T>
static inline int mma_attn_dgrad(T...)
{
    return 0;
}
#endif
#endif
