/* window_move.cuh -- the kernel of window_nccl.cu: half the warps of a block write this rank's rows into
 * the windows of the others and raise a flag behind every few; the other half wait for the flags that
 * the same warps of the others raise here, and take what has arrived to where it belongs.  So what goes
 * over the links hides the copies on either side. */
#ifndef WINDOW_MOVE_CUH
#define WINDOW_MOVE_CUH

#include "dev/dev.cuh"

#include <cuda_bf16.h>

enum {
    RANKS = 8,
    PARTS = 3,
    WARPS = 8, /* of a block that send, and as many that take */
    BLOCKS = 128,
    CHUNKS = 1 << 20,
    HEAD = RANKS * BLOCKS * WARPS * 8 /* flags */
};

struct turn { /* on the device: this rank's movements */
    unsigned long long phase;
    unsigned done; /* blocks of the one under way */
};
struct part {
    char *out;
    const char *in, *res;
    int64_t bytes, at; /* of a row; of the first one in a half of the window */
    int coarse;        /* bf16 */
};
struct movement {
    char *peer[RANKS];
    int me, ranks, share, parts;
    int64_t n, k, el, half, chunk;
    const int32_t *index, *there;
    struct turn *turn;
    struct part part[PARTS];
};

static __device__ unsigned long long *flag_of(char *window, int from)
{
    return (unsigned long long *)window +
           ((from * BLOCKS + blockIdx.x) * WARPS + threadIdx.x / 32 % WARPS);
}

static __device__ void raise_flag(unsigned long long *flag, unsigned long long to)
{
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(to) : "memory");
}

static __device__ void await_flag(const unsigned long long *flag, unsigned long long least)
{
    unsigned long long now;
    do
        asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(now) : "l"(flag) : "memory");
    while (now < least);
}

/* The ranks that hold one of the experts of a row, a bit each; asked by a whole warp. */
static __device__ unsigned ranks_of(const struct movement &m, const int32_t *index)
{
    unsigned set = 0, together = (1u << m.share) - 1;
    for (int64_t j = threadIdx.x % 32; j < m.k; j += 32) {
        uint32_t group = index[j] < 0 ? RANKS : (uint32_t)index[j] / (uint32_t)m.el;
        if (group * m.share < m.ranks)
            set |= together << group * m.share;
    }
    return __reduce_or_sync(~0u, set);
}

template <typename U>
static __device__ void copy_units(char *to, const char *from, int64_t bytes)
{
    enum { DEEP = 8 };
    int64_t units = bytes / (int64_t)sizeof(U);
    for (int64_t j = threadIdx.x % 32; j < units; j += 32 * DEEP) {
        U x[DEEP];
#pragma unroll
        for (int d = 0; d < DEEP; d++)
            if (j + d * 32 < units)
                x[d] = ((const U *)from)[j + d * 32];
#pragma unroll
        for (int d = 0; d < DEEP; d++)
            if (j + d * 32 < units)
                ((U *)to)[j + d * 32] = x[d];
    }
}

/* A row, by a warp. */
static __device__ void copy_row(char *to, const char *from, int64_t bytes)
{
    if (bytes % 16 == 0)
        copy_units<uint4>(to, from, bytes);
    else
        copy_units<uint16_t>(to, from, bytes);
}

