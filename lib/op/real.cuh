/* real.cuh -- included first by every CUDA twin: `real` and `stat` of this compile, OPNAME(), and
 * rows read and written several elements at a time.
 *
 * The Makefile compiles each twin twice, with -DREAL_F32 and -DREAL_BF16.  Arithmetic is f32; an
 * element becomes `real` when it is stored. */
#ifndef REAL_CUH
#define REAL_CUH

#include "dev/dev.cuh"

#include <cuda_bf16.h>

extern "C" {
#include "op/op.h"
#define OP(name, args)                                                                             \
    void name##_cuda_f32 args;                                                                     \
    void name##_cuda_bf16 args;
#include "op_list.h"
#undef OP
}

typedef __nv_bfloat16 bf16;
typedef float stat;
#ifdef REAL_BF16
typedef bf16 real;
#define OPNAME(name) name##_cuda_bf16
#define REAL_TYPE    DT_BF16
#else
typedef float real;
#define OPNAME(name) name##_cuda_f32
#define REAL_TYPE    DT_F32
#endif

static __device__ __forceinline__ float f32(float x)
{
    return x;
}
static __device__ __forceinline__ float f32(bf16 x)
{
    return __bfloat162float(x);
}
static __device__ __forceinline__ void store(float *p, float x)
{
    *p = x;
}
static __device__ __forceinline__ void store(bf16 *p, float x)
{
    *p = __float2bfloat16_rn(x);
}

/* x as `real` holds it. */
static __device__ __forceinline__ float as_real(float x)
{
    real y;
    store(&y, x);
    return f32(y);
}

/* N neighbours of a row as floats.  For N > 1 the address is a multiple of N elements. */
template <typename T, int N>
struct __align__(sizeof(T) * N) chunk
{
    T x[N];
};
template <int N, typename T>
static __device__ __forceinline__ void load_n(float *out, const T *p)
{
    chunk<T, N> c = *(const chunk<T, N> *)p;
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = f32(c.x[i]);
}
template <int N, typename T>
static __device__ __forceinline__ void store_n(T *p, const float *x)
{
    chunk<T, N> c;
#pragma unroll
    for (int i = 0; i < N; i++)
        store(&c.x[i], x[i]);
    *(chunk<T, N> *)p = c;
}

enum { WIDE = 16 / sizeof(real) }; /* elements of a 16-byte access */

/* A weight gradient, f32 or bf16, that is written or added to. */
struct grad {
    void *data;
    int coarse, add; /* bf16; keep what is there */
};
static inline struct grad grad_of(const char *op, struct mat dw, int add)
{
    if (dw.type != DT_F32 && dw.type != DT_BF16)
        die("%s: no weight gradients of type %s here", op, dtype_name(dw.type));
    return {dw.data, dw.type == DT_BF16, add};
}

/* N neighbours from element i on. */
template <int N, typename T>
static __device__ __forceinline__ void grad_put_as(T *p, const float *x, int add)
{
    float y[N] = {};
    if (add)
        load_n<N>(y, p);
#pragma unroll
    for (int i = 0; i < N; i++)
        y[i] += x[i];
    store_n<N>(p, y);
}
template <int N>
static __device__ __forceinline__ void grad_put(const struct grad &g, int64_t i, const float *x)
{
    if (g.coarse)
        grad_put_as<N>((bf16 *)g.data + i, x, g.add);
    else
        grad_put_as<N>((float *)g.data + i, x, g.add);
}

/* Whether rows of n elements from p on may be read WIDE elements at a time. */
static inline int is_wide(const void *p, int64_t n)
{
    return (uintptr_t)p % 16 == 0 && n % WIDE == 0;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static inline unsigned blocks_of(int64_t n, int64_t per_block)
{
    return (unsigned)MAX(1, ceil_div(n, per_block));
}

/* ---- sums ---- */

static __device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x += __shfl_xor_sync(~0u, x, i);
    return x;
}
static __device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}
static __device__ __forceinline__ double warp_sum(double x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x += __shfl_xor_sync(~0u, x, i);
    return x;
}

/* The sum over a block of at most 1024 threads, in every thread. */
template <typename T>
static __device__ __forceinline__ T block_sum(T x)
{
    __shared__ T part[32];
    int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads(); /* part may still be read for the sum before */
    if (threadIdx.x % 32 == 0)
        part[warp] = x;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < warps; i++)
        sum += part[i];
    return sum;
}

#endif
