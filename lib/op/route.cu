/* route.cu -- the router: probabilities (T,E), the K chosen experts, their gates; gradients and
 * losses.
 *
 * Bound: memory, T E read and written.  A warp takes a token: lane i holds experts i, i + 32, ...,
 * N of them, in registers.  Sums per accounting group are taken by stretches of tokens, which are
 * then joined in order, so they are the same in every run. */
#include "ptx.cuh"
#include "real.cuh"

enum { WARPS = 8, CHOICES = 32, STRETCH = 64 };
constexpr float LEAST_SUM = 1e-20f; /* sigmoids may all be 0 */

/* Floats as whole numbers of the same order, all above 0, which stands for no expert. */
static __device__ __forceinline__ unsigned key_of(float x)
{
    unsigned bits = __float_as_uint(x);
    return max(1u, bits >> 31 ? ~bits : bits | 1u << 31);
}
static __device__ __forceinline__ float key_value(unsigned key)
{
    return __uint_as_float(key >> 31 ? key & ~(1u << 31) : ~key);
}

/* The largest key of a warp and the expert it belongs to, the lowest of equals. */
template <int N>
static __device__ __forceinline__ unsigned best_key(const unsigned (&key)[N], int lane,
                                                    unsigned *at)
{
    unsigned best = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        best = max(best, key[i]);
    best = __reduce_max_sync(~0u, best);
    *at = ~0u;
#pragma unroll
    for (int i = N - 1; i >= 0; i--)
        *at = key[i] == best ? lane + 32 * i : *at;
    *at = __reduce_min_sync(~0u, *at);
    return best;
}

