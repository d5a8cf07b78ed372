/* pair.cu -- the logistic loss on pairs of documents: Bradley-Terry for reward models, DPO for
 * policies.
 *
 * Bound: memory, 3 T.  A block takes a pair; the sums over pairs are one block's, in their order.
 */
#include "real.cuh"

enum { THREADS = 256 };

struct pairs {
    const stat *out, *weight; /* (T) */
    const int32_t *q_at, *chosen;
    const stat *base, *margin;
    float beta;
};

static __device__ double span_score(const struct pairs &p, int64_t i)
{
    double sum = 0;
    for (int64_t j = p.q_at[i] + threadIdx.x; j < p.q_at[i + 1]; j += THREADS)
        sum += (double)p.weight[j] * (double)p.out[j];
    return block_sum(sum) - (double)p.base[i];
}

static __global__ void pair_dgrad_kernel(stat *dout, struct pairs p, const stat *denom)
{
    int64_t i = blockIdx.x;
    if (!p.chosen[i])
        return;
    double gap = span_score(p, i) - span_score(p, i + 1);
    double g = -p.beta / (1 + exp(p.beta * gap - (double)p.margin[i])) / (double)*denom;
    for (int64_t j = p.q_at[i] + threadIdx.x; j < p.q_at[i + 2]; j += THREADS)
        dout[j] = (float)((j < p.q_at[i + 1] ? g : -g) * (double)p.weight[j]);
}

static struct pairs pairs_of(const void *out, const void *weight, const int32_t *q_at,
                             const int32_t *chosen, const void *base, const void *margin,
                             double beta)
{
    return (struct pairs){(const stat *)out,  (const stat *)weight, q_at,       chosen,
                          (const stat *)base, (const stat *)margin, (float)beta};
}

extern "C" void OPNAME(pair_dgrad)(struct lane *l, void *dout, const void *out, const void *weight,
                                   const int32_t *q_at, const int32_t *chosen, const void *base,
                                   const void *margin, const void *denom, int64_t t, int64_t spans,
                                   double beta)
{
    cu(cudaMemsetAsync(dout, 0, (size_t)t * sizeof(stat), stream(l)));
    if (!spans)
        return;
    pair_dgrad_kernel<<<(unsigned)spans, THREADS, 0, stream(l)>>>(
        (stat *)dout, pairs_of(out, weight, q_at, chosen, base, margin, beta), (const stat *)denom);
    launched("pair_dgrad", "%lld,%lld", (long long)t, (long long)spans);
}

/* part (spans,2): loss of the pair that begins at a span, and whether its chosen one won. */
static __global__ void pair_part_kernel(double *part, struct pairs p)
{
    int64_t i = blockIdx.x;
    double loss = 0, right = 0;
    if (p.chosen[i]) {
        double gap = span_score(p, i) - span_score(p, i + 1),
               x = p.beta * gap - (double)p.margin[i];
        loss = fmax(-x, 0.0) + log1p(exp(-fabs(x)));
        right = gap > 0 ? 1 : gap == 0 ? 0.5 : 0;
    }
    if (threadIdx.x == 0) {
        part[i * 2] = loss;
        part[i * 2 + 1] = right;
    }
}

static __global__ void pair_join_kernel(stat *loss, const double *part, int64_t spans)
{
    double sum = 0, right = 0;
    for (int64_t i = threadIdx.x; i < spans; i += THREADS) {
        sum += part[i * 2];
        right += part[i * 2 + 1];
    }
    sum = block_sum(sum);
    right = block_sum(right);
    if (threadIdx.x)
        return;
    loss[0] += (float)sum;
    loss[1] += (float)right;
}

extern "C" void OPNAME(pair_loss)(struct lane *l, void *loss, const void *out, const void *weight,
                                  const int32_t *q_at, const int32_t *chosen, const void *base,
                                  const void *margin, int64_t spans, double beta)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    double *part = (double *)arena_take(&l->scratch, spans * 2 * (int64_t)sizeof *part);
    if (!spans)
        return;
    pair_part_kernel<<<(unsigned)spans, THREADS, 0, stream(l)>>>(
        part, pairs_of(out, weight, q_at, chosen, base, margin, beta));
    pair_join_kernel<<<1, THREADS, 0, stream(l)>>>((stat *)loss, part, spans);
    launched("pair_loss", "%lld", (long long)spans);
    arena_back(&l->scratch, mark);
}
