/* comm_nccl.c -- memory of GPUs between ranks, one GPU a process, by NCCL on the caller's lane.
 *
 * A communicator of NCCL (here: a clique) is made at the first call that needs one, by all its
 * members at once; its id travels over the group's host engine.  Groups of the same ranks share
 * one, but not over lanes: a lane's calls come in one order on every rank, and lanes wait for
 * nobody.
 *
 * NCCL's send ends when the receiver takes it, and a comm_send() must not wait for that: so the
 * message is copied, and every direction between two members of a group has a clique and a stream
 * of its own (a wire).  Only the first message between two ranks waits for both.
 *
 * Calls are queued and return at once, so whether they are ever done is seen by a thread, the
 * watch: where nothing that was queued gets done before the deadline it ends the job, as
 * comm_mpi.c does, with words. */
#include "comm/far.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MARKS = 1024,
    NAME = 24,
    WIRE_BLOCKS = 4 /* multiprocessors that a waiting send may hold */
};

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
struct mark { /* a call that has been queued, or one of the host's in progress */
    char group[NAME];
    const char *call;
    int size, open, on_host;
    double since;
    cudaEvent_t done;
};
struct far { /* world->far_state */
    struct clique *clique;
    char *byte; /* of the device, for first messages */
    pthread_t watch;
    pthread_mutex_t lock; /* of what follows */
    int ends;
    int device, rank;
    double deadline_s, progress;
    int64_t at;
    struct mark mark[MARKS];
};

static void nccl(ncclResult_t r, const char *call, const struct comm *c)
{
    if (r != ncclSuccess)
        die("rank %d: group %s of %d: %s: %s", c->world->rank, c->name, c->size, call,
            ncclGetLastError(NULL)[0] ? ncclGetLastError(NULL) : ncclGetErrorString(r));
}
#define NCCL(call) nccl(call, #call, c)

static void cuda(cudaError_t e, const char *call)
{
    if (e != cudaSuccess)
        die("%s: %s", call, cudaGetErrorString(e));
}
#define CUDA(call) cuda(call, #call)

static cudaStream_t queue(struct lane *l)
{
    return l->dev->queue(l);
}

/* ---- the watch ---- */

/* The oldest call that is not done; those that are, are closed. */
static struct mark *oldest(struct far *f, double now)
{
    struct mark *first = NULL;
    for (int64_t i = 0; i < MARKS; i++) {
        struct mark *m = &f->mark[(f->at + i) % MARKS];
        if (!m->open)
            continue;
        if (!m->on_host && cudaEventQuery(m->done) != cudaErrorNotReady) {
            m->open = 0;
            f->progress = now;
        } else if (!first) {
            first = m;
        }
    }
    return first;
}

static void *watch(void *arg)
{
    struct far *f = arg;
    CUDA(cudaSetDevice(f->device));
    for (int ends = 0; !ends;) {
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        pthread_mutex_lock(&f->lock);
        double now = clock_s();
        const struct mark *m = oldest(f, now);
        if (m && now - MAX(m->since, f->progress) > f->deadline_s)
            die("rank %d: group %s of %d: %s is not done after %g s: another rank is late, lost, "
                "or "
                "makes other calls",
                f->rank, m->group, m->size, m->call, f->deadline_s);
        ends = f->ends;
        pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

static struct far *far_of(const struct comm *c)
{
    struct world *w = c->world;
    struct far *f = w->far_state;
    if (f)
        return f;
    f = w->far_state = xcalloc(1, sizeof *f);
    f->rank = w->rank;
    f->deadline_s = w->deadline_s;
    CUDA(cudaGetDevice(&f->device));
    CUDA(cudaMalloc((void **)&f->byte, 1));
    pthread_mutex_init(&f->lock, NULL);
    if (pthread_create(&f->watch, NULL, watch, f))
        die("no thread to watch NCCL with");
    return f;
}

static struct mark *mark_take(struct far *f, const struct comm *c, const char *call)
{
    struct mark *m = &f->mark[f->at++ % MARKS];
    if (m->open) /* so many are under way: this one is not watched, those before it are */
        return NULL;
    snprintf(m->group, sizeof m->group, "%s", c->name);
    m->size = c->size;
    m->call = call;
    m->since = clock_s();
    m->open = 1;
    return m;
}

void far_queued(const struct comm *c, cudaStream_t stream, const char *call)
{
    struct far *f = far_of(c);
    enum cudaStreamCaptureStatus capturing;
    CUDA(cudaStreamIsCapturing(stream, &capturing));
    if (capturing != cudaStreamCaptureStatusNone)
        return;
    pthread_mutex_lock(&f->lock);
    struct mark *m = mark_take(f, c, call);
    if (m) {
        m->on_host = 0;
        if (!m->done)
            CUDA(cudaEventCreateWithFlags(&m->done, cudaEventDisableTiming));
        CUDA(cudaEventRecord(m->done, stream));
    }
    pthread_mutex_unlock(&f->lock);
}

/* Makes a communicator of n ranks, this one being `rank` of them; all of them are here. */
static ncclComm_t meet(const struct comm *c, ncclUniqueId id, int n, int rank, int most_blocks)
{
    struct far *f = far_of(c);
    ncclComm_t made;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (most_blocks)
        config.maxCTAs = most_blocks;
    pthread_mutex_lock(&f->lock);
    struct mark *m = mark_take(f, c, "making a communicator");
    if (m)
        m->on_host = 1;
    pthread_mutex_unlock(&f->lock);
    NCCL(ncclCommInitRankConfig(&made, n, id, rank, &config));
    pthread_mutex_lock(&f->lock);
    if (m)
        m->open = 0;
    pthread_mutex_unlock(&f->lock);
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
    pthread_mutex_lock(&f->lock);
    f->ends = 1;
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->watch, NULL);
    for (struct clique *q; (q = f->clique);) {
        f->clique = q->next;
        ncclCommDestroy(q->nccl);
        free(q);
    }
    for (int64_t i = 0; i < MARKS; i++)
        if (f->mark[i].done)
            CUDA(cudaEventDestroy(f->mark[i].done));
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
