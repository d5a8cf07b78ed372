/* gemm.cu -- dense matrix products, C (M,N) = op(A) op(B) [+ C], by cuBLASLt, sums in f32.
 *
 * Bound: tensor cores for bf16 (2 M N K operations), f32 units for f32 (never tf32).  A few rows
 * times a weight are gemm_few.cuh's.  cuBLASLt
 * thinks in columns: our row-major C is its C^T = op(B)^T op(A)^T.  What it chose for a shape is
 * kept, so a step asks once.  An f32 operand among bf16 ones (the router's gradient) is rounded
 * first. */
#include "gemm_few.cuh"
#include "product.cuh"

#include <stdlib.h>
#include <string.h>

struct gemm_key {
    int64_t m, n, k, lda, ldb, ldc;
    int ta, tb, add, ctype, abtype, align;
};
struct gemm_plan {
    struct gemm_key key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
    int found;
};

#define lt(call)                                                                                   \
    do {                                                                                           \
        cublasStatus_t lt_status = (call);                                                         \
        if (lt_status != CUBLAS_STATUS_SUCCESS)                                                    \
            die("%s:%d: %s: %s", __FILE__, __LINE__, #call, cublasLtGetStatusString(lt_status));   \
    } while (0)

static cudaDataType_t cuda_type(enum dtype t)
{
    return t == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static int alignment(const void *p)
{
    int bytes = 256;
    while ((uintptr_t)p % (uintptr_t)bytes)
        bytes /= 2;
    return bytes;
}

static cublasLtMatrixLayout_t layout(enum dtype t, const struct mat *m)
{
    cublasLtMatrixLayout_t x;
    lt(cublasLtMatrixLayoutCreate(&x, cuda_type(t), (uint64_t)m->cols, (uint64_t)m->rows, m->ld));
    return x;
}

static void plan_make(struct cuda_lane *c, struct gemm_plan *p, const struct mat *out,
                      const struct mat *a, const struct mat *b, const int align[3])
{
    cublasOperation_t first = p->key.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = p->key.ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    lt(cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    lt(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    lt(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                      sizeof second));
    p->a = layout(b->type, b);
    p->b = layout(a->type, a);
    p->c = layout(out->type, out);
    cublasLtMatmulPreference_t want;
    uint32_t bytes[3] = {(uint32_t)align[0], (uint32_t)align[1], (uint32_t)align[2]};
    lt(cublasLtMatmulPreferenceCreate(&want));
    lt(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &c->workspace_bytes, sizeof c->workspace_bytes));
    lt(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                            &bytes[2], 4));
    lt(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                            &bytes[1], 4));
    lt(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                            &bytes[0], 4));
    lt(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                            &bytes[0], 4));
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    cublasStatus_t s = cublasLtMatmulAlgoGetHeuristic(c->blas, p->desc, p->a, p->b, p->c, p->c,
                                                      want, 1, &result, &found);
    p->found = s == CUBLAS_STATUS_SUCCESS && found > 0;
    p->algo = result.algo;
    cublasLtMatmulPreferenceDestroy(want);
}

static struct gemm_plan *plan_of(struct lane *l, const struct mat *out, const struct mat *a,
                                 const struct mat *b, int ta, int tb, int add, int64_t k)
{
    struct cuda_lane *c = cuda_lane(l);
    int align[3] = {alignment(out->data), alignment(a->data), alignment(b->data)};
    struct gemm_key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.m = out->rows, key.n = out->cols, key.k = k;
    key.lda = a->ld, key.ldb = b->ld, key.ldc = out->ld;
    key.ta = ta, key.tb = tb, key.add = add;
    key.ctype = out->type, key.abtype = a->type;
    key.align = (align[0] << 20) | (align[1] << 10) | align[2];
    for (int64_t i = 0; i < c->plans; i++)
        if (!memcmp(&c->plan[i].key, &key, sizeof key))
            return &c->plan[i];
    if (c->plans == c->plans_cap) {
        c->plans_cap = MAX(2 * c->plans_cap, (int64_t)64);
        c->plan = (struct gemm_plan *)xrealloc(c->plan, (size_t)c->plans_cap * sizeof *c->plan);
    }
    struct gemm_plan *p = &c->plan[c->plans++];
    memset(p, 0, sizeof *p);
    p->key = key;
    plan_make(c, p, out, a, b, align);
    return p;
}

