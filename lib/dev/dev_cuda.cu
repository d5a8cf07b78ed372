/* dev_cuda.cu -- an NVIDIA GPU as a device.
 *
 * A lane is a stream with its cuBLASLt handle and workspace.  Calls are queued and return at once;
 * ordinary host memory may be reused when put() and get() return: the driver has staged what put()
 * was given, and get() has waited.  What is captured is a CUDA graph. */
#include "dev/dev.cuh"
extern "C" {
#include "dev/tally.h"
}

#include <cudnn.h>
#include <stdlib.h>

enum { CAPABILITY = 90 /* compute capability x 10 */ };

static struct tally tally;

/* p, or NULL where there is not enough. */
static void *allocated(void *p, int64_t bytes, cudaError_t e)
{
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it has been dealt with */
        return NULL;
    }
    cu(e);
    tally_add(&tally, p, bytes);
    return p;
}

static void *cuda_alloc(int64_t bytes)
{
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, (size_t)MAX(bytes, 1));
    return allocated(p, bytes, e);
}

static void *cuda_alloc_both(int64_t bytes)
{
    void *p = NULL;
    cudaError_t e = cudaMallocManaged(&p, (size_t)MAX(bytes, 1));
    return allocated(p, bytes, e);
}

/* What is queued may still use it. */
static void cuda_free(void *p)
{
    cu(cudaDeviceSynchronize());
    tally_remove(&tally, p);
    cu(cudaFree(p));
}

static void cuda_memory(struct dev_memory *m)
{
    size_t left, all;
    cu(cudaMemGetInfo(&left, &all));
    tally_read(&tally, m);
    m->left = (int64_t)left;
}

static void *cuda_alloc_host(int64_t bytes)
{
    void *p = NULL;
    cu(cudaMallocHost(&p, (size_t)MAX(bytes, 1)));
    return p;
}

static void cuda_free_host(void *p)
{
    cu(cudaFreeHost(p));
}

static void move(struct lane *l, void *dst, const void *src, int64_t bytes,
                 enum cudaMemcpyKind kind)
{
    if (bytes > 0)
        cu(cudaMemcpyAsync(dst, src, (size_t)bytes, kind, stream(l)));
}

static void cuda_copy(struct lane *l, void *dst, const void *src, int64_t bytes)
{
    move(l, dst, src, bytes, cudaMemcpyDeviceToDevice);
}

static void cuda_put(struct lane *l, void *dst, const void *host, int64_t bytes)
{
    move(l, dst, host, bytes, cudaMemcpyHostToDevice);
}

static void cuda_get(struct lane *l, void *host, const void *src, int64_t bytes)
{
    move(l, host, src, bytes, cudaMemcpyDeviceToHost);
    cu(cudaStreamSynchronize(stream(l)));
}

static void cuda_get_later(struct lane *l, void *host, const void *src, int64_t bytes)
{
    move(l, host, src, bytes, cudaMemcpyDeviceToHost);
}

static void cuda_zero(struct lane *l, void *p, int64_t bytes)
{
    if (bytes > 0)
        cu(cudaMemsetAsync(p, 0, (size_t)bytes, stream(l)));
}

static void cuda_wait(struct lane *l)
{
    cu(cudaStreamSynchronize(stream(l)));
}

static void cuda_record(struct lane *l, struct event *e)
{
    cudaEvent_t v = (cudaEvent_t)e->handle;
    if (!v)
        cu(cudaEventCreateWithFlags(&v, e->timed ? cudaEventDefault : cudaEventDisableTiming));
    e->handle = v;
    cu(cudaEventRecord(v, stream(l)));
}

static void cuda_follow(struct lane *l, struct event *e)
{
    if (e->handle)
        cu(cudaStreamWaitEvent(stream(l), (cudaEvent_t)e->handle, 0));
}

static double cuda_elapsed(const struct event *from, const struct event *to)
{
    float ms;
    cu(cudaEventElapsedTime(&ms, (cudaEvent_t)from->handle, (cudaEvent_t)to->handle));
    return (double)ms * 1e-3;
}

static void cuda_reach(struct event *e)
{
    if (e->handle)
        cu(cudaEventSynchronize((cudaEvent_t)e->handle));
}

static void cuda_event_free(struct event *e)
{
    if (e->handle)
        cu(cudaEventDestroy((cudaEvent_t)e->handle));
    e->handle = NULL;
}

