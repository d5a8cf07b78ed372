/* optim.cu -- the optimizer: norm, the decision to commit, the update of N elements.
 *
 * Bound: memory.  The norm reads the gradients; AdamW reads gradient, moments and master and writes
 * the last three and the weights: 30 N bytes in f32, 14 N where all is bf16 and the weights are
 * their own masters.  A shard is one launch; threads find their stretch of it in a table. */
#include "real.cuh"
#include "rng.cuh"
#include "ptx.cuh"

#include <math.h>

enum { THREADS = 256, SQUARE_BLOCKS = 1024, UPDATERS = 128 };

/* V at a time, f32 within them: a gradient has many elements, and f64 adds are slow. */
template <int V, typename T>
static __global__ void squares_kernel(double *part, const T *g, int64_t n)
{
    double sum = 0;
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V; i < n;
         i += (int64_t)gridDim.x * THREADS * V) {
        float x[V], few = 0;
        load_n<V>(x, g + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            few += x[j] * x[j];
        sum += (double)few;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        part[blockIdx.x] = sum;
}

static __global__ void squares_join(stat *sum, const double *part, int parts)
{
    double all = 0;
    for (int i = threadIdx.x; i < parts; i += THREADS)
        all += part[i];
    all = block_sum(all);
    if (threadIdx.x == 0)
        *sum += (float)all;
}

template <typename T>
static unsigned squares_of(struct lane *l, double *part, const T *g, int64_t n)
{
    enum { V = 16 / sizeof(T) };
    int wide = (uintptr_t)g % 16 == 0 && n % V == 0;
    unsigned blocks = MIN(blocks_of(wide ? n / V : n, THREADS), (unsigned)SQUARE_BLOCKS);
    if (wide)
        squares_kernel<V><<<blocks, THREADS, 0, stream(l)>>>(part, g, n);
    else
        squares_kernel<1><<<blocks, THREADS, 0, stream(l)>>>(part, g, n);
    return blocks;
}

extern "C" void OPNAME(sum_squares)(struct lane *l, void *sum, struct mat g)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    double *part = (double *)arena_take(&l->scratch, SQUARE_BLOCKS * (int64_t)sizeof *part);
    unsigned blocks = grad_of("sum_squares", g, 0).coarse
                          ? squares_of(l, part, (const bf16 *)g.data, g.cols)
                          : squares_of(l, part, (const float *)g.data, g.cols);
    squares_join<<<1, THREADS, 0, stream(l)>>>((stat *)sum, part, (int)blocks);
    launched("sum_squares", "%lld", (long long)g.cols);
    arena_back(&l->scratch, mark);
}

static __global__ void control_kernel(stat *s, const stat *sum, const stat *loss, int64_t n,
                                      struct step_plan p)
{
    double norm = sqrt((double)*sum);
    int good = isfinite(norm);
    for (int64_t i = 0; i < n; i++)
        good &= isfinite(loss[i]);
    s[STEP_NORM] = (float)norm;
    s[STEP_OK] = (float)good;
    if (!s[STEP_OK])
        return;
    double count = (double)s[STEP_COUNT] + 1, lr = p.lr * count / p.warmup;
    if (count > p.warmup) {
        double gone = p.steps > p.warmup ? (count - p.warmup) / (p.steps - p.warmup) : 1;
        lr = p.lr * (p.floor + (1 - p.floor) * 0.5 * (1 + cospi(MIN(gone, 1.0))));
    }
    s[STEP_COUNT] = (float)count;
    s[STEP_SCALE] = (float)(p.clip > 0 && norm > p.clip ? p.clip / norm : 1);
    s[STEP_LR] = (float)lr;
    s[STEP_BIAS1] = (float)(1 - pow(p.beta1, count));
    s[STEP_BIAS2] = (float)(1 - pow(p.beta2, count));
}

extern "C" void OPNAME(step_control)(struct lane *l, void *state, const void *sum, const void *loss,
                                     int64_t n, const struct step_plan *plan)
{
    control_kernel<<<1, 1, 0, stream(l)>>>((stat *)state, (const stat *)sum, (const stat *)loss, n,
                                           *plan);
    launched("step_control", "%lld", (long long)n);
}

/* where was -1: the largest number there is. */
template <typename T>
static __global__ void first_bad_kernel(unsigned long long *where, const T *g, int64_t n,
                                        const stat *state)
{
    if (state[STEP_OK] != 0)
        return;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * THREADS)
        if (!isfinite(f32(g[i]))) {
            atomicMin(where, (unsigned long long)i);
            return;
        }
}

extern "C" void OPNAME(first_bad)(struct lane *l, int64_t *where, struct mat g, const void *state)
{
    unsigned blocks = MIN(blocks_of(g.cols, THREADS), 4 * (unsigned)cuda_lane(l)->processors);
    cu(cudaMemsetAsync(where, 0xff, sizeof *where, stream(l)));
    if (grad_of("first_bad", g, 0).coarse)
        first_bad_kernel<<<blocks, THREADS, 0, stream(l)>>>(
            (unsigned long long *)where, (const bf16 *)g.data, g.cols, (const stat *)state);
    else
        first_bad_kernel<<<blocks, THREADS, 0, stream(l)>>>(
            (unsigned long long *)where, (const float *)g.data, g.cols, (const stat *)state);
    launched("first_bad", "%lld", (long long)g.cols);
}

