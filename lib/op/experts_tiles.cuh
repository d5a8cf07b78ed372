/* experts_tiles.cuh -- of experts_mma.cuh: what a mode multiplies in tiles of what shape, and which
 * tile is a block's next.
 *
 * Counts are read on the device, so blocks find their tiles from the row map.  Tiles go expert by
 * expert, in an expert panel by panel, in a panel down before across, so that a panel of A and what
 * passes it of B are in L2 together. */
#ifndef EXPERTS_TILES_CUH
#define EXPERTS_TILES_CUH

#include "experts.cuh"
#include "stages.cuh"

#include <type_traits>

enum mma_mode { UP, DOWN, DH, DX, UP_W, DOWN_W };

enum {
    HALF_M = 128, /* rows of a warpgroup */
    TILE_K = 64,
    PANEL = 2048,               /* rows of A */
    HALF_BYTES = HALF_M * 128,  /* of a stage */
    BLOCK_BYTES = TILE_K * 128, /* of an operand with K along its rows: 64 columns */
    FINISHERS = 128             /* threads */
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

/* JOINT: the two warpgroups of a block have a tile together, and two blocks a pair of neighbours.
 */
template <int MODE, int JOINT>
struct traits {
    static constexpr int wgrad = MODE == UP_W || MODE == DOWN_W;
    static constexpr int at = wgrad, bt = wgrad || MODE == DH || MODE == DX; /* K along rows */
    static constexpr int gathers = (MODE == UP || MODE == DH) && !JOINT;     /* A */
    static constexpr int finishers = MODE == DH && JOINT ? FINISHERS : 0; /* else takers finish */
    static constexpr int blocks = JOINT ? 2 : 1;
    static constexpr int halves = JOINT ? 2 : 1, m = halves * HALF_M; /* rows of a tile */
    static constexpr int n = MODE == DH ? 128 : 192;                  /* and columns */
    static constexpr int cols = MODE == UP ? n / 2 : n; /* of the product's n that it covers */
    static constexpr int sums = n / 2;                  /* of a thread, for 64 rows */
    static constexpr int a_bytes = m * 128, b_bytes = n * 128, bytes = a_bytes + b_bytes;
    static constexpr int left = finishers ? HALF_M * n * 2 : 0; /* bytes of sums for them */
    static constexpr int depth = ((JOINT ? 229376 : 228352) - left) / bytes;
    static constexpr int shared = depth * bytes + left + 1024;
    using count = typename std::conditional<JOINT, uint16_t, int>::type; /* of tiles before... */
    static constexpr int experts = JOINT ? LONG_EXPERTS : 1024; /* ...each of at most so many */
    static constexpr int taker_registers = finishers ? 168 : TAKER_REGISTERS;
    static constexpr int finisher_registers = 136;
    using ring = stages<depth>;
};

struct mma_tile {
    int expert, i0, j0, steps; /* i0: row of the map, or of the weight */
    int begin, end;            /* of the expert's rows */
    int halves;                /* that are there */
};

static __device__ __forceinline__ int across(int n, int tile)
{
    return (n + tile - 1) / tile;
}

/* first (E+1): before each expert, how many tiles of `m` rows the others have.  One warp. */
template <typename C>
static __device__ __forceinline__ void count_tiles(C *first, const struct map &r, int m)
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
            first[e] = (C)(sum + x - n);
        sum += __shfl_sync(~0u, x, 31);
    }
    if (lane == 0)
        first[r.e] = (C)sum;
}

/* The tiles of a block, or of a pair of blocks, are number tile_first() and every tile_next()th. */
template <typename t>
static __device__ __forceinline__ int tile_count(const mma_args &g, const typename t::count *first)
{
    return (t::wgrad ? g.r.e * across(g.m, t::m) : first[g.r.e]) * across(g.n, t::cols * t::blocks);
}
template <typename t>
static __device__ __forceinline__ int tile_first()
{
    return blockIdx.x / t::blocks;
}
template <typename t>
static __device__ __forceinline__ int tile_next()
{
    return gridDim.x / t::blocks;
}

template <typename t>
static __device__ __forceinline__ mma_tile tile_at(const mma_args &g,
                                                   const typename t::count *first, int i)
{
    const int panel = PANEL / t::m;
    int wide = across(g.n, t::cols * t::blocks), tall = across(g.m, t::m);
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
    x.j0 = (i / high * t::blocks + blockIdx.x % t::blocks) * t::cols;
    x.steps = across(t::wgrad ? x.end - x.begin : g.k, TILE_K);
    return x;
}

#endif