/* Takes (key 0) all experts of groups that may not be chosen from; lane g ranks group g. */
template <int N>
static __device__ __forceinline__ void groups_close(unsigned (&key)[N], int lane, int e,
                                                    const router &x)
{
    int size = e / (int)x.groups;
    unsigned of_group[1] = {0}, open = 0, first, second;
    for (int g = 0; g < (int)x.groups; g++) {
        unsigned of[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            of[i] = (lane + 32 * i) / size == g ? key[i] : 0;
        float rank = key_value(best_key(of, lane, &first));
#pragma unroll
        for (int i = 0; i < N; i++)
            of[i] = lane + 32 * i == first ? 0 : of[i];
        if (x.best > 1 && size > 1)
            rank += key_value(best_key(of, lane, &second));
        if (lane == g)
            of_group[0] = key_of(rank);
    }
    for (int i = 0; i < (int)x.limit; i++) {
        best_key(of_group, lane, &first);
        open |= 1u << first;
        if (lane == first)
            of_group[0] = 0;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (lane + 32 * i < e && !(open >> (lane + 32 * i) / size & 1))
            key[i] = 0;
}

template <int N>
static __global__ void __launch_bounds__(WARPS * 32)
    route_kernel(int32_t *index, stat *gate, stat *prob, stat *lse, stat *share, const stat *logits,
                 const int32_t *group, int64_t tokens, int e, const __grid_constant__ router x)
{
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    float p[N], most = -INFINITY, sum = 0;
    unsigned key[N], at;
    call_and_wait();
    if (t >= tokens)
        return;
    int pad = group[t] < 0, chosen = -1; /* lane j keeps choice j */
#pragma unroll
    for (int i = 0; i < N; i++) {
        p[i] = lane + 32 * i < e ? logits[t * e + lane + 32 * i] : -INFINITY;
        most = fmaxf(most, p[i]);
    }
    most = warp_max(most);
#pragma unroll
    for (int i = 0; i < N; i++)
        sum += p[i] = x.sigmoid ? 1 / (1 + expf(-p[i])) : expf(p[i] - most);
    sum = warp_sum(sum);
#pragma unroll
    for (int i = 0; i < N; i++) {
        int here = lane + 32 * i < e;
        p[i] = x.sigmoid ? p[i] : p[i] / sum;
        if (here)
            prob[t * e + lane + 32 * i] = p[i];
        key[i] = !here ? 0 : key_of(x.bias ? p[i] + ((const stat *)x.bias)[lane + 32 * i] : p[i]);
    }
    if (lane == 0) {
        lse[t] = x.sigmoid ? 0 : most + logf(sum);
        if (share)
            share[t] = x.sigmoid ? 1 / (sum + LEAST_SUM) : 1;
    }
    if (x.limit < x.groups)
        groups_close(key, lane, e, x);

    float mine = 0;
    for (int j = 0; j < (int)x.k; j++) {
        best_key(key, lane, &at);
        float its = 0;
#pragma unroll
        for (int i = 0; i < N; i++) {
            its = lane + 32 * i == at ? p[i] : its;
            key[i] = lane + 32 * i == at ? 0 : key[i];
        }
        its = __shfl_sync(~0u, its, at % 32);
        if (lane == j) {
            chosen = (int)at;
            mine = its;
        }
    }
    float all = x.norm ? warp_sum(mine) + LEAST_SUM : 1;
    if (lane < (int)x.k) {
        index[t * x.k + lane] = pad ? -1 : chosen;
        gate[t * x.k + lane] = pad ? 0 : mine / all * (float)x.scale;
    }
}

/* Of a stretch of tokens and a group: choices by expert, and sums of probabilities times share, a
 * thread an expert.  part (stretches,A,E) each. */
static __global__ void group_part(float *count_part, float *psum_part, const int32_t *index,
                                  const stat *prob, const stat *share, const int32_t *group,
                                  int64_t tokens, int e, int k)
{
    enum { AHEAD = 16 };            /* loads on their way */
    extern __shared__ int chosen[]; /* (E) */
    __shared__ int32_t in[STRETCH];
    __shared__ float of[STRETCH]; /* what a token's probabilities are multiplied by */
    int64_t first = (int64_t)blockIdx.x * STRETCH;
    int n = (int)MIN((int64_t)STRETCH, tokens - first), a = blockIdx.y, any = 0;
    for (int x = threadIdx.x; x < e; x += blockDim.x)
        chosen[x] = 0;
    for (int i = threadIdx.x; i < STRETCH; i += blockDim.x) {
        any |= (in[i] = i < n ? group[first + i] : -1) == a;
        of[i] = i < n ? share[first + i] : 0;
    }
    any = __syncthreads_or(any); /* mostly a stretch is of one group */
    for (int i = threadIdx.x; i < n * k; i += blockDim.x)
        if (in[i / k] == a)
            atomicAdd(&chosen[index[first * k + i]], 1); /* whole numbers: in any order the same */
    __syncthreads();
    int64_t at = ((int64_t)blockIdx.x * gridDim.y + a) * e;
    for (int x = threadIdx.x; x < e; x += blockDim.x) {
        float sum = 0, p[AHEAD];
        for (int i = 0; any && i < n; i += AHEAD) {
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                p[j] = i + j < n ? prob[(first + i + j) * e + x] : 0;
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                sum += in[i + j] == a ? p[j] * of[i + j] : 0;
        }
        psum_part[at + x] = sum;
        count_part[at + x] = (float)chosen[x];
    }
}

/* sum (columns) of part (rows,columns): lanes are columns, warps share the rows. */
static __global__ void group_join(stat *count, stat *psum, const float *count_part,
                                  const float *psum_part, int64_t rows, int64_t columns)
{
    __shared__ float part[32][33];
    const float *in = blockIdx.y ? psum_part : count_part;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t x = (int64_t)blockIdx.x * 32 + lane;
    float sum = 0;
#pragma unroll 4
    for (int64_t i = warp; i < rows; i += 32)
        sum += x < columns ? in[i * columns + x] : 0;
    part[warp][lane] = sum;
    __syncthreads();
    if (warp || x >= columns)
        return;
    sum = 0;
    for (int i = 0; i < 32; i++)
        sum += part[i][lane];
    (blockIdx.y ? psum : count)[x] = sum;
}

extern "C" void OPNAME(route)(struct lane *l, int32_t *index, void *gate, void *prob, void *lse,
                              void *count, void *psum, const void *logits, const int32_t *group,
                              int64_t t, int64_t e, int64_t a, const struct router *x)
{
    static const struct width {
        int64_t experts;
        void (*kernel)(int32_t *, stat *, stat *, stat *, stat *, const stat *, const int32_t *,
                       int64_t, int, router);
    } widths[] = {{32, route_kernel<1>},  {64, route_kernel<2>},   {128, route_kernel<4>},
                  {256, route_kernel<8>}, {512, route_kernel<16>}, {1024, route_kernel<32>}};
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t k = x->k;
    if (!count)
        a = 0; /* nobody asks how many */
    int64_t stretches = ceil_div(t, STRETCH), bytes = stretches * a * e * (int64_t)sizeof(float);
    float *count_part = (float *)arena_take(&l->scratch, bytes); /* (stretches,A,E) */
    float *psum_part = (float *)arena_take(&l->scratch, bytes);
    stat *share = (stat *)arena_take(&l->scratch, t * (int64_t)sizeof(stat)); /* (T) */
    const struct width *w = widths;
    if (e > 1024 || k > CHOICES)
        die("route: %lld of %lld experts; this kernel takes up to %d of 1024", (long long)k,
            (long long)e, CHOICES);
    if (router_is_limited(x) && x->groups > 32)
        die("route: %lld groups of experts; this kernel takes up to 32", (long long)x->groups);
    while (w->experts < e)
        w++;
    if (t)
        launch_early(l, w->kernel, blocks_of(t, WARPS), WARPS * 32, index, (stat *)gate,
                     (stat *)prob, (stat *)lse, a ? share : (stat *)NULL, (const stat *)logits,
                     group, t, (int)e, *x);
    if (t && a)
        group_part<<<dim3((unsigned)stretches, (unsigned)a), 128, (size_t)e * sizeof(int),
                     stream(l)>>>(count_part, psum_part, index, (const stat *)prob, share, group, t,
                                  (int)e, (int)k);
    if (a)
        group_join<<<dim3(blocks_of(a * e, 32), 2), 1024, 0, stream(l)>>>(
            (stat *)count, (stat *)psum, count_part, psum_part, stretches, a * e);
    launched("route", "%lld,%lld,%lld", (long long)t, (long long)e, (long long)k);
    arena_back(&l->scratch, mark);
}

/* A chosen prob reaches the loss through its gate, and through the others' where they share a sum
 * s: d gate_i / d prob_j = scale (i == j - prob_i / s) / s.  All reach it through what is counted
 * of them: c, or c / S with S their sum, then dprob_i = (c_i - <prob, c> / S) / S.  Then softmax:
 * dlogit = prob (dprob - <prob, dprob>); or sigmoid: prob (1 - prob) dprob.  A group's tokens are
 * counted from its K choices each. */
template <int N>
static __global__ void __launch_bounds__(WARPS * 32)
    route_dgrad_kernel(stat *dlogits, const stat *dgate, const stat *prob, const stat *lse,
                       const int32_t *index, const stat *count, const int32_t *group,
                       const stat *coef, int64_t tokens, int e, const __grid_constant__ router x)
{
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32, k = (int)x.k;
    if (t >= tokens)
        return;
    int64_t g = group[t];
    float p[N], d[N], all = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        int here = lane + 32 * i < e;
        p[i] = here && g >= 0 ? prob[t * e + lane + 32 * i] : 0;
        d[i] = here && g >= 0 ? count[g * e + lane + 32 * i] : 0;
        all += d[i];
    }
    all = warp_sum(all) / (float)k;
    int chosen = -1; /* lane j holds choice j */
    float dg = 0, pg = 0;
    if (lane < k && g >= 0) {
        chosen = index[t * k + lane];
        dg = dgate[t * k + lane];
        pg = prob[t * e + chosen];
    }
    float sum = warp_sum(pg) + LEAST_SUM, along = warp_sum(dg * pg);
    dg = (x.norm ? (dg - along / sum) / sum : dg) * (float)x.scale;
    float each = coef[0] / all, z = coef[1] * lse[t], inner = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        d[i] *= each;
    if (x.sigmoid) {
        float share = 0, counted = 0;
#pragma unroll
        for (int i = 0; i < N; i++) {
            share += p[i];
            counted += p[i] * d[i];
        }
        share = warp_sum(share) + LEAST_SUM;
        counted = warp_sum(counted) / share;
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] = (d[i] - counted) / share;
    }
    for (int j = 0; j < k; j++) {
        int at = __shfl_sync(~0u, chosen, j);
        float more = __shfl_sync(~0u, dg, j);
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] += lane + 32 * i == at ? more : 0;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        inner += p[i] * d[i];
    inner = warp_sum(inner);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (lane + 32 * i < e)
            dlogits[t * e + lane + 32 * i] =
                g < 0 ? 0 : p[i] * (x.sigmoid ? (1 - p[i]) * d[i] : d[i] - inner + z);
}