struct update {
    void *w, *master, *m, *v; /* (N); master may be w; m and v of AdamW only */
    const void *g;            /* (N) */
    const struct stretch *stretch;
    const int32_t *of_block;
    const stat *state; /* (STEP_STATE) */
    int64_t n;
    float beta1, beta2, eps;
};
struct rates { /* of the step */
    float scale, lr, unbias1, unbias2;
    uint64_t draw;
};

/* What is rounded by chance is bf16 and its own source; the rest is stored to the nearest. */
template <int V>
static __device__ __forceinline__ void put(float *p, const float *x, uint64_t key, uint64_t draw,
                                           int64_t e)
{
    store_n<V>(p, x);
}
template <int V>
static __device__ __forceinline__ void put(bf16 *p, const float *x, uint64_t key, uint64_t draw,
                                           int64_t e)
{
    uint4 r = rng_bits_of(key, draw, (uint64_t)e / 8);
    uint32_t bits[4] = {r.x, r.y, r.z, r.w};
    if constexpr (V == 8) {
        uint32_t y[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[i] = __byte_perm(rng_round(x[2 * i], bits[i]), rng_round(x[2 * i + 1], bits[i] >> 16),
                               0x7632);
        *(uint4 *)p = make_uint4(y[0], y[1], y[2], y[3]);
    } else {
        int j = (int)(e % 8);
        uint32_t word = j < 4 ? (j < 2 ? bits[0] : bits[1]) : (j < 6 ? bits[2] : bits[3]);
        *(uint16_t *)p = (uint16_t)(rng_round(*x, word >> j % 2 * 16) >> 16);
    }
}

/* V neighbours as they are stored. */
template <int V, typename MASTER, typename MOMENT, typename GRAD>
struct held {
    chunk<GRAD, V> g;
    chunk<MOMENT, V> m, v;
    chunk<MASTER, V> w;
};
template <int ADAM, int V, typename MASTER, typename MOMENT, typename GRAD>
static __device__ __forceinline__ void fetch(struct held<V, MASTER, MOMENT, GRAD> &x,
                                             const struct update &u, int64_t i)
{
    x.g = *(const chunk<GRAD, V> *)((const GRAD *)u.g + i);
    if (ADAM) {
        x.m = *(const chunk<MOMENT, V> *)((const MOMENT *)u.m + i);
        x.v = *(const chunk<MOMENT, V> *)((const MOMENT *)u.v + i);
    }
    x.w = *(const chunk<MASTER, V> *)((const MASTER *)u.master + i);
}

/* Of one stretch: elements e and on of their tensor, e a multiple of V. */
template <int ADAM, int OWN, int V, typename MASTER, typename MOMENT, typename GRAD>
static __device__ __forceinline__ void update_at(const struct held<V, MASTER, MOMENT, GRAD> &x,
                                                 const struct update &u, const struct rates &r,
                                                 int64_t i, uint64_t key, float decay, int64_t e)
{
    float w[V], m[V], v[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
        float d = f32(x.g.x[j]) * r.scale, step = d;
        if (ADAM) {
            m[j] = u.beta1 * f32(x.m.x[j]) + (1 - u.beta1) * d;
            v[j] = u.beta2 * f32(x.v.x[j]) + (1 - u.beta2) * d * d;
            step = __fdividef(m[j] * r.unbias1, sqrt_near(v[j] * r.unbias2) + u.eps);
        }
        w[j] = f32(x.w.x[j]);
        w[j] -= r.lr * (decay * w[j] + step);
    }
    if (ADAM) {
        put<V>((MOMENT *)u.m + i, m, key, r.draw + DRAW_M, e);
        put<V>((MOMENT *)u.v + i, v, key, r.draw + DRAW_V, e);
    }
    put<V>((MASTER *)u.master + i, w, key, r.draw + DRAW_WEIGHT, e);
    if (!OWN)
        store_n<V>((real *)u.w + i, w);
}

/* The element of its tensor that stands at i. */
static __device__ __forceinline__ int64_t element_of(const struct stretch *s, int64_t i)
{
    int64_t from = i - s->at;
    return s->first + (s->cols == s->ld ? from : from / s->cols * s->ld + from % s->cols);
}

/* n neighbours of any stretches, one by one. */
template <int ADAM, int OWN, typename MASTER, typename MOMENT, typename GRAD>
static __device__ __noinline__ void update_each(const struct update &u, struct rates r, int64_t i,
                                                int n, const struct stretch *s)
{
    for (int64_t end = i + n; i < end; i++) {
        struct held<1, MASTER, MOMENT, GRAD> x;
        while (s[1].at <= i)
            s++;
        fetch<ADAM>(x, u, i);
        update_at<ADAM, OWN>(x, u, r, i, s->key, (float)s->decay, element_of(s, i));
    }
}

/* A thread takes PARTS times V neighbours: at once where they are of one stretch and of one draw,
 * which is nearly everywhere.  They are on their way before it is known which stretch they are of:
 * what a memory latency costs is paid once. */
template <int V, int PARTS, int ADAM, int OWN, typename MASTER, typename MOMENT, typename GRAD>
static __global__ void __launch_bounds__(UPDATERS)
    update_kernel(__grid_constant__ const struct update u)
{
    int64_t first = ((int64_t)blockIdx.x * UPDATERS * PARTS + threadIdx.x) * V;
    struct held<V, MASTER, MOMENT, GRAD> x[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (first + p * UPDATERS * V < u.n)
            fetch<ADAM>(x[p], u, first + p * UPDATERS * V);
    if (u.state[STEP_OK] == 0)
        return;
    struct rates r = {u.state[STEP_SCALE], u.state[STEP_LR], 1 / u.state[STEP_BIAS1],
                      1 / u.state[STEP_BIAS2], (uint64_t)u.state[STEP_COUNT] * 4};
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        int64_t i = first + p * UPDATERS * V;
        if (i >= u.n)
            return;
        const struct stretch *s = u.stretch + u.of_block[i / STRETCH_BLOCK];
        while (s[1].at <= i)
            s++;
        int64_t e = element_of(s, i);
        int row = s->cols == s->ld || (i - s->at) % s->cols + V <= s->cols;
        if (i + V <= s[1].at && e % V == 0 && row)
            update_at<ADAM, OWN>(x[p], u, r, i, s->key, (float)s->decay, e);
        else
            update_each<ADAM, OWN, MASTER, MOMENT, GRAD>(u, r, i, V, s);
    }
}

template <int ADAM, int OWN, typename MASTER, typename MOMENT, typename GRAD>
static void update_run(struct lane *l, const struct update &u)
{
    enum { PARTS = sizeof(MASTER) + sizeof(MOMENT) > 4 ? 1 : 2 };
    uintptr_t all =
        (uintptr_t)u.w | (uintptr_t)u.master | (uintptr_t)u.m | (uintptr_t)u.v | (uintptr_t)u.g;
    if (!u.n)
        return;
    if (all % 16 == 0 && u.n % 8 == 0)
        update_kernel<8, PARTS, ADAM, OWN, MASTER, MOMENT, GRAD>
            <<<blocks_of(u.n, UPDATERS * PARTS * 8), UPDATERS, 0, stream(l)>>>(u);
    else
        update_kernel<1, 1, ADAM, OWN, MASTER, MOMENT, GRAD>
            <<<blocks_of(u.n, UPDATERS), UPDATERS, 0, stream(l)>>>(u);
    launched("update", "%lld", (long long)u.n);
}

template <int ADAM, typename MOMENT, typename GRAD>
static void update_master(struct lane *l, const struct update &u)
{
    if (u.master == u.w)
        update_run<ADAM, 1, real, MOMENT, GRAD>(l, u);
    else
        update_run<ADAM, 0, stat, MOMENT, GRAD>(l, u);
}
template <int ADAM, typename MOMENT>
static void update_grad(struct lane *l, const struct update &u, enum dtype grad)
{
    if (grad == REAL_TYPE)
        update_master<ADAM, MOMENT, real>(l, u);
    else
        update_master<ADAM, MOMENT, stat>(l, u);
}

static struct update update_of(const char *op, struct mat w, struct mat master, struct mat m,
                               struct mat v, struct mat g, const struct stretches *s,
                               const void *state)
{
    int own = master.data == w.data;
    if (w.type != REAL_TYPE || master.type != (own ? REAL_TYPE : DT_F32) || m.type != v.type ||
        (m.type != DT_F32 && m.type != DT_BF16) || (g.type != REAL_TYPE && g.type != DT_F32))
        die("%s: weights %s, master %s, moments %s, gradients %s is no combination", op,
            dtype_name(w.type), dtype_name(master.type), dtype_name(m.type), dtype_name(g.type));
    return {w.data,      master.data,         m.data, v.data, g.data, s->stretch,
            s->of_block, (const stat *)state, w.cols};
}

extern "C" void OPNAME(adamw)(struct lane *l, struct mat w, struct mat master, struct mat m,
                              struct mat v, struct mat g, const struct stretches *s,
                              const void *state, const struct step_plan *plan)
{
    struct update u = update_of("adamw", w, master, m, v, g, s, state);
    u.beta1 = (float)plan->beta1;
    u.beta2 = (float)plan->beta2;
    u.eps = (float)plan->eps;
    if (m.type == DT_BF16)
        update_grad<1, bf16>(l, u, g.type);
    else
        update_grad<1, float>(l, u, g.type);
}

extern "C" void OPNAME(sgd)(struct lane *l, struct mat w, struct mat master, struct mat g,
                            const struct stretches *s, const void *state)
{
    struct mat none = mat(NULL, DT_F32, 1, w.cols);
    update_grad<0, float>(l, update_of("sgd", w, master, none, none, g, s, state), g.type);
}
