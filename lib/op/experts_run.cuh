/* experts_run.cuh -- launches the kernel of experts_mma.cuh, and the small ones around it, for
 * experts.cu and experts_grad.cu: each mma_* is 1 when it has done the product. */
#ifndef EXPERTS_RUN_CUH
#define EXPERTS_RUN_CUH

#include "experts.cuh"

#ifdef REAL_BF16
#include "experts_mma.cuh"

template <int MODE, int JOINT>
static void mma_launch(struct lane *l, const char *name, const mma_args &g)
{
    using t = traits<MODE, JOINT>;
    static int raised;
    if (!raised)
        cu(cudaFuncSetAttribute(mma_kernel<MODE, JOINT>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, t::shared));
    raised = 1;
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute pair = {};
    pair.id = cudaLaunchAttributeClusterDimension;
    pair.val.clusterDim.x = t::blocks;
    pair.val.clusterDim.y = pair.val.clusterDim.z = 1;
    c.gridDim = (unsigned)(cuda_lane(l)->processors / t::blocks * t::blocks);
    c.blockDim = ROLES + t::finishers;
    c.dynamicSmemBytes = t::shared;
    c.stream = stream(l);
    c.attrs = &pair;
    c.numAttrs = t::blocks > 1;
    cudaLaunchKernelEx(&c, mma_kernel<MODE, JOINT>, g);
    launched(name, "%d,%d,%d,%d", g.r.e, g.m, g.n, g.k);
}

/* place[choice]: its row by the map; the rest is -1 before. */
static __global__ void place_kernel(int32_t *place, struct map r)
{
    for (int m = blockIdx.x * blockDim.x + threadIdx.x; m < r.at[r.e]; m += gridDim.x * blockDim.x)
        if (r.source[m] >= 0)
            place[r.source[m]] = m;
}

/* Rows in the order of the map: out[m] = in[row of m], padding 0.  A warp reads a row once, all of
 * it that its registers hold, and writes it to its places. */
static __global__ void lay_kernel(uint4 *out, const uint4 *in, const int32_t *place, struct map r,
                                  int rows, int units)
{
    enum { HELD = 8 };
    int lane = threadIdx.x % 32, warps = gridDim.x * blockDim.x / 32;
    int first = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    for (int i = first; i < r.e * ROW_ALIGN; i += warps) {
        int x = i / ROW_ALIGN, m = r.at[x] + r.count[x] + i % ROW_ALIGN;
        for (int j = lane; j < units && m < r.at[x + 1]; j += 32)
            __stcs(&out[(int64_t)m * units + j], make_uint4(0, 0, 0, 0));
    }
    for (int t = first; t < rows; t += warps)
        for (int j0 = lane; j0 < units; j0 += 32 * HELD) {
            uint4 held[HELD];
#pragma unroll
            for (int i = 0; i < HELD; i++)
                if (j0 + 32 * i < units)
                    held[i] = in[(int64_t)t * units + j0 + 32 * i];
            for (int c = 0; c < r.k; c++) {
                int m = place[(int64_t)t * r.k + c];
#pragma unroll
                for (int i = 0; i < HELD; i++)
                    if (m >= 0 && j0 + 32 * i < units)
                        __stcs(&out[(int64_t)m * units + j0 + 32 * i], held[i]);
            }
        }
}

/* In scratch of the lane; live: as in op_list.h. */
static inline const void *lay_rows(struct lane *l, const void *x, struct map r, int64_t live,
                                   int64_t d)
{
    unsigned blocks = (unsigned)cuda_lane(l)->processors * 8;
    int64_t rows = live + (int64_t)r.e * (ROW_ALIGN - 1);
    void *out = arena_take(&l->scratch, rows * d * (int64_t)sizeof(real));
    int32_t *place = (int32_t *)arena_take(&l->scratch, live * (int64_t)sizeof *place);
    cu(cudaMemsetAsync(place, 0xff, (size_t)live * sizeof *place, stream(l)));
    place_kernel<<<blocks, 256, 0, stream(l)>>>(place, r);
    lay_kernel<<<blocks, 256, 0, stream(l)>>>((uint4 *)out, (const uint4 *)x, place, r,
                                              (int)(live / r.k), (int)(d / 8));
    launched("experts", "%lld,%lld", (long long)live, (long long)d);
    return out;
}

