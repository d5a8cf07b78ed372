/* op_cuda.cu -- the tables of the CUDA twins: f32, and bf16 with f32 statistics. */
#include "real.cuh"

#define OP(name, args) name##_cuda_f32,
static const struct op cuda_f32 = {
    DT_F32,
    DT_F32,
#include "op_list.h"
};
#undef OP

#define OP(name, args) name##_cuda_bf16,
static const struct op cuda_bf16 = {
    DT_BF16,
    DT_F32,
#include "op_list.h"
};
#undef OP

extern "C" const struct op *op_table_cuda(enum dtype real)
{
    return real == DT_F32 ? &cuda_f32 : real == DT_BF16 ? &cuda_bf16 : NULL;
}
