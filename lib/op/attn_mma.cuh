/* attn_mma.cuh -- attention forward on tensor cores, for bf16 heads of 64 and 128.
 *
 * A tile is 128 queries of a head, 64 for each of two warpgroups; keys and values come through the
 * ring 128 at a time.  Scores stay in registers and are the left operand of the second product. */
#ifndef ATTN_MMA_CUH
#define ATTN_MMA_CUH

#include "attn.cuh"

#ifdef REAL_BF16
#include "tiles.cuh"

enum { FWD_K = 128 };

struct attn_args {
    bf16 *o;
    float *lse;
    const bf16 *q, *k, *v;
    const int32_t *tile_at;
    spans s;
    heads x;
};

template <int C>
static __global__ void __launch_bounds__(ROLES, 1)
    attn_mma_kernel(__grid_constant__ const attn_args g)
{
    constexpr int BLOCKS = C / 64, Q_BYTES = 64 * C * 2, STAGE = FWD_K * C * 2;
    __shared__ ring ring;
    char *own = shared_tiles(), *tiles = own + 2 * Q_BYTES;
    int64_t items = (int64_t)g.tile_at[g.s.n] * g.x.h;
    ring_init(&ring);
    if (threadIdx.x < COPIERS) {
        registers_less<COPIER_REGISTERS>();
        int at = 0;
        for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
            q_tile t = q_tile_at(g.tile_at, g.s, g.x, items, i);
            int64_t kv = t.head / (g.x.h / g.x.g) * C;
            for (int j = t.k_beg; j < t.k_end; j += FWD_K)
                for (int which = 0; which < 2; which++) {
                    uint32_t tile = shared_addr(tiles + ring_space(&ring, at) * STAGE);
                    copy_tile<FWD_K, BLOCKS>(tile, (which ? g.v : g.k) + j * g.x.ldk + kv, g.x.ldk,
                                             t.k_end - j, threadIdx.x);
                    at = ring_put(&ring, at);
                }
        }
        ring_end(&ring, at);
        return;
    }
    registers_more<COMPUTER_REGISTERS>();
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, at = 0;
    float scale = g.x.scale * 1.44269504f; /* powers of 2 */
    own += group * Q_BYTES;
    for (int64_t i = blockIdx.x; i < items; i += gridDim.x) {
        q_tile t = q_tile_at(g.tile_at, g.s, g.x, items, i);
        int first = t.t0 + group * 64, row = first + warp * 16 + lane / 4;
        float o[C / 2], max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
        for (int j = 0; j < C / 2; j++)
            o[j] = 0;
        named_sync(1 + group, 128); /* nobody reads the queries before any more */
        load_own<BLOCKS>(own, g.q + first * g.x.ldq + t.head * C, g.x.ldq, t.t_end - first);
        own_ready(1 + group);
        for (int j = t.k_beg; j < t.k_end; j += FWD_K) {
            float s[FWD_K / 2];
            uint32_t q = shared_addr(own), k = shared_addr(tiles + ring_get(&ring, at) * STAGE);
            wgmma_begin();
#pragma unroll
            for (int c = 0; c < C / 16; c++)
                wgmma<FWD_K, 0, 0>(s, tile_desc(q + c / 4 * 8192 + c % 4 * 32, 0),
                                   tile_desc(k + c / 4 * FWD_K * 128 + c % 4 * 32, 0), c > 0);
            wgmma_commit();
            wgmma_wait<0>();
            ring_free(&ring, at++);
            if (j + FWD_K > t.limit + first) /* the first row does not see them all */
#pragma unroll
                for (int c = 0; c < FWD_K / 2; c++)
                    if (j + c / 4 * 8 + lane % 4 * 2 + c % 2 >= t.limit + row + c / 2 % 2 * 8)
                        s[c] = -INFINITY;
            float shrink[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = max[h];
#pragma unroll
                for (int c = 0; c < FWD_K / 8; c++)
                    top = fmaxf(top, fmaxf(s[4 * c + 2 * h], s[4 * c + 2 * h + 1]));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
                float base = top == -INFINITY ? 0 : top * scale, part = 0;
                shrink[h] = exp2f(max[h] * scale - base);
                max[h] = top;
#pragma unroll
                for (int c = 0; c < FWD_K / 8; c++)
#pragma unroll
                    for (int b = 0; b < 2; b++) {
                        float p = exp2f(s[4 * c + 2 * h + b] * scale - base);
                        s[4 * c + 2 * h + b] = p;
                        part += p;
                    }
                sum[h] = sum[h] * shrink[h] + part;
            }
#pragma unroll
            for (int c = 0; c < C / 2; c++)
                o[c] *= shrink[c / 2 % 2];
            uint32_t p[FWD_K / 4];
#pragma unroll
            for (int c = 0; c < FWD_K / 4; c++)
                p[c] = pack2(s[2 * c], s[2 * c + 1]);
            uint32_t v = shared_addr(tiles + ring_get(&ring, at) * STAGE);
            wgmma_begin();
#pragma unroll
            for (int c = 0; c < FWD_K / 16; c++)
                wgmma_regs<C, 1>(o, p + 4 * c, tile_desc(v + c * 2048, FWD_K * 128), 1);
            wgmma_commit();
            wgmma_wait<0>();
            ring_free(&ring, at++);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int64_t q = row + 8 * h;
            sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
            sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
            float share = sum[h] > 0 ? 1 / sum[h] : 0;
            if (q >= t.t_end)
                continue;
#pragma unroll
            for (int c = 0; c < C / 8; c++)
                *(uint32_t *)(g.o + (q * g.x.h + t.head) * C + c * 8 + lane % 4 * 2) =
                    pack2(o[4 * c + 2 * h] * share, o[4 * c + 2 * h + 1] * share);
            if (lane % 4 == 0)
                g.lse[q * g.x.h + t.head] = max[h] * g.x.scale + logf(sum[h]);
        }
    }
}

template <int C>
static void attn_mma_run(struct lane *l, const attn_args &g)
{
    static int raised;
    int bytes = 2 * 64 * C * 2 + STAGES * FWD_K * C * 2 + 1024;
    if (!raised)
        cu(cudaFuncSetAttribute(attn_mma_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                bytes));
    raised = 1;
    attn_mma_kernel<C><<<cuda_lane(l)->processors, ROLES, bytes, stream(l)>>>(g);
    launched("attn", "%lld,%d,%d,%d", (long long)g.s.n, g.x.h, g.x.g, g.x.c);
}

static inline int mma_attn(struct lane *l, void *o, void *lse, const void *q, const void *k,
                           const void *v, struct spans s, struct heads x)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    if (!whole_heads(x, q, k, v, o))
        return 0;
    attn_args g = {(bf16 *)o,
                   (float *)lse,
                   (const bf16 *)q,
                   (const bf16 *)k,
                   (const bf16 *)v,
                   tiles_cut(l, s),
                   s,
                   x};
    if (x.c == 64)
        attn_mma_run<64>(l, g);
    else
        attn_mma_run<128>(l, g);
    arena_back(&l->scratch, mark);
    return 1;
}
#else
template <typename... T>
static inline int mma_attn(T...)
{
    return 0;
}
#endif
#endif
