/* op.c -- the tables: op_list.h read once a variant. */
#include "op/op.h"

#include <string.h>

#define OP(name, args) name##_cpu_f32,
static const struct op cpu_f32 = {
    DT_F32,
    DT_F32,
#include "op_list.h"
};
#undef OP

#define OP(name, args) name##_cpu_f64,
static const struct op cpu_f64 = {
    DT_F64,
    DT_F64,
#include "op_list.h"
};
#undef OP

const struct op *op_table(const char *device, enum dtype real)
{
    if (!strcmp(device, "cpu"))
        return real == DT_F32 ? &cpu_f32 : real == DT_F64 ? &cpu_f64 : NULL;
    if (!strcmp(device, "dry"))
        return op_table_dry(real);
    return !strcmp(device, "cuda") ? op_table_cuda(real) : NULL;
}
