/* op_dry.c -- ops that do nothing, for the device that has no memory (dev_dry.c). */
#include "op/op.h"

#define OP(name, args)                                                                             \
    static void name##_dry args                                                                    \
    {                                                                                              \
    }
#include "op_list.h"
#undef OP

#define OP(name, args) name##_dry,
static const struct op f32 = {
    DT_F32,
    DT_F32,
#include "op_list.h"
};
static const struct op bf16 = {
    DT_BF16,
    DT_F32,
#include "op_list.h"
};
#undef OP

const struct op *op_table_dry(enum dtype real)
{
    return real == DT_F32 ? &f32 : real == DT_BF16 ? &bf16 : NULL;
}
