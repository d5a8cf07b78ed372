/* route.cu -- the router: probabilities (T,E), the K chosen experts, their gates; gradients and
 * losses.
 *
 * Bound: memory, T E read and written.  A warp takes a token, its experts spread over the lanes;
 * sums per accounting group are taken by expert in order of tokens.  Counts are whole numbers, so
 * adding them atomically gives the same result in any order. */
#include "real.cuh"

enum { WARPS = 8 };

/* Lane i holds experts i, i + 32, ...: N of them. */
template <int N>
static __global__ void route_kernel(int32_t *index, stat *gate, stat *prob, stat *lse, int *count,
                                    const stat *logits, const int32_t *group, int64_t tokens, int e,
                                    int k, int norm)
{
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    float x[N], max = -INFINITY, sum = 0;
    if (t >= tokens)
        return;
#pragma unroll
    for (int i = 0; i < N; i++) {
        x[i] = lane + 32 * i < e ? logits[t * e + lane + 32 * i] : -INFINITY;
        max = fmaxf(max, x[i]);
    }
    max = warp_max(max);
#pragma unroll
    for (int i = 0; i < N; i++)
        sum += expf(x[i] - max);
    sum = warp_sum(sum);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (lane + 32 * i < e)
            prob[t * e + lane + 32 * i] = expf(x[i] - max) / sum;
    if (lane == 0)
        lse[t] = max + logf(sum);
    int32_t g = group[t];
    float all = 0;
    for (int j = 0; j < k; j++) {
        float best = -INFINITY;
        int at = 1 << 30;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (lane + 32 * i < e && (x[i] > best || at == 1 << 30)) {
                best = x[i];
                at = lane + 32 * i;
            }
#pragma unroll
        for (int i = 16; i; i >>= 1) {
            float b = __shfl_xor_sync(~0u, best, i);
            int a = __shfl_xor_sync(~0u, at, i);
            if (b > best || (b == best && a < at)) {
                best = b;
                at = a;
            }
        }
#pragma unroll
        for (int i = 0; i < N; i++)
            if (lane + 32 * i == at)
                x[i] = -INFINITY;
        float p = expf(best - max) / sum;
        all += p;
        if (lane == 0) {
            index[t * k + j] = g < 0 ? -1 : at;
            gate[t * k + j] = g < 0 ? 0 : p;
        }
        if (lane == 0 && g >= 0)
            atomicAdd(count + (int64_t)g * e + at, 1);
    }
    __syncwarp();
    for (int j = lane; norm && g >= 0 && j < k; j += 32)
        gate[t * k + j] /= all;
}

/* count as stat, and psum: a block takes 32 experts of a group; lanes are experts, warps share
 * tokens. */
static __global__ void group_kernel(stat *count, stat *psum, const int *choices, const stat *prob,
                                    const int32_t *group, int64_t tokens, int64_t e)
{
    __shared__ float part[32][33];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t a = blockIdx.y, x = (int64_t)blockIdx.x * 32 + lane;
    float sum = 0;
#pragma unroll 4
    for (int64_t t = warp; t < tokens; t += 32)
        if (group[t] == a && x < e)
            sum += prob[t * e + x];
    part[warp][lane] = sum;
    __syncthreads();
    if (warp || x >= e)
        return;
    sum = 0;
    for (int i = 0; i < 32; i++)
        sum += part[i][lane];
    psum[a * e + x] = sum;
    count[a * e + x] = (float)choices[a * e + x];
}

extern "C" void OPNAME(route)(struct lane *l, int32_t *index, void *gate, void *prob, void *lse,
                              void *count, void *psum, const void *logits, const int32_t *group,
                              int64_t t, int64_t e, int64_t k, int64_t a, int norm)
{
    static const struct width {
        int64_t experts;
        void (*kernel)(int32_t *, stat *, stat *, stat *, int *, const stat *, const int32_t *,
                       int64_t, int, int, int);
    } widths[] = {{32, route_kernel<1>},  {64, route_kernel<2>},   {128, route_kernel<4>},
                  {256, route_kernel<8>}, {512, route_kernel<16>}, {1024, route_kernel<32>}};
    struct arena_mark mark = arena_mark(&l->scratch);
    int *choices = (int *)arena_take(&l->scratch, a * e * (int64_t)sizeof *choices); /* (A,E) */
    const struct width *w = widths;
    if (e > 1024)
        die("route: %lld experts; this kernel takes up to 1024", (long long)e);
    while (w->experts < e)
        w++;
    cu(cudaMemsetAsync(choices, 0, (size_t)(a * e) * sizeof *choices, stream(l)));
    if (t)
        w->kernel<<<blocks_of(t, WARPS), WARPS * 32, 0, stream(l)>>>(
            index, (stat *)gate, (stat *)prob, (stat *)lse, choices, (const stat *)logits, group, t,
            (int)e, (int)k, norm);
    if (a)
        group_kernel<<<dim3(blocks_of(e, 32), (unsigned)a), 1024, 0, stream(l)>>>(
            (stat *)count, (stat *)psum, choices, (const stat *)prob, group, t, e);
    launched("route", "%lld,%lld,%lld", (long long)t, (long long)e, (long long)k);
    arena_back(&l->scratch, mark);
}

