/* draw.cu -- a token drawn from each row of logits (T,V): temperature, then top-p, then u.
 *
 * A cluster of blocks takes a row, a warp a stretch of it.  Without top-p the stretch in which the
 * running sum reaches its target is found from the sums of all, then walked.  With top-p the order
 * is that of probability, and nothing is sorted: the logit at which the sum over all that are no
 * smaller reaches a target is found digit by digit, once for the cut and once for the draw.  All
 * sums are f64 and in a fixed order.  Bound: latency; T V read once, or 32 times from L2. */
#include "real.cuh"

#include <cooperative_groups.h>
namespace cg = cooperative_groups;

enum { CLUSTER = 8, THREADS = 512, WARPS = THREADS / 32, DIGIT = 2, TRIES = (1 << DIGIT) - 1 };

struct draw_args {
    int32_t *token;
    const stat *logits;
    const double *u;
    double *p; /* (T,V) where top_p < 1 */
    int64_t v;
    double temperature, top_p;
};

struct draw_shared {
    double sum[2][TRIES], warp[WARPS][TRIES]; /* of the block, twice in turn; of each warp */
    unsigned long long top[WARPS], best;
};

struct draw_row { /* what every thread knows of its row */
    cg::cluster_group cluster;
    draw_shared *s;
    const stat *x;         /* (V) */
    double *p;             /* (V) */
    int64_t v, begin, end; /* the row's stretch of this block */
    float best;            /* the largest logit */
    double temperature;
    int turn;
};

/* Floats in order as unsigned numbers. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
    uint32_t b = __float_as_uint(x + 0.0f); /* -0 is 0 */
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
static __device__ __forceinline__ float value_of(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
static __device__ __forceinline__ double probability(const draw_row &r, float x)
{
    return exp(((double)x - (double)r.best) / r.temperature);
}

/* x[i] becomes the sum over all threads of the cluster, the same in each. */
template <int N>
static __device__ __forceinline__ void cluster_sum(draw_row &r, double *x)
{
    draw_shared *s = r.s;
    int warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < N; i++) {
        double sum = warp_sum(x[i]);
        if (threadIdx.x % 32 == 0)
            s->warp[warp][i] = sum;
    }
    __syncthreads();
    if (threadIdx.x < N) {
        double sum = 0;
        for (int w = 0; w < WARPS; w++)
            sum += s->warp[w][threadIdx.x];
        s->sum[r.turn][threadIdx.x] = sum;
    }
    r.cluster.sync();
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = 0;
    for (int b = 0; b < CLUSTER; b++)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] += r.cluster.map_shared_rank(s, b)->sum[r.turn][i];
    r.turn ^= 1; /* the others may still read this one */
}

/* The largest logit and its lowest id. */
static __device__ int32_t draw_best(draw_row &r)
{
    unsigned long long top = 0;
    for (int64_t j = r.begin + threadIdx.x; j < r.end; j += THREADS)
        top = max(top, (unsigned long long)key_of(r.x[j]) << 32 | (uint32_t)~j);
#pragma unroll
    for (int i = 16; i; i >>= 1)
        top = max(top, __shfl_xor_sync(~0u, top, i));
    if (threadIdx.x % 32 == 0)
        r.s->top[threadIdx.x / 32] = top;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 0; w < WARPS; w++)
            top = max(top, r.s->top[w]);
        r.s->best = top;
    }
    r.cluster.sync();
    for (int b = 0; b < CLUSTER; b++)
        top = max(top, r.cluster.map_shared_rank(r.s, b)->best);
    r.best = value_of((uint32_t)(top >> 32));
    return (int32_t) ~(uint32_t)top;
}

/* What an element adds to the sum that is walked: its probability, or 1 where its key is `only`. */
template <int COUNT>
static __device__ __forceinline__ double step_of(const draw_row &r, int64_t j, uint32_t only)
{
    return COUNT ? key_of(r.x[j]) == only : probability(r, r.x[j]);
}

/* The first id at which the sum over it and all before reaches share of everything (COUNT: reaches
 * share itself).  One thread of the cluster writes it. */
