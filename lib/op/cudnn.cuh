/* cudnn.cuh -- graphs of operations for cuDNN's backend, and the plans it makes of them.
 *
 * A graph is written as lines, a tensor or an operation each, that read like the formula; an
 * operation is given the tensor it writes and returns it.  Tensors with an id are in memory, the
 * others stay inside the one kernel that cuDNN finds for the whole graph. */
#ifndef CUDNN_CUH
#define CUDNN_CUH

#include "real.cuh"

#include <cudnn.h>

#include <stdio.h>
#include <string.h>

typedef cudnnBackendDescriptor_t dnn_desc;

enum { DNN_PARTS = 160, DNN_OPS = 32, DNN_TENSORS = 24 };

static const cudnnDataType_t DNN_F32 = CUDNN_DATA_FLOAT, DNN_BF16 = CUDNN_DATA_BFLOAT16,
                             DNN_I32 = CUDNN_DATA_INT32, DNN_I64 = CUDNN_DATA_INT64,
                             DNN_TRUTH = CUDNN_DATA_BOOLEAN;
static const cudnnPointwiseMode_t DNN_ADD = CUDNN_POINTWISE_ADD, DNN_SUB = CUDNN_POINTWISE_SUB,
                                  DNN_MUL = CUDNN_POINTWISE_MUL, DNN_DIV = CUDNN_POINTWISE_DIV,
                                  DNN_EXP = CUDNN_POINTWISE_EXP, DNN_LOG = CUDNN_POINTWISE_LOG,
                                  DNN_SAME = CUDNN_POINTWISE_IDENTITY,
                                  DNN_INDEX = CUDNN_POINTWISE_GEN_INDEX,
                                  DNN_LESS = CUDNN_POINTWISE_CMP_LT,
                                  DNN_AT_LEAST = CUDNN_POINTWISE_CMP_GE,
                                  DNN_AND = CUDNN_POINTWISE_LOGICAL_AND,
                                  DNN_SELECT = CUDNN_POINTWISE_BINARY_SELECT;
static const cudnnReduceTensorOp_t DNN_SUM = CUDNN_REDUCE_TENSOR_ADD,
                                   DNN_MOST = CUDNN_REDUCE_TENSOR_MAX;

struct dnn_graph {
    char what[128]; /* op and shape, for errors */
    dnn_desc part[DNN_PARTS], op[DNN_OPS];
    int parts, ops, virtuals;
    int64_t id[DNN_TENSORS]; /* of tensors in memory, and of scalars */
    int ids;
};

