/* optim.cu -- the optimizer: norm, the decision to commit, the update of N elements.
 *
 * Bound: memory.  The norm reads the gradients; AdamW reads gradient, moments and master and writes
 * the last three and the weights: 30 N bytes in f32, 14 N where all is bf16 and the weights are
 * their own masters.  A shard is one launch; threads find their stretch of it in a table. */
#include "real.cuh"
#include "rng.cuh"
#include "ptx.cuh"

#include <math.h>

enum { THREADS = 256, SQUARE_BLOCKS = 1024 };

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

/* V neighbours of one stretch: elements e and on of their tensor, e a multiple of V. */
template <int V, typename MASTER, typename MOMENT, typename GRAD, int ADAM, int OWN>
static __device__ __forceinline__ void update_at(const struct update &u, const struct rates &r,
                                                 int64_t i, uint64_t key, float decay, int64_t e)
{
    MASTER *master = (MASTER *)u.master + i;
    MOMENT *mi = (MOMENT *)u.m + i, *vi = (MOMENT *)u.v + i;
    float w[V], m[V], v[V], g[V];
    load_n<V>(g, (const GRAD *)u.g + i);
    if (ADAM) {
        load_n<V>(m, mi);
        load_n<V>(v, vi);
    }
    load_n<V>(w, master);
#pragma unroll
    for (int j = 0; j < V; j++) {
        float d = g[j] * r.scale, step = d;
        if (ADAM) {
            m[j] = u.beta1 * m[j] + (1 - u.beta1) * d;
            v[j] = u.beta2 * v[j] + (1 - u.beta2) * d * d;
            step = __fdividef(m[j] * r.unbias1, sqrt_near(v[j] * r.unbias2) + u.eps);
        }
        w[j] -= r.lr * (decay * w[j] + step);
    }
    if (ADAM) {
        put<V>(mi, m, key, r.draw + DRAW_M, e);
        put<V>(vi, v, key, r.draw + DRAW_V, e);
    }
    put<V>(master, w, key, r.draw + DRAW_WEIGHT, e);
    if (!OWN)
        store_n<V>((real *)u.w + i, w);
}

/* A thread takes V neighbours: at once where they are of one stretch and of one draw, which is
 * nearly everywhere, else one by one. */
template <int V, typename MASTER, typename MOMENT, typename GRAD, int ADAM, int OWN>
static __global__ void __launch_bounds__(THREADS)
    update_kernel(__grid_constant__ const struct update u)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (u.state[STEP_OK] == 0 || i >= u.n)
        return;
    struct rates r = {u.state[STEP_SCALE], u.state[STEP_LR], 1 / u.state[STEP_BIAS1],
                      1 / u.state[STEP_BIAS2], (uint64_t)u.state[STEP_COUNT] * 4};
    const struct stretch *s = u.stretch + u.of_block[i / STRETCH_BLOCK];
    while (s[1].at <= i)
        s++;
    int64_t from = i - s->at, cols = s->cols, ld = s->ld, e = s->first + from;
    if (cols != ld)
        e = s->first + from / cols * ld + from % cols;
    if (V > 1 && i + V <= s[1].at && e % V == 0 && (cols == ld || from % cols + V <= cols)) {
        update_at<V, MASTER, MOMENT, GRAD, ADAM, OWN>(u, r, i, s->key, (float)s->decay, e);
        return;
    }
#pragma unroll 1
    for (int64_t end = i + V; i < end; i++) {
        while (s[1].at <= i)
            s++;
        from = i - s->at;
        e = s->first + from / s->cols * s->ld + from % s->cols;
        update_at<1, MASTER, MOMENT, GRAD, ADAM, OWN>(u, r, i, s->key, (float)s->decay, e);
    }
}

template <typename MASTER, typename MOMENT, typename GRAD, int ADAM, int OWN>
static void update_run(struct lane *l, const struct update &u)
{
    uintptr_t all =
        (uintptr_t)u.w | (uintptr_t)u.master | (uintptr_t)u.m | (uintptr_t)u.v | (uintptr_t)u.g;
    if (!u.n)
        return;
    if (all % 16 == 0 && u.n % 8 == 0)
        update_kernel<8, MASTER, MOMENT, GRAD, ADAM, OWN>
            <<<blocks_of(u.n, THREADS * 8), THREADS, 0, stream(l)>>>(u);
    else
        update_kernel<1, MASTER, MOMENT, GRAD, ADAM, OWN>
            <<<blocks_of(u.n, THREADS), THREADS, 0, stream(l)>>>(u);
    launched("update", "%lld", (long long)u.n);
}

template <typename MOMENT, typename GRAD, int ADAM>
static void update_master(struct lane *l, const struct update &u)
{
    if (u.master == u.w)
        update_run<real, MOMENT, GRAD, ADAM, 1>(l, u);
    else
        update_run<stat, MOMENT, GRAD, ADAM, 0>(l, u);
}
template <typename MOMENT, int ADAM>
static void update_grad(struct lane *l, const struct update &u, enum dtype grad)
{
    if (grad == REAL_TYPE)
        update_master<MOMENT, real, ADAM>(l, u);
    else
        update_master<MOMENT, stat, ADAM>(l, u);
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
        update_grad<bf16, 1>(l, u, g.type);
    else
        update_grad<float, 1>(l, u, g.type);
}

extern "C" void OPNAME(sgd)(struct lane *l, struct mat w, struct mat master, struct mat g,
                            const struct stretches *s, const void *state)
{
    struct mat none = mat(NULL, DT_F32, 1, w.cols);
    update_grad<float, 0>(l, update_of("sgd", w, master, none, none, g, s, state), g.type);
}