template <int COUNT>
static __device__ void draw_walk(draw_row &r, int32_t *token, double share, uint32_t only)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t each = (r.end - r.begin + WARPS - 1) / WARPS, begin = min(r.end, r.begin + warp * each);
    int64_t end = min(r.end, begin + each);
    double sum = 0, all = 0, before = 0;
    for (int64_t j = begin + lane; j < end; j += 32)
        sum += step_of<COUNT>(r, j, only);
    sum = warp_sum(sum);
    r.cluster.sync(); /* sums of warps may still be in use */
    if (lane == 0)
        r.s->warp[warp][0] = sum;
    r.cluster.sync();
    int mine = r.cluster.block_rank() * WARPS + warp, chosen = -1;
    for (int w = 0; w < CLUSTER * WARPS; w++)
        all += r.cluster.map_shared_rank(r.s, w / WARPS)->warp[w % WARPS][0];
    double target = COUNT ? fmin(share, all) : share * all, at = 0;
    for (int w = 0; w < CLUSTER * WARPS; w++) {
        double x = r.cluster.map_shared_rank(r.s, w / WARPS)->warp[w % WARPS][0];
        if (x > 0 && (chosen < 0 || at < target)) {
            chosen = w;
            before = at;
        }
        at += x;
    }
    r.cluster.sync(); /* nobody leaves while its memory is read */
    if (mine != chosen)
        return;
    for (int64_t j0 = begin; j0 < end; j0 += 32) {
        double x = j0 + lane < end ? step_of<COUNT>(r, j0 + lane, only) : 0;
#pragma unroll
        for (int i = 1; i < 32; i *= 2) {
            double y = __shfl_up_sync(~0u, x, i);
            x += lane >= i ? y : 0;
        }
        unsigned there = __ballot_sync(~0u, before + x >= target);
        int last = j0 + 32 >= end; /* sums in another order may end just below */
        if (there || last) {
            if (lane == 0)
                *token = (int32_t)min(end - 1, j0 + (there ? __ffs(there) - 1 : 31));
            return;
        }
        before += __shfl_sync(~0u, x, 31);
    }
}

/* In order of probability: the key at which the sum reaches target, how many of its like are
 * needed, and the sum with them. */
static __device__ uint32_t draw_reach(draw_row &r, double target, double *ties, double *reached)
{
    uint32_t key = 0;
    double above = 0; /* the sum over all beyond the present digit's */
    for (int shift = 32 - DIGIT; shift >= 0; shift -= DIGIT) {
        double sum[TRIES] = {};
        for (int64_t j = r.begin + threadIdx.x; j < r.end; j += THREADS) {
            uint32_t k = key_of(r.x[j]);
            double p = r.p[j];
#pragma unroll
            for (int i = 0; i < TRIES; i++)
                sum[i] += k >= (key | (uint32_t)(i + 1) << shift) ? p : 0;
        }
        cluster_sum<TRIES>(r, sum);
        int digit = 0;
        for (int i = 0; i < TRIES; i++)
            if (sum[i] >= target)
                digit = i + 1;
        above = digit < TRIES ? sum[digit] : above;
        key |= (uint32_t)digit << shift;
    }
    double p = probability(r, value_of(key));
    *ties = fmax(1.0, ceil((target - above) / p));
    *reached = above + *ties * p;
    return key;
}

static __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    draw_kernel(const __grid_constant__ draw_args d)
{
    __shared__ draw_shared s;
    draw_row r = {cg::this_cluster(), &s};
    int64_t t = blockIdx.y, each = (d.v + CLUSTER - 1) / CLUSTER;
    r.x = d.logits + t * d.v;
    r.p = d.p + t * d.v;
    r.v = d.v;
    r.begin = min(d.v, blockIdx.x * each);
    r.end = min(d.v, r.begin + each);
    r.temperature = d.temperature;
    int32_t best = draw_best(r);
    if (d.temperature <= 0) {
        if (blockIdx.x == 0 && threadIdx.x == 0)
            d.token[t] = best;
        r.cluster.sync(); /* nobody leaves while its memory is read */
        return;
    }
    if (d.top_p >= 1) {
        draw_walk<0>(r, d.token + t, d.u[t], 0);
        return;
    }
    double sum = 0, ties, mass;
    for (int64_t j = r.begin + threadIdx.x; j < r.end; j += THREADS)
        sum += r.p[j] = probability(r, r.x[j]);
    cluster_sum<1>(r, &sum);
    draw_reach(r, d.top_p * sum, &ties, &mass);
    uint32_t key = draw_reach(r, d.u[t] * mass, &ties, &mass);
    draw_walk<1>(r, d.token + t, ties, key);
}

extern "C" void OPNAME(draw)(struct lane *l, int32_t *token, const void *logits, const double *u,
                             int64_t t, int64_t v, double temperature, double top_p)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    draw_args d = {token, (const stat *)logits, u, NULL, v, temperature, top_p};
    if (!t)
        return;
    if (temperature > 0 && top_p < 1)
        d.p = (double *)arena_take(&l->scratch, t * v * (int64_t)sizeof *d.p);
    draw_kernel<<<dim3(CLUSTER, (unsigned)t), THREADS, 0, stream(l)>>>(d);
    launched("draw", "%lld,%lld", (long long)t, (long long)v);
    arena_back(&l->scratch, mark);
}