/* For what cuBLASLt has no kernel for. */
template <typename C>
static __global__ void plain_gemm(C *c, const real *a, const real *b, int64_t m, int64_t n,
                                  int64_t k, int64_t lda, int64_t ldb, int64_t ldc, int ta, int tb,
                                  int add)
{
    plain_tile(
        (int64_t)blockIdx.y * PLAIN_TILE, (int64_t)blockIdx.x * PLAIN_TILE, k,
        [=](int64_t i, int64_t p) { return i < m ? f32(a[ta ? p * lda + i : i * lda + p]) : 0; },
        [=](int64_t p, int64_t j) { return j < n ? f32(b[tb ? j * ldb + p : p * ldb + j]) : 0; },
        [=](int64_t i, int64_t j, float sum) {
            if (i < m && j < n)
                store(c + i * ldc + j, sum + (add ? f32(c[i * ldc + j]) : 0));
        });
}

static __global__ void round_kernel(real *y, const stat *x, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        store(y + i, x[i]);
}

/* An operand of statistics in the type of activations, in scratch. */
static struct mat rounded(struct lane *l, struct mat m)
{
    if (m.type == REAL_TYPE)
        return m;
    real *p = (real *)arena_take(&l->scratch, m.rows * m.ld * (int64_t)sizeof *p);
    round_kernel<<<blocks_of(m.rows * m.ld, 256), 256, 0, stream(l)>>>(p, (const stat *)m.data,
                                                                       m.rows * m.ld);
    m.data = p;
    m.type = REAL_TYPE;
    return m;
}

extern "C" void OPNAME(gemm)(struct lane *l, struct mat c, struct mat a, struct mat b, int ta,
                             int tb, int add)
{
    int64_t k = ta ? a.rows : a.cols;
    struct arena_mark mark = arena_mark(&l->scratch);
    if ((c.type != REAL_TYPE && c.type != DT_F32) || (a.type != REAL_TYPE && a.type != DT_F32) ||
        (b.type != REAL_TYPE && b.type != DT_F32) || (ta ? a.cols : a.rows) != c.rows ||
        (tb ? b.rows : b.cols) != c.cols || (tb ? b.cols : b.rows) != k)
        die("gemm: %s (%lld,%lld) from %s (%lld,%lld)%s and %s (%lld,%lld)%s does not fit",
            dtype_name(c.type), (long long)c.rows, (long long)c.cols, dtype_name(a.type),
            (long long)a.rows, (long long)a.cols, ta ? "^T" : "", dtype_name(b.type),
            (long long)b.rows, (long long)b.cols, tb ? "^T" : "");
    if (!c.rows || !c.cols || (!k && add))
        return;
    a = rounded(l, a);
    b = rounded(l, b);
    if (few_gemm(l, &c, &a, &b, ta, tb, add)) {
        arena_back(&l->scratch, mark);
        return;
    }
    struct gemm_plan *p = k ? plan_of(l, &c, &a, &b, ta, tb, add, k) : NULL;
    if (p && p->found) {
        struct cuda_lane *x = cuda_lane(l);
        float one = 1, beta = add ? 1 : 0;
        lt(cublasLtMatmul(x->blas, p->desc, &one, b.data, p->a, a.data, p->b, &beta, c.data, p->c,
                          c.data, p->c, &p->algo, x->workspace, x->workspace_bytes, x->stream));
    } else {
        dim3 grid(blocks_of(c.cols, PLAIN_TILE), blocks_of(c.rows, PLAIN_TILE));
        if (c.type == DT_F32)
            plain_gemm<<<grid, PLAIN_THREADS, 0, stream(l)>>>((float *)c.data, (const real *)a.data,
                                                              (const real *)b.data, c.rows, c.cols,
                                                              k, a.ld, b.ld, c.ld, ta, tb, add);
        else
            plain_gemm<<<grid, PLAIN_THREADS, 0, stream(l)>>>((real *)c.data, (const real *)a.data,
                                                              (const real *)b.data, c.rows, c.cols,
                                                              k, a.ld, b.ld, c.ld, ta, tb, add);
        launched("gemm", "%lld,%lld,%lld", (long long)c.rows, (long long)c.cols, (long long)k);
    }
    arena_back(&l->scratch, mark);
}