static void cuda_capture_begin(struct lane *l)
{
    cu(cudaStreamBeginCapture(stream(l), cudaStreamCaptureModeThreadLocal));
}

static void cuda_capture_end(struct lane *l, struct capture *c)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t nodes = 0;
    cu(cudaStreamEndCapture(stream(l), &graph));
    cu(cudaGraphGetNodes(graph, NULL, &nodes));
    cu(cudaGraphInstantiate(&exec, graph, cudaGraphInstantiateFlagUseNodePriority));
    cu(cudaGraphDestroy(graph));
    c->handle = exec;
    c->nodes = (int64_t)nodes;
}

static void cuda_replay(struct lane *l, const struct capture *c)
{
    cu(cudaGraphLaunch((cudaGraphExec_t)c->handle, stream(l)));
}

static void cuda_capture_free(struct capture *c)
{
    if (c->handle)
        cu(cudaGraphExecDestroy((cudaGraphExec_t)c->handle));
    c->handle = NULL;
}

static void *cuda_queue(struct lane *l)
{
    return stream(l);
}

static void cuda_lane_open(struct lane *l)
{
    struct cuda_lane *c = (struct cuda_lane *)xcalloc(1, sizeof *c);
    int last, first;
    cu(cudaDeviceGetStreamPriorityRange(&last, &first));
    cu(cudaStreamCreateWithPriority(&c->stream, cudaStreamNonBlocking, l->urgent ? first : last));
    if (cublasLtCreate(&c->blas) != CUBLAS_STATUS_SUCCESS)
        die("cuBLASLt cannot be started");
    c->workspace_bytes = LANE_WORKSPACE;
    c->workspace = cuda_alloc(LANE_WORKSPACE);
    if (!c->workspace)
        die("no memory on the GPU for a lane's %d MiB", LANE_WORKSPACE >> 20);
    int device;
    cu(cudaGetDevice(&device));
    cu(cudaDeviceGetAttribute(&c->processors, cudaDevAttrMultiProcessorCount, device));
    l->handle = c;
}

static void cuda_lane_close(struct lane *l)
{
    struct cuda_lane *c = cuda_lane(l);
    cu(cudaStreamSynchronize(c->stream));
    cublasLtDestroy(c->blas);
    cuda_free(c->workspace);
    cu(cudaStreamDestroy(c->stream));
    if (c->dnn)
        cudnnDestroy(c->dnn);
    free(c->attn);
    free(c->plan);
    free(c);
    l->handle = NULL;
}

extern "C" const char *dev_cuda_missing(void)
{
    int devices = 0, major = 0, minor = 0;
    cudaError_t e = cudaGetDeviceCount(&devices);
    if (e != cudaSuccess)
        return cudaGetErrorString(e);
    if (devices == 0)
        return "no GPU is there";
    int device = dev_chosen() % devices;
    cu(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    cu(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (major * 10 + minor != CAPABILITY)
        return "the kernels of this build are for compute capability 9.0 (Hopper), and this GPU "
               "has another";
    return NULL;
}

extern "C" const struct dev_ops *dev_cuda_open(void)
{
    static struct dev_ops ops;
    const char *why = dev_cuda_missing();
    if (why)
        die("--device cuda: %s", why);
    int devices;
    cu(cudaGetDeviceCount(&devices));
    cu(cudaSetDevice(dev_chosen() % devices));
    ops.name = "cuda";
    ops.alloc = cuda_alloc;
    ops.free = cuda_free;
    ops.memory = cuda_memory;
    ops.alloc_host = cuda_alloc_host;
    ops.free_host = cuda_free_host;
    ops.alloc_both = cuda_alloc_both;
    ops.copy = cuda_copy;
    ops.put = cuda_put;
    ops.get = cuda_get;
    ops.get_later = cuda_get_later;
    ops.zero = cuda_zero;
    ops.wait = cuda_wait;
    ops.record = cuda_record;
    ops.follow = cuda_follow;
    ops.reach = cuda_reach;
    ops.event_free = cuda_event_free;
    ops.capture_begin = cuda_capture_begin;
    ops.capture_end = cuda_capture_end;
    ops.replay = cuda_replay;
    ops.capture_free = cuda_capture_free;
    ops.elapsed = cuda_elapsed;
    ops.queue = cuda_queue;
    ops.lane_open = cuda_lane_open;
    ops.lane_close = cuda_lane_close;
    return &ops;
}
