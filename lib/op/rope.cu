/* rope.cu -- rotary position embedding in place, half layout: (x_i, x_{i+C/2}) turned by
 * position * freq[i]; x (T,heads,C), rows ld apart.
 *
 * Bound: memory, 2 T heads C.  A block takes a token: its sines serve all heads.  The angle is
 * reduced in f64, since positions reach far beyond what f32 keeps of a turn. */
#include "real.cuh"

enum { THREADS = 256 };

static __global__ void rope_kernel(real *x, const int32_t *position, const stat *freq,
                                   int64_t heads, int64_t c, int64_t ld, int sign)
{
    extern __shared__ float turn[]; /* (2,C/2) cos, sin */
    int half = (int)(c / 2);
    for (int i = threadIdx.x; i < half; i += THREADS) {
        double angle = (double)position[blockIdx.x] * (double)freq[i];
        angle -= 6.283185307179586 * rint(angle / 6.283185307179586);
        float s, k;
        sincosf((float)angle, &s, &k);
        turn[i] = k;
        turn[half + i] = (float)sign * s;
    }
    __syncthreads();
    real *row = x + blockIdx.x * ld;
    for (int i = threadIdx.x; i < heads * half; i += THREADS) {
        int h = i / half, j = i - h * half;
        real *p = row + (int64_t)h * c + j;
        float u = f32(p[0]), v = f32(p[half]);
        store(p, u * turn[j] - v * turn[half + j]);
        store(p + half, v * turn[j] + u * turn[half + j]);
    }
}

extern "C" void OPNAME(rope)(struct lane *l, void *x, const int32_t *position, const void *freq,
                             int64_t t, int64_t heads, int64_t c, int64_t ld, int sign)
{
    if (!t)
        return;
    rope_kernel<<<(unsigned)t, THREADS, (size_t)c * sizeof(float), stream(l)>>>(
        (real *)x, position, (const stat *)freq, heads, c, ld, sign);
    launched("rope", "%lld,%lld,%lld", (long long)t, (long long)heads, (long long)c);
}