extern "C" void OPNAME(route_dgrad)(struct lane *l, void *dlogits, const void *dgate,
                                    const void *prob, const void *lse, const int32_t *index,
                                    const void *count, const int32_t *group, const void *coef,
                                    int64_t t, int64_t e, int64_t a, const struct router *x)
{
    static const struct width {
        int64_t experts;
        void (*kernel)(stat *, const stat *, const stat *, const stat *, const int32_t *,
                       const stat *, const int32_t *, const stat *, int64_t, int, router);
    } widths[] = {{32, route_dgrad_kernel<1>},   {64, route_dgrad_kernel<2>},
                  {128, route_dgrad_kernel<4>},  {256, route_dgrad_kernel<8>},
                  {512, route_dgrad_kernel<16>}, {1024, route_dgrad_kernel<32>}};
    const struct width *w = widths;
    int64_t k = x->k;
    if (!t || !a)
        return;
    if (e > 1024 || k > CHOICES)
        die("route_dgrad: %lld of %lld experts; this kernel takes up to %d of 1024", (long long)k,
            (long long)e, CHOICES);
    while (w->experts < e)
        w++;
    w->kernel<<<blocks_of(t, WARPS), WARPS * 32, 0, stream(l)>>>(
        (stat *)dlogits, (const stat *)dgate, (const stat *)prob, (const stat *)lse, index,
        (const stat *)count, group, (const stat *)coef, t, (int)e, *x);
    launched("route_dgrad", "%lld,%lld,%lld", (long long)t, (long long)e, (long long)k);
}