/* tokens (A) of each group, from its K choices each. */
static __global__ void tokens_kernel(float *tokens, const stat *count, int64_t e, int64_t k)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < e; i += blockDim.x)
        sum += count[blockIdx.x * e + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        tokens[blockIdx.x] = sum / (float)k;
}

/* A chosen prob reaches the loss through its gate, and through the others' where they share a sum
 * s: d gate_i / d prob_j = (i == j - gate_i) / s.  Then softmax: dlogit = prob (dprob - <prob,
 * dprob>). */
static __global__ void route_dgrad_kernel(stat *dlogits, const stat *dgate, const stat *prob,
                                          const stat *lse, const int32_t *index, const stat *count,
                                          const int32_t *group, const stat *coef,
                                          const float *tokens, int64_t n, int64_t e, int64_t k,
                                          int norm)
{
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (t >= n)
        return;
    int64_t g = group[t];
    prob += t * e, dlogits += t * e, dgate += t * k, index += t * k;
    if (g < 0) {
        for (int64_t i = lane; i < e; i += 32)
            dlogits[i] = 0;
        return;
    }
    float sum = 0, along = 0, inner = 0;
    for (int64_t j = lane; j < k; j += 32) {
        sum += prob[index[j]];
        along += dgate[j] * prob[index[j]];
    }
    sum = warp_sum(sum);
    along = warp_sum(along);
    float each = coef[0] / tokens[g], z = coef[1] * lse[t];
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = lane; i < e; i += 32) {
            float d = each * count[g * e + i];
            for (int64_t j = 0; j < k; j++)
                if (index[j] == i)
                    d += norm ? (dgate[j] - along / sum) / sum : dgate[j];
            if (pass)
                dlogits[i] = prob[i] * (d - inner + z);
            else
                inner += prob[i] * d;
        }
        inner = pass ? inner : warp_sum(inner);
    }
}

extern "C" void OPNAME(route_dgrad)(struct lane *l, void *dlogits, const void *dgate,
                                    const void *prob, const void *lse, const int32_t *index,
                                    const void *count, const int32_t *group, const void *coef,
                                    int64_t t, int64_t e, int64_t k, int64_t a, int norm)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    float *tokens = (float *)arena_take(&l->scratch, a * (int64_t)sizeof *tokens);
    if (!t || !a)
        return;
    tokens_kernel<<<(unsigned)a, 128, 0, stream(l)>>>(tokens, (const stat *)count, e, k);
    route_dgrad_kernel<<<blocks_of(t, WARPS), WARPS * 32, 0, stream(l)>>>(
        (stat *)dlogits, (const stat *)dgate, (const stat *)prob, (const stat *)lse, index,
        (const stat *)count, group, (const stat *)coef, tokens, t, e, k, norm);
    launched("route_dgrad", "%lld,%lld,%lld", (long long)t, (long long)e, (long long)k);
    arena_back(&l->scratch, mark);
}

static __global__ void route_loss_kernel(stat *loss, const stat *count, const stat *psum,
                                         const stat *lse, const int32_t *group, int64_t t,
                                         int64_t e, int64_t k, int64_t a)
{
    double aux = 0, z = 0;
    for (int64_t i = 0; i < a; i++) {
        double n = 0, sum = 0;
        for (int64_t j = threadIdx.x; j < e; j += blockDim.x) {
            n += count[i * e + j];
            sum += (double)count[i * e + j] * (double)psum[i * e + j];
        }
        n = block_sum(n) / (double)k;
        sum = block_sum(sum);
        aux += n > 0 ? (double)e / (double)k * sum / n : 0;
    }
    for (int64_t i = threadIdx.x; i < t; i += blockDim.x)
        if (group[i] >= 0)
            z += (double)lse[i] * (double)lse[i];
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
    route_loss_kernel<<<1, 512, 0, stream(l)>>>((stat *)loss, (const stat *)count,
                                                (const stat *)psum, (const stat *)lse, group, t, e,
                                                k, a);
    launched("route_loss", "%lld,%lld", (long long)t, (long long)e);
}
