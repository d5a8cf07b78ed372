/* latent.cu -- what latent attention does with heads between its products: turning the part that
 * has positions, in pairs of neighbours, and joining what is each head's own with what all share.
 *
 * Bound: memory.  A block takes a token; neighbouring threads take neighbouring elements.  The
 * angle is reduced in double, as rope.cu does. */
#include "real.cuh"

enum { THREADS = 256 };

static __global__ void turn_kernel(real *y, const int32_t *position, const stat *freq, int h, int c,
                                   int n, float size, float sign)
{
    real *row = y + (int64_t)blockIdx.x * h * c;
    int at = position[blockIdx.x];
    for (int i = (int)threadIdx.x; i < h * (n / 2); i += THREADS) {
        int pair = i % (n / 2);
        real *p = row + (int64_t)(i / (n / 2) + 1) * c - n + 2 * pair;
        float sine, cosine, u = f32(p[0]), v = f32(p[1]);
        double turned = (double)at * (double)freq[pair] * 0.15915494309189533577; /* 1 / 2 pi */
        sincospif(2 * (float)(turned - rint(turned)), &sine, &cosine);
        sine *= size * sign;
        cosine *= size;
        store(p, u * cosine - v * sine);
        store(p + 1, v * cosine + u * sine);
    }
}

extern "C" void OPNAME(turn_pairs)(struct lane *l, void *y, const int32_t *position,
                                   const void *freq, int64_t t, int64_t h, int64_t c, int64_t n,
                                   double size, int back)
{
    if (!t)
        return;
    turn_kernel<<<(unsigned)t, THREADS, 0, stream(l)>>>((real *)y, position, (const stat *)freq,
                                                        (int)h, (int)c, (int)n, (float)size,
                                                        back ? -1 : 1);
    launched("turn_pairs", "%lld,%lld,%lld", (long long)t, (long long)h, (long long)c);
}

static __global__ void join_kernel(real *kv, const real *b, const real *shared, int h, int c,
                                   int cv, int n, int64_t ld)
{
    int64_t t = blockIdx.x;
    int own = c - n, wide = c + cv;
    for (int i = (int)threadIdx.x; i < h * wide; i += THREADS) {
        int is_k = i < h * c, head = is_k ? i / c : (i - h * c) / cv;
        int j = is_k ? i % c : own + (i - h * c) % cv;
        kv[t * h * wide + i] =
            is_k && j >= own ? shared[t * ld + j - own] : b[(t * h + head) * (own + cv) + j];
    }
}

extern "C" void OPNAME(join_heads)(struct lane *l, void *kv, const void *b, const void *shared,
                                   int64_t t, int64_t h, int64_t c, int64_t cv, int64_t n,
                                   int64_t ld)
{
    if (!t)
        return;
    join_kernel<<<(unsigned)t, THREADS, 0, stream(l)>>>(
        (real *)kv, (const real *)b, (const real *)shared, (int)h, (int)c, (int)cv, (int)n, ld);
    launched("join_heads", "%lld,%lld,%lld", (long long)t, (long long)h, (long long)c);
}

static __global__ void part_kernel(real *db, real *dshared, const real *dkv, int h, int c, int cv,
                                   int n, int64_t ld)
{
    int64_t t = blockIdx.x;
    int own = c - n, wide = own + cv;
    const real *k = dkv + t * h * (c + cv), *v = k + h * c;
    for (int i = (int)threadIdx.x; i < h * wide; i += THREADS) {
        int head = i / wide, j = i % wide;
        db[t * h * wide + i] = j < own ? k[head * c + j] : v[head * cv + j - own];
    }
    for (int j = (int)threadIdx.x; j < n; j += THREADS) {
        float sum = 0;
        for (int head = 0; head < h; head++)
            sum += f32(k[head * c + own + j]);
        store(dshared + t * ld + j, sum);
    }
}

extern "C" void OPNAME(part_heads)(struct lane *l, void *db, void *dshared, const void *dkv,
                                   int64_t t, int64_t h, int64_t c, int64_t cv, int64_t n,
                                   int64_t ld)
{
    if (!t)
        return;
    part_kernel<<<(unsigned)t, THREADS, 0, stream(l)>>>(
        (real *)db, (real *)dshared, (const real *)dkv, (int)h, (int)c, (int)cv, (int)n, ld);
    launched("part_heads", "%lld,%lld,%lld", (long long)t, (long long)h, (long long)c);
}
