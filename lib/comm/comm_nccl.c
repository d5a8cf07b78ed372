/* comm_nccl.c -- memory of GPUs between ranks, one GPU a process, by NCCL on the caller's lane.
 *
 * A communicator of NCCL (here: a clique) is made at the first call that needs one, by all its
 * members at once; its id travels over the group's host engine.  Groups of the same ranks share
 * one, but not over lanes: a lane's calls come in one order on every rank, and lanes wait for
 * nobody.
 *
 * NCCL's send ends when the receiver takes it, and a comm_send() must not wait for that: so the
 * message is copied, and every direction between two members of a group has a clique and a stream
 * of its own (a wire).  Only the first message between two ranks waits for both. */
#include "comm/far.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_BLOCKS = 4 /* multiprocessors that a waiting send may hold */ };

struct clique {
    struct clique *next;
    const struct lane *lane;
    ncclComm_t nccl;
    int n, ranks[]; /* (n) of the world */
};
struct copy { /* of a message on its way */
    struct copy *next;
    void *p;
    int64_t bytes;
    cudaEvent_t sent;
};
struct wire {
    struct wire *next;
    int from, to; /* ranks of the group */
    ncclComm_t nccl;
    cudaStream_t stream; /* the sender's messages leave on it */
    cudaEvent_t ready;
    struct copy *copy;
};
struct far { /* world->far_state */
    struct clique *clique;
    char *byte; /* of the device, for first messages */
    struct watch *watch;
};

static void nccl(ncclResult_t r, const char *call, const struct comm *c)
{
    if (r != ncclSuccess)
        die("rank %d: group %s of %d: %s: %s", c->world->rank, c->name, c->size, call,
            ncclGetLastError(NULL)[0] ? ncclGetLastError(NULL) : ncclGetErrorString(r));
}
#define NCCL(call) nccl(call, #call, c)

static cudaStream_t queue(struct lane *l)
{
    return l->dev->queue(l);
}

static struct far *far_of(const struct comm *c)
{
    struct world *w = c->world;
    struct far *f = w->far_state;
    if (f)
        return f;
    f = w->far_state = xcalloc(1, sizeof *f);
    f->watch = watch_open(w);
    CUDA(cudaMalloc((void **)&f->byte, 1));
    return f;
}

void far_queued(const struct comm *c, cudaStream_t stream, const char *call)
{
    watch_queued(far_of(c)->watch, c, stream, call);
}

/* Makes a communicator of n ranks, this one being `rank` of them; all of them are here. */
static ncclComm_t meet(const struct comm *c, ncclUniqueId id, int n, int rank, int most_blocks)
{
    struct far *f = far_of(c);
    ncclComm_t made;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (most_blocks)
        config.maxCTAs = most_blocks;
    struct mark *m = watch_begin(f->watch, c, "making a communicator");
    NCCL(ncclCommInitRankConfig(&made, n, id, rank, &config));
    watch_end(f->watch, m);
    return made;
}

ncclComm_t far_clique(struct comm *c, const struct lane *l)
{
    struct far *f = far_of(c);
    size_t bytes = (size_t)c->size * sizeof *c->ranks;
    struct clique *q = f->clique;
    while (q && (q->lane != l || q->n != c->size || memcmp(q->ranks, c->ranks, bytes)))
        q = q->next;
    if (q)
        return q->nccl;
    ncclUniqueId id;
    if (c->rank == 0)
        NCCL(ncclGetUniqueId(&id));
    c->engine->broadcast(c, NULL, &id, sizeof id, 0);
    q = xcalloc(1, sizeof *q + bytes);
    q->lane = l;
    q->n = c->size;
    memcpy(q->ranks, c->ranks, bytes);
    q->nccl = meet(c, id, c->size, c->rank, 0);
    q->next = f->clique;
    return (f->clique = q)->nccl;
}

/* ---- collectives ---- */

static ncclDataType_t type_of(enum dtype t)
{
    return t == DT_F64    ? ncclFloat64
           : t == DT_BF16 ? ncclBfloat16
           : t == DT_I32  ? ncclInt32
           : t == DT_I64  ? ncclInt64
                          : ncclFloat32;
}

static void all_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                       enum comm_op op)
{
    if (!n)
        return;
    NCCL(ncclAllReduce(buf, buf, (size_t)n, type_of(t), op == COMM_MAX ? ncclMax : ncclSum,
                       far_clique(c, l), queue(l)));
    far_queued(c, queue(l), "all_reduce");
}

static void all_gather(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                       enum dtype t)
{
    if (!n)
        return;
    NCCL(ncclAllGather(in, out, (size_t)(n * dtype_size(t)), ncclInt8, far_clique(c, l), queue(l)));
    far_queued(c, queue(l), "all_gather");
}

static void reduce_scatter(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                           enum dtype t)
{
    if (!n)
        return;
    NCCL(ncclReduceScatter(in, out, (size_t)n, type_of(t), ncclSum, far_clique(c, l), queue(l)));
    far_queued(c, queue(l), "reduce_scatter");
}

static void reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t, int root)
{
    if (!n)
        return;
    NCCL(ncclReduce(buf, buf, (size_t)n, type_of(t), ncclSum, root, far_clique(c, l), queue(l)));
    far_queued(c, queue(l), "reduce");
}

