/* rows.cu -- rows moved by an index: y[i] = x[row[i]], y[row[i]] = x[i],
 * y[i] = res[i] + sum_j x[place[i,j]].
 *
 * Bound: memory: each row read and written once, K rows read for a sum.  A block takes a row. */
#include "ptx.cuh"
#include "real.cuh"

enum { THREADS = 128 };

struct place { /* the rows of a mat in units of the access width */
    char *data;
    int64_t units, stride;
};

/* The widest access that both mats allow, in bytes. */
static int unit_of(const struct mat *y, const struct mat *x)
{
    int64_t size = dtype_size(y->type);
    for (int unit = 16; unit > (int)size; unit /= 2)
        if (((uintptr_t)y->data | (uintptr_t)x->data | (uintptr_t)(y->cols * size) |
             (uintptr_t)(y->ld * size) | (uintptr_t)(x->ld * size)) %
                (uintptr_t)unit ==
            0)
            return unit;
    return (int)size;
}
static struct place place_of(const struct mat *m, int unit)
{
    int64_t size = dtype_size(m->type);
    return (struct place){(char *)m->data, m->cols * size / unit, m->ld * size / unit};
}

static void check_fit(const char *op, struct mat y, struct mat x)
{
    if (y.type != x.type || y.cols != x.cols)
        die("%s: %s of %lld and %s of %lld columns", op, dtype_name(y.type), (long long)y.cols,
            dtype_name(x.type), (long long)x.cols);
}

template <typename U>
static __global__ void gather_kernel(struct place y, struct place x, const int32_t *row)
{
    call_and_wait();
    int64_t i = blockIdx.x, from = row[i];
    const U *in = (const U *)x.data + from * x.stride;
    U *out = (U *)y.data + i * y.stride;
    for (int64_t j = threadIdx.x; j < y.units; j += THREADS)
        out[j] = from < 0 ? U{} : in[j];
}

template <typename U>
static __global__ void scatter_kernel(struct place y, struct place x, const int32_t *row)
{
    call_and_wait();
    int64_t i = blockIdx.x, to = row[i];
    const U *in = (const U *)x.data + i * x.stride;
    U *out = (U *)y.data + to * y.stride;
    for (int64_t j = threadIdx.x; to >= 0 && j < x.units; j += THREADS)
        out[j] = in[j];
}

struct mover {
    int unit;
    void (*gather)(struct place, struct place, const int32_t *);
    void (*scatter)(struct place, struct place, const int32_t *);
};
static const struct mover movers[] = {
    {16, gather_kernel<uint4>, scatter_kernel<uint4>},
    {8, gather_kernel<uint2>, scatter_kernel<uint2>},
    {4, gather_kernel<uint32_t>, scatter_kernel<uint32_t>},
    {2, gather_kernel<uint16_t>, scatter_kernel<uint16_t>},
};
static const struct mover *mover_of(int unit)
{
    const struct mover *m = movers;
    while (m->unit != unit)
        m++;
    return m;
}

extern "C" void OPNAME(gather_rows)(struct lane *l, struct mat y, struct mat x, const int32_t *row)
{
    int unit = unit_of(&y, &x);
    check_fit("gather_rows", y, x);
    if (!y.rows)
        return;
    launch_early(l, mover_of(unit)->gather, (unsigned)y.rows, THREADS, place_of(&y, unit),
                 place_of(&x, unit), row);
    launched("gather_rows", "%lld,%lld", (long long)y.rows, (long long)y.cols);
}

extern "C" void OPNAME(scatter_rows)(struct lane *l, struct mat y, struct mat x, const int32_t *row)
{
    int unit = unit_of(&y, &x);
    check_fit("scatter_rows", y, x);
    if (!x.rows)
        return;
    launch_early(l, mover_of(unit)->scatter, (unsigned)x.rows, THREADS, place_of(&y, unit),
                 place_of(&x, unit), row);
    launched("scatter_rows", "%lld,%lld", (long long)x.rows, (long long)x.cols);
}

template <typename T, int V>
static __global__ void sum_kernel(T *y, const T *res, const T *x, const int32_t *place, int64_t k,
                                  int64_t cols, int64_t ldy, int64_t ldx)
{
    int64_t i = blockIdx.x;
    call_and_wait();
    for (int64_t j = threadIdx.x * V; j < cols; j += blockDim.x * V) {
        float sum[V] = {};
        if (res)
            load_n<V>(sum, res + i * cols + j);
#pragma unroll 8
        for (int64_t c = 0; c < k; c++) {
            int32_t row = place[i * k + c];
            float a[V] = {};
            if (row >= 0)
                load_n<V>(a, x + row * ldx + j);
#pragma unroll
            for (int v = 0; v < V; v++)
                sum[v] += a[v];
        }
        store_n<V>(y + i * ldy + j, sum);
    }
}

template <typename T>
static void sum_rows(struct lane *l, const struct mat *y, const void *res, const struct mat *x,
                     const int32_t *place, int64_t k)
{
    enum { V = 16 / sizeof(T) };
    int wide = unit_of(y, x) == 16 && (uintptr_t)res % 16 == 0;
    launch_early(l, wide ? sum_kernel<T, V> : sum_kernel<T, 1>, (unsigned)y->rows, 256,
                 (T *)y->data, (const T *)res, (const T *)x->data, place, k, y->cols, y->ld, x->ld);
}

extern "C" void OPNAME(gather_sum)(struct lane *l, struct mat y, const void *res, struct mat x,
                                   const int32_t *place, int64_t k)
{
    check_fit("gather_sum", y, x);
    if (y.type != REAL_TYPE && y.type != DT_F32)
        die("gather_sum: %s where %s is due", dtype_name(y.type), dtype_name(REAL_TYPE));
    if (!y.rows)
        return;
    if (y.type == DT_F32)
        sum_rows<float>(l, &y, res, &x, place, k);
    else
        sum_rows<real>(l, &y, res, &x, place, k);
    launched("gather_sum", "%lld,%lld,%lld", (long long)y.rows, (long long)y.cols, (long long)k);
}