static __device__ float number(float x)
{
    return x;
}
static __device__ float number(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
static __device__ void put(float *p, float x)
{
    *p = x;
}
static __device__ void put(__nv_bfloat16 *p, float x)
{
    *p = __float2bfloat16_rn(x);
}

/* The rows that lie here for a row at home: of the ranks in a set, each rank's n further on. */
struct answers {
    const char *own, *first; /* this rank's, and rank 0's */
    int64_t next;
    unsigned set;
    int me, ranks;
};

/* out = res + the answers, in order of ranks: a row, by a warp. */
template <typename T, typename U, int DEEP, bool FEW>
static __device__ void sum_some(char *out, const char *res, const struct answers &from,
                                int64_t bytes)
{
    enum { AT_ONCE = 3, V = sizeof(U) / sizeof(T) };
    int64_t units = bytes / (int64_t)sizeof(U);
    for (int64_t j = threadIdx.x % 32; j < units; j += 32 * DEEP) {
        float sum[DEEP][V] = {};
        for (int first = -1; first < (FEW ? 0 : from.ranks); first += AT_ONCE) {
            U a[AT_ONCE][DEEP];
#pragma unroll
            for (int s = 0; s < AT_ONCE; s++) {
                int r = first + s;
                const U *x = (const U *)(r < 0          ? res
                                         : r == from.me ? from.own
                                                        : from.first + r * from.next);
                bool there = r < 0 ? res != NULL : from.set >> r & 1;
#pragma unroll
                for (int d = 0; d < DEEP; d++)
                    a[s][d] = there && j + d * 32 < units ? x[j + d * 32] : U{};
            }
#pragma unroll
            for (int s = 0; s < AT_ONCE; s++)
#pragma unroll
                for (int d = 0; d < DEEP; d++)
#pragma unroll
                    for (int v = 0; v < V; v++)
                        sum[d][v] += number(((const T *)&a[s][d])[v]);
        }
#pragma unroll
        for (int d = 0; d < DEEP; d++) {
            U y;
#pragma unroll
            for (int v = 0; v < V; v++)
                put((T *)&y + v, sum[d][v]);
            if (j + d * 32 < units)
                ((U *)out)[j + d * 32] = y;
        }
    }
}

/* All of what two ranks have is loaded before it is added. */
template <typename T, typename U>
static __device__ void sum_units(char *out, const char *res, const struct answers &from,
                                 int64_t bytes)
{
    if (from.ranks <= 2)
        sum_some<T, U, 4, true>(out, res, from, bytes);
    else
        sum_some<T, U, 2, false>(out, res, from, bytes);
}

static __device__ void sum_row(const struct part &p, int64_t i, const struct answers &from)
{
    char *out = p.out + i * p.bytes;
    const char *res = p.res ? p.res + i * p.bytes : NULL;
    bool wide = p.bytes % 16 == 0;
    if (p.coarse && wide)
        sum_units<__nv_bfloat16, uint4>(out, res, from, p.bytes);
    else if (p.coarse)
        sum_units<__nv_bfloat16, __nv_bfloat16>(out, res, from, p.bytes);
    else if (wide)
        sum_units<float, float4>(out, res, from, p.bytes);
    else
        sum_units<float, float>(out, res, from, p.bytes);
}

/* The first part only of rows that are wanted; the others, which say what is wanted, of all. */
static __device__ void take_row(const struct movement &m, const char *half, int from, int64_t i)
{
    int64_t row = from * m.n + i;
    const int32_t *index = m.there ? m.there + row * m.k
                           : from == m.me
                               ? m.index + i * m.k
                               : (const int32_t *)(half + m.part[1].at + row * m.part[1].bytes);
    for (int p = ranks_of(m, index) >> m.me & 1 ? 0 : 1; p < m.parts; p++) {
        const struct part &q = m.part[p];
        copy_row(q.out + row * q.bytes,
                 from == m.me ? q.in + i * q.bytes : half + q.at + row * q.bytes, q.bytes);
    }
}

static __device__ void send_row(const struct movement &m, int64_t half, int p, int to,
                                const char *in, int64_t i)
{
    const struct part &q = m.part[p];
    copy_row(m.peer[to] + half + q.at + (m.me * m.n + i) * q.bytes, in, q.bytes);
}

/* To the ranks of the experts: rows beg .. end of every rank's n. */
struct to_experts {
    static __device__ void send(const struct movement &m, int64_t half, int64_t i)
    {
        unsigned set = ranks_of(m, m.index + i * m.k);
        for (int r = 1, to; r < m.ranks; r++) {
            to = (m.me + r) % m.ranks;
            for (int p = set >> to & 1 ? 0 : 1; p < m.parts; p++)
                send_row(m, half, p, to, m.part[p].in + i * m.part[p].bytes, i);
        }
    }
    static __device__ void before(const struct movement &m, const char *half, int64_t i)
    {
        take_row(m, half, m.me, i);
    }
    static __device__ void after(const struct movement &m, const char *half, int64_t i)
    {
        for (int r = 0; r < m.ranks; r++)
            if (r != m.me)
                take_row(m, half, r, i);
    }
};

/* And their answers home. */
struct to_home {
    static __device__ void send(const struct movement &m, int64_t half, int64_t i)
    {
        for (int r = 1; r < m.ranks; r++) {
            int to = (m.me + r) % m.ranks;
            int64_t row = to * m.n + i;
            if (ranks_of(m, m.there + row * m.k) >> m.me & 1)
                for (int p = 0; p < m.parts; p++)
                    send_row(m, half, p, to, m.part[p].in + row * m.part[p].bytes, i);
        }
    }
    static __device__ void before(const struct movement &m, const char *half, int64_t i)
    {
    }
    static __device__ void after(const struct movement &m, const char *half, int64_t i)
    {
        struct answers from = {.set = ranks_of(m, m.index + i * m.k), .me = m.me, .ranks = m.ranks};
        for (int p = 0; p < m.parts; p++) {
            const struct part &q = m.part[p];
            from.own = q.in + (m.me * m.n + i) * q.bytes;
            from.first = half + q.at + i * q.bytes;
            from.next = m.n * q.bytes;
            sum_row(q, i, from);
        }
    }
};

template <typename WAY>
static __global__ void __launch_bounds__(64 * WARPS) move_kernel(__grid_constant__ const movement m)
{
    __shared__ unsigned long long phase;
    int warp = threadIdx.x / 32 % WARPS, lane = threadIdx.x % 32;
    bool takes = threadIdx.x / 32 >= WARPS;
    if (threadIdx.x == 0)
        phase = *(volatile unsigned long long *)&m.turn->phase;
    __syncthreads();
    int64_t half = HEAD + (int64_t)(phase % 2) * m.half;
    unsigned long long flag = phase * CHUNKS;
    int64_t step = (int64_t)gridDim.x * WARPS * m.chunk;
    for (int64_t beg = (blockIdx.x * WARPS + warp) * m.chunk; beg < m.n; beg += step) {
        int64_t end = MIN(beg + m.chunk, m.n);
        flag++;
        if (!takes) {
            for (int64_t i = beg; i < end; i++)
                WAY::send(m, half, i);
            __syncwarp();
            if (lane < m.ranks && lane != m.me)
                raise_flag(flag_of(m.peer[lane], m.me), flag);
        } else {
            for (int64_t i = beg; i < end; i++)
                WAY::before(m, m.peer[m.me] + half, i);
            if (lane < m.ranks && lane != m.me)
                await_flag(flag_of(m.peer[m.me], lane), flag);
            __syncwarp();
            for (int64_t i = beg; i < end; i++)
                WAY::after(m, m.peer[m.me] + half, i);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(&m.turn->done, 1) + 1 == gridDim.x) {
        m.turn->done = 0;
        m.turn->phase = phase + 1;
    }
}

#endif