static void all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                       const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    ncclComm_t q = far_clique(c, l);
    const char *from = send;
    char *to = recv;
    NCCL(ncclGroupStart());
    for (int i = 0; i < c->size; i++) {
        int64_t out = send_rows[i] * row_bytes, in = recv_rows[i] * row_bytes;
        if (i == c->rank)
            comm_copy(l, to, from, out);
        else if (out)
            NCCL(ncclSend(from, (size_t)out, ncclInt8, i, q, queue(l)));
        if (i != c->rank && in)
            NCCL(ncclRecv(to, (size_t)in, ncclInt8, i, q, queue(l)));
        from += out;
        to += in;
    }
    NCCL(ncclGroupEnd());
    far_queued(c, queue(l), "all_to_all");
}

static void broadcast(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root)
{
    if (!bytes)
        return;
    NCCL(ncclBroadcast(buf, buf, (size_t)bytes, ncclInt8, root, far_clique(c, l), queue(l)));
    far_queued(c, queue(l), "broadcast");
}

/* ---- messages ---- */

static struct wire *wire_find(const struct comm *c, int from, int to)
{
    struct wire *w = c->far_state;
    while (w && (w->from != from || w->to != to))
        w = w->next;
    return w;
}

/* A first byte goes through, since NCCL connects two ranks when both are there to do it. */
static void wire_new(struct comm *c, int from, int to)
{
    struct wire *w = xcalloc(1, sizeof *w);
    ncclUniqueId id;
    char *byte = far_of(c)->byte;
    w->from = from;
    w->to = to;
    CUDA(cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&w->ready, cudaEventDisableTiming));
    if (c->rank == from) {
        NCCL(ncclGetUniqueId(&id));
        c->engine->send(c, NULL, &id, sizeof id, to);
    } else {
        c->engine->recv(c, NULL, &id, sizeof id, from);
    }
    w->nccl = meet(c, id, 2, c->rank == to, WIRE_BLOCKS);
    if (c->rank == from)
        NCCL(ncclSend(byte, 1, ncclInt8, 1, w->nccl, w->stream));
    else
        NCCL(ncclRecv(byte, 1, ncclInt8, 0, w->nccl, w->stream));
    CUDA(cudaStreamSynchronize(w->stream));
    w->next = c->far_state;
    c->far_state = w;
}

/* The first message between two ranks makes the wires of both directions, in one order on both:
 * each may be the sender of its first. */
static struct wire *wire(struct comm *c, int from, int to)
{
    struct wire *w = wire_find(c, from, to);
    if (w)
        return w;
    if (from == to)
        die("group %s: rank %d has no wire to itself", c->name, from);
    wire_new(c, MIN(from, to), MAX(from, to));
    wire_new(c, MAX(from, to), MIN(from, to));
    return wire_find(c, from, to);
}

/* Memory for a copy: that of a message of this size which has left, or more. */
static struct copy *copy_take(struct wire *w, int64_t bytes)
{
    struct copy *m = w->copy;
    while (m && (m->bytes != bytes || cudaEventQuery(m->sent) != cudaSuccess))
        m = m->next;
    cudaGetLastError(); /* not yet sent is no error */
    if (m)
        return m;
    m = xcalloc(1, sizeof *m);
    m->bytes = bytes;
    CUDA(cudaMalloc(&m->p, (size_t)bytes));
    CUDA(cudaEventCreateWithFlags(&m->sent, cudaEventDisableTiming));
    m->next = w->copy;
    return w->copy = m;
}

static void send(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to)
{
    if (!bytes)
        return;
    struct wire *w = wire(c, c->rank, to);
    struct copy *m = copy_take(w, bytes);
    comm_copy(l, m->p, buf, bytes);
    CUDA(cudaEventRecord(w->ready, queue(l)));
    CUDA(cudaStreamWaitEvent(w->stream, w->ready, 0));
    NCCL(ncclSend(m->p, (size_t)bytes, ncclInt8, 1, w->nccl, w->stream));
    CUDA(cudaEventRecord(m->sent, w->stream));
    far_queued(c, w->stream, "send");
}

static void recv(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from)
{
    if (!bytes)
        return;
    struct wire *w = wire(c, from, c->rank);
    NCCL(ncclRecv(buf, (size_t)bytes, ncclInt8, 0, w->nccl, queue(l)));
    far_queued(c, queue(l), "recv");
}

/* ---- groups and the world ---- */

static void group_open(struct comm *c)
{
}

static void group_close(struct comm *c)
{
    for (struct wire *w; (w = c->far_state);) {
        c->far_state = w->next;
        CUDA(cudaStreamSynchronize(w->stream));
        NCCL(ncclCommDestroy(w->nccl));
        for (struct copy *m; (m = w->copy);) {
            w->copy = m->next;
            CUDA(cudaFree(m->p));
            CUDA(cudaEventDestroy(m->sent));
            free(m);
        }
        CUDA(cudaStreamDestroy(w->stream));
        CUDA(cudaEventDestroy(w->ready));
        free(w);
    }
}

static void world_close(struct world *w)
{
    struct far *f = w->far_state;
    if (!f)
        return;
    watch_close(f->watch);
    for (struct clique *q; (q = f->clique);) {
        f->clique = q->next;
        ncclCommDestroy(q->nccl);
        free(q);
    }
    CUDA(cudaFree(f->byte));
    free(f);
}

static const struct engine engine_nccl = {
    .name = "nccl",
    .close = world_close,
    .group_open = group_open,
    .group_close = group_close,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .reduce_scatter = reduce_scatter,
    .reduce = reduce,
    .all_to_all = all_to_all,
    .send = send,
    .recv = recv,
    .broadcast = broadcast,
};

/* Multicast by the switch needs privileges that not every machine gives, and NCCL finds that out by
 * failing; buffers registered for a graph are an exchange in the middle of a capture. */
const struct engine *engine_far(void)
{
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    setenv("NCCL_GRAPH_REGISTER", "0", 0);
    return &engine_nccl;
}
