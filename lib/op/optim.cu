/* optim.cu -- the optimizer: norm, the decision to commit, the update of N elements.
 *
 * Bound: memory: 4 N bytes for the norm; for AdamW in bf16 30 N (16 read, 14 written).  All runs of
 * a shard go in one launch, or few: their bounds and decays travel as an argument. */
#include "real.cuh"

#include <math.h>

enum { THREADS = 256, SQUARE_BLOCKS = 1024, RUNS = 120 }; /* runs a launch */

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

static __global__ void control_kernel(stat *s, const stat *sum, const stat *bad, struct step_plan p)
{
    double norm = sqrt((double)*sum);
    s[STEP_NORM] = (float)norm;
    s[STEP_OK] = isfinite(norm) && *bad <= 0;
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

extern "C" void OPNAME(step_control)(struct lane *l, void *state, const void *sum, const void *bad,
                                     const struct step_plan *plan)
{
    control_kernel<<<1, 1, 0, stream(l)>>>((stat *)state, (const stat *)sum, (const stat *)bad,
                                           *plan);
    launched("step_control", "%d", STEP_STATE);
}

struct runs {
    int64_t at[RUNS + 1];
    float decay[RUNS];
    int n;
};
struct update {
    real *w;              /* (N) */
    stat *master, *m, *v; /* (N); master may be w, m and v are NULL for sgd */
    const stat *g;        /* (N) */
    const stat *state;    /* (STEP_STATE) */
    float beta1, beta2, eps;
};

template <int ADAM>
static __device__ __forceinline__ void update_one(const struct update &u, float *w, float *m,
                                                  float *v, float g, float decay)
{
    float d = g * u.state[STEP_SCALE], step = d;
    if (ADAM) {
        *m = u.beta1 * *m + (1 - u.beta1) * d;
        *v = u.beta2 * *v + (1 - u.beta2) * d * d;
        step = *m / u.state[STEP_BIAS1] / (sqrtf(*v / u.state[STEP_BIAS2]) + u.eps);
    }
    *w -= u.state[STEP_LR] * (decay * *w + step);
}

template <int ADAM, int V>
static __global__ void update_kernel(struct update u, __grid_constant__ const struct runs runs)
{
    if (u.state[STEP_OK] == 0)
        return;
    int64_t i = runs.at[0] + ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (i >= runs.at[runs.n])
        return;
    int low = 0, high = runs.n; /* the run of element i: at[low] <= i < at[low + 1] */
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (runs.at[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    float w[V], m[V], v[V], g[V];
    load_n<V>(w, u.master + i);
    load_n<V>(g, u.g + i);
    if (ADAM) {
        load_n<V>(m, u.m + i);
        load_n<V>(v, u.v + i);
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        while (i + j >= runs.at[low + 1])
            low++;
        update_one<ADAM>(u, &w[j], &m[j], &v[j], g[j], runs.decay[low]);
    }
    store_n<V>(u.master + i, w);
    if (ADAM) {
        store_n<V>(u.m + i, m);
        store_n<V>(u.v + i, v);
    }
    store_n<V>(u.w + i, w); /* last, since it may be the master itself */
}

template <int ADAM>
static void update_all(struct lane *l, const struct update *u, const int64_t *run,
                       const double *decay, int64_t runs)
{
    int aligned = ((uintptr_t)u->w | (uintptr_t)u->master | (uintptr_t)u->m | (uintptr_t)u->v |
                   (uintptr_t)u->g) %
                      16 ==
                  0;
    for (int64_t i = 0; i < runs; i += RUNS) {
        struct runs r = {};
        r.n = (int)MIN(runs - i, (int64_t)RUNS);
        for (int j = 0; j <= r.n; j++)
            r.at[j] = run[i + j];
        for (int j = 0; j < r.n; j++)
            r.decay[j] = (float)decay[i + j];
        int64_t n = r.at[r.n] - r.at[0];
        if (!n)
            continue;
        if (aligned && n % 4 == 0 && r.at[0] % 4 == 0)
            update_kernel<ADAM, 4><<<blocks_of(n, THREADS * 4), THREADS, 0, stream(l)>>>(*u, r);
        else
            update_kernel<ADAM, 1><<<blocks_of(n, THREADS), THREADS, 0, stream(l)>>>(*u, r);
        launched("update", "%lld", (long long)n);
    }
}

extern "C" void OPNAME(adamw)(struct lane *l, void *w, void *master, void *m, void *v,
                              const void *g, const int64_t *run, const double *decay, int64_t runs,
                              const void *state, const struct step_plan *plan)
{
    struct update u = {(real *)w,          (stat *)master,     (stat *)m,
                       (stat *)v,          (const stat *)g,    (const stat *)state,
                       (float)plan->beta1, (float)plan->beta2, (float)plan->eps};
    update_all<1>(l, &u, run, decay, runs);
}

extern "C" void OPNAME(sgd)(struct lane *l, void *w, void *master, const void *g,
                            const int64_t *run, const double *decay, int64_t runs,
                            const void *state)
{
    struct update u = {(real *)w, (stat *)master, NULL, NULL, (const stat *)g, (const stat *)state};
    update_all<0>(l, &u, run, decay, runs);
}
