/* row_map.cu -- which received row goes to which expert: choices in order of experts. */
#include "sort.cuh"
#include "row_map_few.cuh"

struct by_expert {
    const int32_t *index;
    int32_t first, e;
    __device__ int32_t bin(int64_t i) const
    {
        int32_t x = index[i] - first;
        return x < e ? MAX(x, -1) : -1;
    }
    __device__ int32_t name(int64_t i) const
    {
        return (int32_t)i;
    }
};

extern "C" void OPNAME(row_map)(struct lane *l, int32_t *at, int32_t *count, int32_t *source,
                                int32_t *place, const int32_t *index, int64_t n, int64_t k,
                                int64_t first, int64_t e, int64_t m)
{
    if (few_map(l, at, count, source, place, index, n, k, first, e, m))
        return;
    if (e > BINS)
        die("row_map: %lld experts; this kernel takes up to %d", (long long)e, BINS);
    sort_by(l, at, count, source, place, by_expert{index, (int32_t)first, (int32_t)e}, n * k, e, m,
            ROW_ALIGN);
    launched("row_map", "%lld,%lld,%lld", (long long)n, (long long)k, (long long)e);
}