/* dgate[choice] from the parts of its row. */
static __global__ void dgate_kernel(stat *dgate, const float *part, struct map r, int parts,
                                    int64_t ld)
{
    for (int64_t m = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; m < r.at[r.e];
         m += (int64_t)gridDim.x * blockDim.x) {
        float sum = 0;
        if (r.source[m] < 0)
            continue;
        for (int i = 0; i < parts; i++)
            sum += part[i * ld + m];
        dgate[r.source[m]] = sum;
    }
}

/* Rows of whole 64 elements, and 16-byte accesses. */
static inline int whole(const void *p, const void *q, const void *o, struct map r, int64_t d,
                        int64_t f)
{
    return d % 64 == 0 && f % 64 == 0 && r.e <= 1024 &&
           ((uintptr_t)p | (uintptr_t)q | (uintptr_t)o) % 16 == 0;
}

enum { ANY_ROWS = 1 << 30 }; /* of a tensor by the row map: its rows are known on the device */

/* Of a product, in pairs (joint) or not: A (rows by the map, a_cols), or what it is gathered from;
 * B (b_rows,b_cols), a weight or, in weight gradients, rows by the map too. */
template <int MODE>
static inline void mma_run(struct lane *l, const char *name, mma_args g, int joint, const void *a,
                           int64_t a_cols, const void *b, int64_t b_rows, int64_t b_cols)
{
    using t = traits<MODE, 1>;
    g.in = a;
    if (joint || !traits<MODE, 0>::gathers)
        g.a_map = t::at ? blocks_map(a, ANY_ROWS, a_cols, TILE_K, HALF_M / 64)
                        : rows_map(a, ANY_ROWS, a_cols, HALF_M);
    if (MODE == UP) { /* (E, 2 halves, F, D) */
        cuuint64_t size[3] = {(cuuint64_t)b_cols, (cuuint64_t)(b_rows / g.r.e / 2),
                              (cuuint64_t)g.r.e * 2};
        cuuint64_t stride[2] = {(cuuint64_t)b_cols * 2, size[1] * (cuuint64_t)b_cols * 2};
        g.b_map = box_map(b, size, stride, t::cols, 2);
    } else {
        g.b_map = t::bt ? blocks_map(b, b_rows, b_cols, TILE_K, t::n / 64)
                        : rows_map(b, b_rows, b_cols, t::n);
    }
    if (joint)
        mma_launch<MODE, 1>(l, name, g);
    else
        mma_launch<MODE, 0>(l, name, g);
}

/* Sums of squares of a gradient: each warp adds up those of its tiles, which are the same ones
 * every time, and the warps' are added in order. */
static __global__ void squares_kernel(stat *sum, const float *part, int n)
{
    float all = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        all += part[i];
    all = block_sum(all);
    if (threadIdx.x == 0)
        *sum += all;
}
static inline int square_parts(struct lane *l)
{
    return cuda_lane(l)->processors * (ROLES / 32);
}
static inline float *squares_take(struct lane *l, const void *squares)
{
    int64_t bytes = square_parts(l) * (int64_t)sizeof(float);
    float *part = squares ? (float *)arena_take(&l->scratch, bytes) : NULL;
    if (squares)
        cu(cudaMemsetAsync(part, 0, (size_t)bytes, stream(l)));
    return part;
}
static inline void squares_join(struct lane *l, void *squares, const float *part)
{
    if (!squares)
        return;
    squares_kernel<<<1, 256, 0, stream(l)>>>((stat *)squares, part, square_parts(l));
    launched("experts_wgrad", "%d", square_parts(l));
}

