/* drop.cu -- choices that an expert has no room for: of a group's choices (N,K) of one expert the
 * largest `room` gates are kept, equal ones in order of tokens.
 *
 * Bound: the choices of a group, which lie in L2, are read by E blocks six times; a block is one
 * expert and one group.  The smallest gate kept is found by radix select: floats >= 0 order as
 * their bits do (rounded to 13 significant ones), and each of four passes counts by one digit of 8
 * bits. */
#include "real.cuh"

enum { DIGITS = 256, THREADS = 256 };

struct drop_group { /* the choices of a group, from the block's first */
    const int32_t *index;
    const stat *gate;
    int64_t n;
};

/* Whether choice i is of the expert, and its gate's bits, rounded. */
static __device__ __forceinline__ int is_choice(const struct drop_group *g, int64_t i, int x,
                                                unsigned *key)
{
    int here = i < g->n && g->index[i] == x;
    *key = here ? (__float_as_uint(g->gate[i]) + (1 << 10)) & ~0x7ffu : 0;
    return here;
}

/* The `room` largest keys end with this one; of those that equal it, *ties are among them. */
static __device__ unsigned last_kept(const struct drop_group *g, int x, int room, int *ties)
{
    __shared__ int count[DIGITS];
    __shared__ unsigned prefix;
    __shared__ int left;
    unsigned key;
    if (threadIdx.x == 0)
        prefix = 0, left = room;
    for (int shift = 24; shift >= 0; shift -= 8) {
        count[threadIdx.x] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < g->n; i += THREADS)
            if (is_choice(g, i, x, &key) && (shift == 24 || (key ^ prefix) >> (shift + 8) == 0))
                atomicAdd(&count[key >> shift & 255], 1);
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;
            for (; count[digit] < left; digit--)
                left -= count[digit];
            prefix |= (unsigned)digit << shift;
        }
        __syncthreads();
    }
    *ties = left;
    return prefix;
}

static __global__ void __launch_bounds__(THREADS)
    drop_kernel(int32_t *kept, int *dropped, const int32_t *index, const stat *gate, int64_t tokens,
                int64_t rows, int k, double share)
{
    __shared__ int before[THREADS / 32];
    int x = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t lo = (int64_t)blockIdx.y * rows * k;
    int64_t n = MAX(0, MIN(tokens * k - lo, rows * k));
    struct drop_group g = {index + lo, gate + lo, n};
    int live = 0, all = 0, ties = 0;
    unsigned key, last = 0;
    for (int64_t i = 0; i < n; i += THREADS) {
        int64_t j = i + threadIdx.x;
        live += __syncthreads_count(j < n && j % k == 0 && g.index[j] >= 0);
        all += __syncthreads_count(is_choice(&g, j, x, &key));
    }
    int64_t room = (int64_t)ceil(live * share - 1e-9);
    if (all > room && room > 0)
        last = last_kept(&g, x, (int)room, &ties);
    for (int64_t i = 0; i < n; i += THREADS) {
        int64_t j = i + threadIdx.x;
        int here = is_choice(&g, j, x, &key), equal = here && key == last;
        unsigned vote = __ballot_sync(~0u, equal);
        if (lane == 0)
            before[warp] = __popc(vote);
        int seen = __popc(vote & ((1u << lane) - 1)), sum = __syncthreads_count(equal);
        for (int w = 0; w < warp; w++)
            seen += before[w];
        int keep = all <= room || (room > 0 && (key > last || (equal && seen < ties)));
        if (here)
            kept[lo + j] = keep ? x : -1;
        else if (x == 0 && j < n && g.index[j] < 0)
            kept[lo + j] = -1;
        ties -= sum;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        dropped[blockIdx.y * gridDim.x + x] = (int)MAX(0, all - room);
}

static __global__ void drop_sum(stat *sum, const int *dropped, int64_t n)
{
    double all = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        all += dropped[i];
    all = block_sum(all);
    if (threadIdx.x == 0)
        *sum += (float)all;
}

extern "C" void OPNAME(drop)(struct lane *l, int32_t *kept, void *dropped, const int32_t *index,
                             const void *gate, int64_t t, int64_t e, int64_t k, int64_t a,
                             double factor)
{
    if (!t)
        return;
    struct arena_mark mark = arena_mark(&l->scratch);
    int *part = (int *)arena_take(&l->scratch, a * e * (int64_t)sizeof *part); /* (A,E) */
    drop_kernel<<<dim3((unsigned)e, (unsigned)a), THREADS, 0, stream(l)>>>(
        kept, part, index, (const stat *)gate, t, ceil_div(t, a), (int)k,
        factor * (double)k / (double)e);
    drop_sum<<<1, 256, 0, stream(l)>>>((stat *)dropped, part, a * e);
    launched("drop", "%lld,%lld,%lld", (long long)t, (long long)e, (long long)k);
    arena_back(&l->scratch, mark);
}
