/* dev.cuh -- what dev_cuda.cu and the CUDA twins of lib/op share: the state behind lane->handle and
 * the checks after every call. */
#ifndef DEV_CUH
#define DEV_CUH

#include <cublasLt.h>
#include <cuda_runtime.h>

#define _Noreturn __attribute__((noreturn))
extern "C" {
#include "dev/dev.h"
}

struct gemm_plan; /* lib/op/gemm.cu: what cuBLASLt chose for a shape, kept */
struct attn_plan; /* lib/op/attn_cudnn.cuh: what cuDNN did */

struct cuda_lane {
    cudaStream_t stream;
    cublasLtHandle_t blas;
    void *workspace; /* of cuBLASLt */
    size_t workspace_bytes;
    int processors; /* multiprocessors of the device */
    struct gemm_plan *plan;
    int64_t plans, plans_cap;
    struct cudnnContext *dnn; /* NULL until the first attention: the library takes seconds to load */
    struct attn_plan *attn;
    int64_t attns;
};

static inline struct cuda_lane *cuda_lane(struct lane *l)
{
    return (struct cuda_lane *)l->handle;
}
static inline cudaStream_t stream(struct lane *l)
{
    return cuda_lane(l)->stream;
}

/* Launches a kernel that may come to the processors while those before it on the stream are still
 * at work.  It waits for its turn (ptx.cuh) before it reads what they write, or writes at all. */
template <typename... P, typename... A>
static inline void launch_early_shared(struct lane *l, void (*kernel)(P...), dim3 grid, int threads,
                                       size_t shared, A... a)
{
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = grid;
    c.blockDim = dim3((unsigned)threads);
    c.dynamicSmemBytes = shared;
    c.stream = stream(l);
    c.attrs = &early;
    c.numAttrs = 1;
    cudaLaunchKernelEx(&c, kernel, P(a)...); /* launched() looks how it went */
}
template <typename... P, typename... A>
static inline void launch_early(struct lane *l, void (*kernel)(P...), dim3 grid, int threads, A... a)
{
    launch_early_shared(l, kernel, grid, threads, 0, a...);
}

#define cu(call)                                                                                   \
    do {                                                                                           \
        cudaError_t cu_error = (call);                                                             \
        if (cu_error != cudaSuccess)                                                               \
            die("%s:%d: %s: %s", __FILE__, __LINE__, #call, cudaGetErrorString(cu_error));         \
    } while (0)

/* After every launch: a kernel that could not start is named where it was called. */
#define launched(name, fmt, ...)                                                                   \
    do {                                                                                           \
        cudaError_t cu_error = cudaGetLastError();                                                 \
        if (cu_error != cudaSuccess)                                                               \
            die("%s:%d: %s (" fmt "): %s", __FILE__, __LINE__, name, __VA_ARGS__,                  \
                cudaGetErrorString(cu_error));                                                     \
    } while (0)

#endif
