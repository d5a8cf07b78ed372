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

const struct op *op_open(const char *device, const char *type)
{
    static const struct {
        const char *name;
        enum dtype type;
    } types[] = {{"f32", DT_F32}, {"f64", DT_F64}, {"bf16", DT_BF16}};
    if (dev_missing(device))
        die_misused("--device %s: %s", device, dev_missing(device));
    for (int64_t i = 0; i < ARRAY_LEN(types); i++) {
        const struct op *op = strcmp(type, types[i].name) ? NULL : op_table(device, types[i].type);
        if (op)
            return op;
    }
    die_misused("--device %s has no kernels of type %s", device, type);
}