#define dnn(of, call)                                                                              \
    do {                                                                                           \
        cudnnStatus_t dnn_status = (call);                                                         \
        if (dnn_status != CUDNN_STATUS_SUCCESS)                                                    \
            dnn_die(__FILE__, __LINE__, (of)->what, #call, dnn_status);                            \
    } while (0)
static inline void dnn_die(const char *file, int line, const char *what, const char *call,
                           cudnnStatus_t status)
{
    char why[512] = "";
    cudnnGetLastErrorString(why, sizeof why);
    die("%s:%d: %s: %s: %s: %s", file, line, what, call, cudnnGetErrorString(status), why);
}

/* set(g, descriptor, attribute, value): the type of the value is told with it. */
#define DNN_SET(T, type)                                                                           \
    static inline void set(struct dnn_graph *g, dnn_desc d, cudnnBackendAttributeName_t attribute, \
                           T value)                                                                \
    {                                                                                              \
        dnn(g, cudnnBackendSetAttribute(d, attribute, type, 1, &value));                           \
    }
DNN_SET(int64_t, CUDNN_TYPE_INT64)
DNN_SET(bool, CUDNN_TYPE_BOOLEAN)
DNN_SET(double, CUDNN_TYPE_DOUBLE)
DNN_SET(cudnnHandle_t, CUDNN_TYPE_HANDLE)
DNN_SET(cudnnDataType_t, CUDNN_TYPE_DATA_TYPE)
DNN_SET(cudnnPointwiseMode_t, CUDNN_TYPE_POINTWISE_MODE)
DNN_SET(cudnnReduceTensorOp_t, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE)
DNN_SET(cudnnBackendHeurMode_t, CUDNN_TYPE_HEUR_MODE)
#undef DNN_SET
static inline void set_all(struct dnn_graph *g, dnn_desc d, cudnnBackendAttributeName_t attribute,
                           cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    dnn(g, cudnnBackendSetAttribute(d, attribute, type, n, values));
}
/* Another descriptor, where there is one. */
static inline void set_desc(struct dnn_graph *g, dnn_desc d, cudnnBackendAttributeName_t attribute,
                            dnn_desc value)
{
    if (value)
        set_all(g, d, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static inline dnn_desc dnn_new(struct dnn_graph *g, cudnnBackendDescriptorType_t type)
{
    if (g->parts == DNN_PARTS || g->ops == DNN_OPS || g->ids == DNN_TENSORS)
        die("%s: the graph has more parts than there is room for", g->what);
    dnn(g, cudnnBackendCreateDescriptor(type, &g->part[g->parts]));
    return g->part[g->parts++];
}
static inline void dnn_ready(struct dnn_graph *g, dnn_desc d)
{
    dnn(g, cudnnBackendFinalize(d));
}
static inline void dnn_free(struct dnn_graph *g) /* what the graph was made of */
{
    while (g->parts)
        dnn(g, cudnnBackendDestroyDescriptor(g->part[--g->parts]));
}

/* ---- tensors ---- */

struct dnn_view { /* sizes and strides in elements */
    int64_t dim[4], stride[4];
};
static inline struct dnn_view dnn_dense(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (struct dnn_view){{a, b, c, d}, {b * c * d, c * d, d, 1}};
}
static inline struct dnn_view dnn_turned(struct dnn_view v) /* the last two dimensions swapped */
{
    return (struct dnn_view){{v.dim[0], v.dim[1], v.dim[3], v.dim[2]},
                             {v.stride[0], v.stride[1], v.stride[3], v.stride[2]}};
}

struct dnn_tensor {
    dnn_desc desc; /* NULL: none */
    cudnnDataType_t type;
};

static inline struct dnn_tensor tensor(struct dnn_graph *g, int64_t id, cudnnDataType_t type,
                                       struct dnn_view v, dnn_desc ragged, bool is_virtual,
                                       bool by_value)
{
    dnn_desc d = dnn_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, (int64_t)16);
    set_all(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, v.dim);
    set_all(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, v.stride);
    set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual);
    set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, by_value);
    set_desc(g, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, ragged);
    dnn_ready(g, d);
    if (!is_virtual)
        g->id[g->ids++] = id;
    return (struct dnn_tensor){d, type};
}
/* ragged, where given, is a tensor that holds where each entry of the first dimension begins. */
static inline struct dnn_tensor stored(struct dnn_graph *g, int64_t id, cudnnDataType_t type,
                                       struct dnn_view v, struct dnn_tensor ragged = {})
{
    return tensor(g, id, type, v, ragged.desc, false, false);
}
static inline struct dnn_tensor inside(struct dnn_graph *g, cudnnDataType_t type, struct dnn_view v,
                                       struct dnn_tensor ragged = {})
{
    return tensor(g, 1000 + g->virtuals++, type, v, ragged.desc, true, false);
}
/* One f32, read from the host whenever the plan is run. */
static inline struct dnn_tensor scalar(struct dnn_graph *g, int64_t id)
{
    return tensor(g, id, DNN_F32, dnn_dense(1, 1, 1, 1), NULL, false, true);
}

/* ---- operations ---- */

static inline struct dnn_tensor op_ready(struct dnn_graph *g, dnn_desc op, struct dnn_tensor y)
{
    dnn_ready(g, op);
    g->op[g->ops++] = op;
    return y;
}

/* y = x mode b; of DNN_SELECT x where t, else b; of DNN_INDEX the index along the axis. */
static inline struct dnn_tensor pointwise(struct dnn_graph *g, struct dnn_tensor y,
                                          cudnnPointwiseMode_t mode, struct dnn_tensor x,
                                          struct dnn_tensor b = {}, struct dnn_tensor t = {},
                                          int64_t axis = -1)
{
    dnn_desc how = dnn_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    dnn_desc op = dnn_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_POINTWISE_MODE, mode);
    set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, y.type == DNN_BF16 ? DNN_F32 : y.type);
    if (axis >= 0)
        set(g, how, CUDNN_ATTR_POINTWISE_AXIS, axis);
    dnn_ready(g, how);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y.desc);
    return op_ready(g, op, y);
}

