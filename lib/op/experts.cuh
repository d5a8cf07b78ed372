/* experts.cuh -- plain kernels for the products of all experts, for any shape and type.
 *
 * A tile is 64 rows of the row map (an expert's rows begin at multiples of 128, so
 * a tile is of one expert) or, for weight gradients, a tile of one expert's weight.  Counts are
 * read on the device, so blocks go from tile to tile until there is none left. */
#ifndef EXPERTS_CUH
#define EXPERTS_CUH

#include "product.cuh"

struct map { /* the row map, on the device */
    const int32_t *at, *count, *source;
    int e, k;
};

/* The last expert whose rows begin at or before row m, so not an empty one: at[x] <= m < at[x + 1].
 */
static __device__ __forceinline__ int expert_of(const struct map &r, int64_t m)
{
    int low = 0, high = r.e;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (r.at[mid] <= m)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static __device__ __forceinline__ int64_t source_row(const struct map &r, int64_t m, int gathered)
{
    return gathered ? r.source[m] / r.k : m;
}

/* out (M,N) = in (rows of K, gathered or not) times w_e (N,K) transposed, or w_e (K,N). */
template <int GATHERED, int NT>
static __global__ void plain_rows(real *out, const real *in, const real *w, struct map r, int64_t n,
                                  int64_t k)
{
    for (int64_t i0 = (int64_t)blockIdx.y * PLAIN_TILE; i0 < r.at[r.e];
         i0 += (int64_t)gridDim.y * PLAIN_TILE) {
        int x = expert_of(r, i0);
        int64_t end = r.at[x] + r.count[x];
        const real *we = w + (int64_t)x * n * k;
        if (i0 >= end)
            continue;
        plain_tile(
            i0, (int64_t)blockIdx.x * PLAIN_TILE, k,
            [=](int64_t i, int64_t p) {
                return i < end ? f32(in[source_row(r, i, GATHERED) * k + p]) : 0.0f;
            },
            [=](int64_t p, int64_t j) {
                return j < n ? f32(we[NT ? j * k + p : p * n + j]) : 0.0f;
            },
            [=](int64_t i, int64_t j, float sum) {
                if (i < end && j < n)
                    store(out + i * n + j, sum);
            });
    }
}

/* dw_e (rows,cols) = or += left_e^T right_e over the rows of expert e; one of them gathered. */
template <int LEFT_GATHERED>
static __global__ void plain_wgrad(struct grad dw, const real *left, const real *right,
                                   struct map r, int64_t rows, int64_t cols)
{
    int x = blockIdx.z;
    int64_t at = r.at[x];
    int64_t out = (int64_t)x * rows * cols;
    if (dw.add && !r.count[x])
        return;
    plain_tile(
        (int64_t)blockIdx.y * PLAIN_TILE, (int64_t)blockIdx.x * PLAIN_TILE, r.count[x],
        [=](int64_t i, int64_t p) {
            return i < rows ? f32(left[source_row(r, at + p, LEFT_GATHERED) * rows + i]) : 0.0f;
        },
        [=](int64_t p, int64_t j) {
            return j < cols ? f32(right[source_row(r, at + p, !LEFT_GATHERED) * cols + j]) : 0.0f;
        },
        [=](int64_t i, int64_t j, float sum) {
            if (i < rows && j < cols)
                grad_put<1>(dw, out + i * cols + j, &sum);
        });
}

/* Blocks by columns and by rows; those of a column share its row tiles, whose number the device
 * knows. */
static inline dim3 plain_grid(struct lane *l, int64_t n)
{
    unsigned across = blocks_of(n, PLAIN_TILE);
    return dim3(across, MAX(1u, 8u * (unsigned)cuda_lane(l)->processors / across));
}

#endif