static inline int mma_up(struct lane *l, void *h, void *a, const void *x, const void *up,
                         const void *gate, struct map r, int64_t live, int64_t d, int64_t f)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    int joint = experts_long(r.e, d);
    mma_args g = {};
    if (!whole(x, up, h, r, d, f))
        return 0;
    g.r = r, g.out = h, g.act = a, g.gate = gate;
    g.n = (int)f, g.k = (int)d;
    mma_run<UP>(l, "experts_up", g, joint, joint ? lay_rows(l, x, r, live, d) : x, d, up,
                r.e * 2 * f, d);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_down(struct lane *l, void *y, const void *a, const void *down, struct map r,
                           int64_t d, int64_t f)
{
    mma_args g = {};
    if (!whole(a, down, y, r, d, f))
        return 0;
    g.r = r, g.out = y;
    g.n = (int)d, g.k = (int)f;
    mma_run<DOWN>(l, "experts_down", g, experts_long(r.e, f), a, f, down, r.e * d, f);
    return 1;
}
static inline int mma_dh(struct lane *l, void *dh, void *a, void *dgate, const void *dout,
                         const void *down, const void *h, const void *gate, struct map r,
                         int64_t live, int64_t d, int64_t f)
{
    int parts = (int)ceil_div(f, traits<DH, 1>::n), joint = experts_long(r.e, d);
    struct arena_mark mark = arena_mark(&l->scratch);
    mma_args g = {};
    if (!whole(dout, down, dh, r, d, f))
        return 0;
    g.part_ld = live + (int64_t)r.e * (ROW_ALIGN - 1);
    g.part = (float *)arena_take(&l->scratch, parts * g.part_ld * (int64_t)sizeof *g.part);
    g.r = r, g.out = dh, g.act = a, g.h = h, g.gate = gate;
    g.n = (int)f, g.k = (int)d;
    mma_run<DH>(l, "experts_dh", g, joint, joint ? lay_rows(l, dout, r, live, d) : dout, d, down,
                r.e * d, f);
    dgate_kernel<<<cuda_lane(l)->processors * 4, 256, 0, stream(l)>>>((stat *)dgate, g.part, r,
                                                                      parts, g.part_ld);
    launched("experts_dh", "%d", parts);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_dx(struct lane *l, void *dx, const void *dh, const void *up, struct map r,
                         int64_t d, int64_t f)
{
    mma_args g = {};
    if (!whole(dh, up, dx, r, d, f))
        return 0;
    g.r = r, g.out = dx;
    g.n = (int)d, g.k = (int)(2 * f);
    mma_run<DX>(l, "experts_dx", g, experts_long(r.e, 2 * f), dh, 2 * f, up, r.e * 2 * f, d);
    return 1;
}
static inline int mma_up_wgrad(struct lane *l, struct grad dw, const void *dh, const void *x,
                               struct map r, int64_t live, int64_t d, int64_t f, void *squares)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    mma_args g = {};
    if (!whole(dh, x, dw.data, r, d, f))
        return 0;
    g.part = squares_take(l, squares);
    g.r = r, g.out = dw.data, g.coarse = dw.coarse, g.add = dw.add;
    g.m = (int)(2 * f), g.n = (int)d;
    mma_run<UP_W>(l, "experts_up_wgrad", g, experts_long(r.e, live / r.e), dh, 2 * f,
                  lay_rows(l, x, r, live, d), ANY_ROWS, d);
    squares_join(l, squares, g.part);
    arena_back(&l->scratch, mark);
    return 1;
}
static inline int mma_down_wgrad(struct lane *l, struct grad dw, const void *dout, const void *a,
                                 struct map r, int64_t live, int64_t d, int64_t f, void *squares)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    mma_args g = {};
    if (!whole(dout, a, dw.data, r, d, f))
        return 0;
    g.part = squares_take(l, squares);
    g.r = r, g.out = dw.data, g.coarse = dw.coarse, g.add = dw.add;
    g.m = (int)d, g.n = (int)f;
    mma_run<DOWN_W>(l, "experts_down_wgrad", g, experts_long(r.e, live / r.e),
                    lay_rows(l, dout, r, live, d), d, a, ANY_ROWS, f);
    squares_join(l, squares, g.part);
    arena_back(&l->scratch, mark);
    return 1;
}

#else /* f32 has no tensor-core path that keeps f32's digits */
template <typename... T>
static inline int mma_none(T...)
{
    return 0;
}
#define mma_up         mma_none
#define mma_down       mma_none
#define mma_dh         mma_none
#define mma_dx         mma_none
#define mma_up_wgrad   mma_none
#define mma_down_wgrad mma_none
#endif
#endif
