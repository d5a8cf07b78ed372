/* experts_mma.cuh -- the products of all experts on tensor cores, for bf16 rows of whole 64
 * elements.
 *
 * One persistent kernel, six modes.  A tile is 128 x 192 of an expert's product.  The two computing
 * warpgroups of a block take turns: while one multiplies, the other has the epilogue
 * (experts_finish.cuh), which applies the activation to the sums in registers.  Where K is long the
 * epilogue matters less than what L2 must deliver: they join in a tile of 256 rows, and blocks in
 * pairs with tiles side by side, each of which copies half of their rows to both.  Tiles of DH are
 * 128 wide, since its epilogue is long: where warpgroups join it is a third one's.
 *
 * Operands come in boxes by the copy engine.  Rows that were sent are gathered while they are
 * copied or, where warpgroups join or K runs over them, laid in the order of the map first, since a
 * box is then faster than threads that copy.
 *
 *   mode      A                  B                    K       out
 *   UP        x[row] (.,D)       up_e (2F,D)          D       h, a; N/2 columns of each half of h
 *   DOWN      a (M,F)            down_e (D,F)         F       y
 *   DH        dout[row] (.,D)    down_e (D,F)^T       D       dh, a, parts of dgate
 *   DX        dh (M,2F)          up_e (2F,D)^T        2F      dx
 *   UP_W      dh (M,2F)^T        x[row]^T             rows    dw (E,2F,D), written or added to
 *   DOWN_W    dout[row]^T        a^T                  rows    dw (E,D,F), as well
 *
 * Bound: tensor cores; 77 operations a byte copied from L2, 154 in pairs (128 in DH). */
#ifndef EXPERTS_MMA_CUH
#define EXPERTS_MMA_CUH

#include "experts_tiles.cuh"
#include "experts_finish.cuh"

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
    barrier_arrive_bytes(full, t::b_bytes + (t::gathers ? 0 : x.halves * HALF_BYTES));
    int half = blockIdx.x % t::blocks; /* of A, which a block of a pair copies to both */
    if (!t::gathers && half < x.halves) {
        int y = t::at ? x.begin + k : x.i0 + half * HALF_M, z = t::at ? x.i0 / 64 + half * 2 : 0;
        copy_box_to_all<t::blocks>(a + half * HALF_BYTES, &g.a_map, t::at ? 0 : k, y, z, full);
    }
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
static __device__ __forceinline__ void fill(const mma_args &g, const typename t::count *first,
                                            typename t::ring *ring, uint32_t tiles)
{
    int at = 0, p = threadIdx.x, r0 = p / 8, all = uniform(tile_count<t>(g, first));
    for (int i = tile_first<t>(); i < all; i += tile_next<t>()) {
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
            stage_free<t::blocks>(ring, at + s - 1);
        }
    }
}

/* What becomes of d, the sums of a warpgroup's half of a tile. */
template <int MODE, typename t>
static __device__ __forceinline__ void give(const mma_args &g, const mma_tile &x,
                                            float d[2][t::sums], uint32_t left, int half)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16;
#pragma unroll
    for (int b = 0; b < 2; b++, row += 64) {
        if (!x.steps) /* a weight of an expert without rows */
            for (int c = 0; c < t::sums; c++)
                d[b][c] = 0;
        if constexpr (t::finishers)
            relay_put<t::n>(left, row, d[b]);
        else
            finish<MODE, t::n>(g, x, d[b], x.i0 + half * HALF_M + row + lane / 4,
                               x.j0 + lane % 4 * 2);
    }
}

/* Stages of a tile that the warpgroup has no part in. */
template <typename t>
static __device__ __forceinline__ void skip(typename t::ring *ring, int at, int steps)
{
    for (int s = 0; s < steps; s++) {
        stage_get(ring, at + s);
        stage_free<t::blocks>(ring, at + s);
    }
}

/* The tiles of one of the two warpgroups: every other one, or its half of each. */
template <int MODE, typename t>
static __device__ __forceinline__ void take(const mma_args &g, const typename t::count *first,
                                            typename t::ring *ring, struct relay *relay,
                                            uint32_t tiles, int me)
{
    int at = 0, turn = 0, all = tile_count<t>(g, first), half = t::halves > 1 ? me : 0;
    for (int i = tile_first<t>(); i < all; i += tile_next<t>(), turn ^= 1) {
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
                stage_free<t::blocks>(ring, at + x.steps - 1);
            if (t::finishers)
                relay_wait(relay, half, turn);
            give<MODE, t>(g, x, d, tiles + t::depth * t::bytes, half);
            if (t::finishers)
                relay_pass(&relay->full[half]);
        } else if (t::halves > 1) {
            skip<t>(ring, at, x.steps);
            if (t::finishers) {
                relay_wait(relay, half, turn);
                relay_pass(&relay->full[half]);
            }
        }
        at += x.steps;
    }
}

template <int MODE, int JOINT>
static __global__ void __launch_bounds__(ROLES + traits<MODE, JOINT>::finishers, 1)
    mma_kernel(__grid_constant__ const mma_args g)
{
    using t = traits<MODE, JOINT>;
    __shared__ typename t::ring ring;
    __shared__ struct relay relay;
    __shared__ typename t::count first[t::wgrad ? 1 : t::experts + 1];
    uint32_t tiles = shared_addr(shared_tiles());
    int role = threadIdx.x / 128;
    if (!t::wgrad && threadIdx.x < 32)
        count_tiles(first, g.r, t::m);
    if (t::finishers)
        relay_init(&relay);
    stages_init<t::blocks>(&ring, t::gathers ? FILLERS + 1 : 1, t::halves);
    if (role == 0) {
        registers_less<FILLER_REGISTERS>();
        if (t::gathers || threadIdx.x < 32)
            fill<MODE, t>(g, first, &ring, tiles);
    } else if (role < 3) {
        registers_more<t::taker_registers>();
        take<MODE, t>(g, first, &ring, &relay, tiles, role - 1);
    } else if constexpr (t::finishers) {
        registers_more<t::finisher_registers>();
        finish_relayed<t>(g, first, &relay, tiles + t::depth * t::bytes);
    }
    if (t::blocks > 1)
        cluster_sync(); /* nobody leaves while the other still fills and frees its stages */
}

#endif