/* y: x reduced along the dimensions where y is shorter. */
static inline struct dnn_tensor reduce(struct dnn_graph *g, struct dnn_tensor y,
                                       cudnnReduceTensorOp_t mode, struct dnn_tensor x)
{
    dnn_desc how = dnn_new(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    dnn_desc op = dnn_new(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, mode);
    set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, DNN_F32);
    dnn_ready(g, how);
    set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.desc);
    return op_ready(g, op, y);
}

/* c (M,N) = a (M,K) b (K,N) for each of the first two dimensions; m, n, k, where given, are tensors
 * with the sizes that count. */
static inline struct dnn_tensor matmul(struct dnn_graph *g, struct dnn_tensor c,
                                       struct dnn_tensor a, struct dnn_tensor b,
                                       struct dnn_tensor m, struct dnn_tensor n,
                                       struct dnn_tensor k)
{
    dnn_desc how = dnn_new(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    dnn_desc op = dnn_new(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, DNN_F32);
    set(g, how, CUDNN_ATTR_MATMUL_PADDING_VALUE, 0.0);
    dnn_ready(g, how);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k.desc);
    return op_ready(g, op, c);
}

/* y: x seen in other dimensions. */
static inline struct dnn_tensor reshape(struct dnn_graph *g, struct dnn_tensor y,
                                        struct dnn_tensor x)
{
    dnn_desc op = dnn_new(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.desc);
    set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.desc);
    return op_ready(g, op, y);
}

/* ---- plans ---- */

struct dnn_plan {
    char what[128];    /* of the graph, as its ids */
    dnn_desc desc;     /* NULL: cuDNN has no kernel for the graph */
    int64_t workspace; /* bytes */
    int64_t id[DNN_TENSORS];
    int ids;
};

/* The first of cuDNN's proposals for the graph, best first, that it can make a plan of.  Frees the
 * graph. */
static inline struct dnn_plan dnn_plan_make(struct dnn_graph *g, cudnnHandle_t handle)
{
    enum { PROPOSALS = 8 };
    struct dnn_plan p = {};
    memcpy(p.what, g->what, sizeof p.what);
    memcpy(p.id, g->id, sizeof p.id);
    p.ids = g->ids;
    dnn_desc ops = dnn_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    dnn_desc device = dnn_new(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    dnn_desc search = dnn_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR), proposal[PROPOSALS];
    set_all(g, ops, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->ops, g->op);
    dnn_ready(g, ops);
    set(g, device, CUDNN_ATTR_DEVICEPROP_HANDLE, handle);
    dnn_ready(g, device);
    set_desc(g, search, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, ops);
    set_desc(g, search, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    set(g, search, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A);
    dnn_ready(g, search);
    for (int i = 0; i < PROPOSALS; i++)
        proposal[i] = dnn_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    int64_t found = 0;
    dnn(g, cudnnBackendGetAttribute(search, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, PROPOSALS, &found, proposal));
    for (int64_t i = 0; i < found && !p.desc; i++) {
        dnn_desc plan;
        dnn(g, cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan));
        set_desc(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, proposal[i]);
        set_desc(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
        if (cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS)
            p.desc = plan;
        else
            dnn(g, cudnnBackendDestroyDescriptor(plan));
    }
    if (p.desc)
        dnn(g, cudnnBackendGetAttribute(p.desc, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                        CUDNN_TYPE_INT64, 1, NULL, &p.workspace));
    dnn_free(g);
    return p;
}

/* Queues the plan on the handle's stream.  at[id]: a tensor's memory, a scalar's f32 on the host.
 */
static inline void dnn_plan_run(const struct dnn_plan *p, cudnnHandle_t handle, void *const *at,
                                void *workspace)
{
    void *pointer[DNN_TENSORS];
    for (int i = 0; i < p->ids; i++)
        pointer[i] = at[p->id[i]];
    dnn_desc pack;
    dnn(p, cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    dnn(p, cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                    p->ids, p->id));
    dnn(p, cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                    CUDNN_TYPE_VOID_PTR, p->ids, pointer));
    dnn(p, cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                                    &workspace));
    dnn(p, cudnnBackendFinalize(pack));
    dnn(p, cudnnBackendExecute(handle, p->desc, pack));
    dnn(p, cudnnBackendDestroyDescriptor(pack));
}

#endif
