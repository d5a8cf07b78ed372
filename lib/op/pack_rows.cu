/* pack_rows.cu -- rows in buffers of one size, one for each rank that wants them.
 *
 * A block is a rank: it goes over all rows, a thread each, and numbers those that are wanted.  Bound:
 * latency; the choices are read once a rank, by few blocks. */
#include "ptx.cuh"
#include "real.cuh"

enum { THREADS = 1024, WARPS = THREADS / 32 };

static __global__ void __launch_bounds__(THREADS)
    pack_kernel(int32_t *row, int32_t *place, const int32_t *index, int64_t n, int64_t k,
                int64_t share, int64_t el, int64_t room)
{
    __shared__ int64_t before[WARPS + 1]; /* rows of the warps before each, of this round */
    int64_t r = blockIdx.x, ranks = gridDim.x, first = r / share * el, at = 0;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    call_and_wait();
    for (int64_t beg = 0; beg < n; beg += THREADS) {
        int64_t t = beg + threadIdx.x;
        bool wanted = false;
        for (int64_t j = 0; t < n && j < k; j++)
            wanted |= index[t * k + j] >= first && index[t * k + j] < first + el;
        unsigned all = __ballot_sync(~0u, wanted);
        if (lane == 0)
            before[warp + 1] = __popc(all);
        __syncthreads();
        if (threadIdx.x == 0) {
            before[0] = 0;
            for (int w = 0; w < WARPS; w++)
                before[w + 1] += before[w];
        }
        __syncthreads();
        int64_t to = at + before[warp] + __popc(all & ((1u << lane) - 1));
        bool fits = wanted && to < room;
        if (t < n)
            place[t * ranks + r] = fits ? (int32_t)(r * room + to) : -1;
        if (fits)
            row[r * room + to] = (int32_t)t;
        at += before[WARPS];
        __syncthreads();
    }
    for (int64_t i = at + threadIdx.x; i < room; i += THREADS)
        row[r * room + i] = -1;
}

static __global__ void choices_kernel(int32_t *there, const int32_t *row, const int32_t *index,
                                      int64_t n, int64_t k)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    call_and_wait();
    if (i < n)
        there[i] = row[i / k] < 0 ? -1 : index[row[i / k] * k + i % k];
}

extern "C" void OPNAME(pack_rows)(struct lane *l, int32_t *row, int32_t *there, int32_t *place,
                                  const int32_t *index, int64_t n, int64_t k, int64_t ranks,
                                  int64_t share, int64_t el, int64_t room)
{
    int64_t choices = ranks * room * k;
    launch_early(l, pack_kernel, (unsigned)ranks, THREADS, row, place, index, n, k, share, el,
                 room);
    if (choices)
        launch_early(l, choices_kernel, (unsigned)((choices + 255) / 256), 256, there,
                     (const int32_t *)row, index, choices, k);
    launched("pack_rows", "%lld,%lld,%lld", (long long)n, (long long)ranks, (long long)room);
}