/* One block: what it reads is small, and one block adds in one order.  A warp takes a group. */
static __global__ void route_loss_kernel(stat *loss, const stat *count, const stat *psum,
                                         const stat *lse, const int32_t *group, int64_t t,
                                         int64_t e, int64_t k, int64_t a)
{
    int lane = threadIdx.x % 32;
    double aux = 0, z = 0;
    for (int64_t i = threadIdx.x / 32; i < a; i += blockDim.x / 32) {
        double n = 0, sum = 0;
        for (int64_t j = lane; j < e; j += 32) {
            n += count[i * e + j];
            sum += (double)count[i * e + j] * (double)psum[i * e + j];
        }
        n = warp_sum(n) / (double)k;
        sum = warp_sum(sum);
        aux += lane == 0 && n > 0 ? (double)e / (double)k * sum / n : 0;
    }
#pragma unroll 16
    for (int64_t i = threadIdx.x; i < t; i += blockDim.x) {
        double x = lse[i];
        z += group[i] >= 0 ? x * x : 0;
    }
    aux = block_sum(aux);
    z = block_sum(z);
    if (threadIdx.x)
        return;
    loss[0] += (float)aux;
    loss[1] += (float)z;
}

extern "C" void OPNAME(route_loss)(struct lane *l, void *loss, const void *count, const void *psum,
                                   const void *lse, const int32_t *group, int64_t t, int64_t e,
                                   int64_t k, int64_t a)
{
    route_loss_kernel<<<1, 1024, 0, stream(l)>>>((stat *)loss, (const stat *)count,
                                                 (const stat *)psum, (const stat *)lse, group, t, e,
                                                 k, a);
    launched("route_loss", "%lld,%lld", (long long)t, (long long)e);
}
