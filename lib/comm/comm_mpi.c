/* comm_mpi.c -- ranks as processes of an MPI job, on host memory.
 *
 * Every call is posted without blocking and polled until it is done or the deadline has passed, so
 * that a rank that is lost, or a call that the others do not make, ends the job with words and not
 * in silence. MPI may add in any order; here blocks are exchanged and added in rank order, as
 * comm.h promises.  Counts in MPI are ints, so blocks travel as one element of a type of their
 * size. */
#include "comm/engine.h"

#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 4 << 20 }; /* bytes of each rank's block that a reduction exchanges at once */

struct sent { /* a message on its way: comm_send() has returned */
    struct sent *next;
    struct message *m;
    MPI_Request request;
};
struct channel { /* comm->state */
    MPI_Comm mpi;
    struct sent *sent;
    int *ints;  /* (4, size) counts and places of the call in progress */
    char *room; /* what a reduction receives */
    int64_t room_bytes;
};
static double deadline_s;

static void mpi(int error, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n;
    if (error == MPI_SUCCESS)
        return;
    MPI_Error_string(error, text, &n);
    die("%s: %s", call, text);
}
#define MPI(call) mpi(call, #call)

/* Waits awake for a moment, since most calls are short, then asleep: ranks may be more than cores.
 */
static void pause_between(double waited)
{
    if (waited < 1e-3)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static void finish(const struct comm *c, const char *call, MPI_Request *r, MPI_Status *status)
{
    double begun = clock_s(), waited;
    for (int done = 0;; pause_between(waited)) {
        MPI(MPI_Test(r, &done, status));
        if (done)
            return;
        waited = clock_s() - begun;
        if (waited > deadline_s)
            die("rank %d: group %s of %d: %s is not done after %g s: another rank is late, lost, "
                "or "
                "makes other calls",
                c->world->rank, c->name, c->size, call, deadline_s);
    }
}

/* One element of so many bytes, its neighbours `stride` bytes apart.  Free with MPI_Type_free(). */
static MPI_Datatype block_type(int64_t bytes, int64_t stride)
{
    enum { UNIT = 1 << 30 };
    MPI_Datatype unit, whole, t;
    const int n[2] = {(int)(bytes / UNIT), (int)(bytes % UNIT)};
    MPI(MPI_Type_contiguous(UNIT, MPI_BYTE, &unit));
    if (n[0])
        MPI(MPI_Type_create_struct(2, n, (MPI_Aint[]){0, (MPI_Aint)n[0] * UNIT},
                                   (MPI_Datatype[]){unit, MPI_BYTE}, &whole));
    else
        MPI(MPI_Type_contiguous(n[1], MPI_BYTE, &whole));
    MPI(MPI_Type_create_resized(whole, 0, stride, &t));
    MPI(MPI_Type_commit(&t));
    MPI_Type_free(&unit);
    MPI_Type_free(&whole);
    return t;
}

static void check_lane(const struct comm *c, const struct lane *l)
{
    if (l && strcmp(l->dev->name, "cpu"))
        die("group %s: MPI carries host memory, not %s: this build has no NCCL (make NCCL=1)",
            c->name, l->dev->name);
}

static char *room(struct comm *c, int64_t bytes)
{
    struct channel *ch = c->state;
    if (bytes > ch->room_bytes) {
        free(ch->room);
        ch->room = xmalloc((size_t)bytes);
        ch->room_bytes = bytes;
    }
    return ch->room;
}

/* ---- groups ---- */

static void group_open(struct comm *c)
{
    struct channel *ch = c->state = xcalloc(1, sizeof *ch);
    MPI_Group all, some;
    ch->ints = xcalloc(4 * (size_t)c->size, sizeof *ch->ints);
    MPI(MPI_Comm_group(MPI_COMM_WORLD, &all));
    MPI(MPI_Group_incl(all, c->size, c->ranks, &some));
    MPI(MPI_Comm_create_group(MPI_COMM_WORLD, some, (int)(c->world->groups % 32768), &ch->mpi));
    MPI(MPI_Comm_set_errhandler(ch->mpi, MPI_ERRORS_RETURN));
    MPI_Group_free(&all);
    MPI_Group_free(&some);
}

static void sent_done(struct comm *c, int wait)
{
    struct channel *ch = c->state;
    for (struct sent **at = &ch->sent, *s; (s = *at);) {
        int done = 0;
        if (wait)
            finish(c, "send", &s->request, MPI_STATUS_IGNORE);
        else
            MPI(MPI_Test(&s->request, &done, MPI_STATUS_IGNORE));
        if (!wait && !done) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        free(s->m);
        free(s);
    }
}

static void group_close(struct comm *c)
{
    struct channel *ch = c->state;
    sent_done(c, 1);
    MPI(MPI_Comm_free(&ch->mpi));
    free(ch->ints);
    free(ch->room);
    free(ch);
}

/* ---- collectives ---- */

static void all_gather(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                       enum dtype t)
{
    struct channel *ch = c->state;
    MPI_Request r;
    int64_t bytes = n * dtype_size(t);
    check_lane(c, l);
    MPI_Datatype block = block_type(bytes, bytes);
    const void *from = in == (char *)out + c->rank * bytes ? MPI_IN_PLACE : in;
    MPI(MPI_Iallgather(from, 1, block, out, 1, block, ch->mpi, &r));
    finish(c, "all_gather", &r, MPI_STATUS_IGNORE);
    MPI_Type_free(&block);
}

/* Everybody's n elements, `each` bytes apart in all, combined in rank order in the first of them.
 */
static void combine(const struct comm *c, char *all, int64_t each, int64_t n, enum dtype t,
                    enum comm_op op)
{
    for (int i = 1; i < c->size; i++)
        comm_combine(all, all + i * each, n, t, op);
}

static void reduce_scatter(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                           enum dtype t)
{
    struct channel *ch = c->state;
    int64_t size = dtype_size(t), bytes = n * size;
    check_lane(c, l);
    for (int64_t at = 0; at < bytes; at += PIECE) {
        int64_t len = MIN(PIECE, bytes - at);
        char *all = room(c, len * c->size);
        MPI_Datatype here = block_type(len, len), there = block_type(len, bytes);
        MPI_Request r;
        MPI(MPI_Ialltoall((char *)in + at, 1, there, all, 1, here, ch->mpi, &r));
        finish(c, "reduce_scatter", &r, MPI_STATUS_IGNORE);
        MPI_Type_free(&here);
        MPI_Type_free(&there);
        combine(c, all, len, len / size, t, COMM_SUM);
        memcpy((char *)out + at, all, (size_t)len);
    }
}

static void reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t, int root)
{
    struct channel *ch = c->state;
    int64_t size = dtype_size(t), bytes = n * size;
    check_lane(c, l);
    for (int64_t at = 0; at < bytes; at += PIECE) {
        int64_t len = MIN(PIECE, bytes - at);
        char *all = c->rank == root ? room(c, len * c->size) : NULL;
        MPI_Datatype block = block_type(len, len);
        MPI_Request r;
        MPI(MPI_Igather((char *)buf + at, 1, block, all, 1, block, root, ch->mpi, &r));
        finish(c, "reduce", &r, MPI_STATUS_IGNORE);
        MPI_Type_free(&block);
        if (c->rank != root)
            continue;
        combine(c, all, len, len / size, t, COMM_SUM);
        memcpy((char *)buf + at, all, (size_t)len);
    }
}

/* Each member reduces its share of the elements, and the shares are gathered. */
static void all_reduce_piece(struct comm *c, char *buf, int64_t n, enum dtype t, enum comm_op op)
{
    struct channel *ch = c->state;
    int p = c->size, size = (int)dtype_size(t);
    int *share = ch->ints, *at = share + p, *mine = at + p, *mine_at = mine + p;
    for (int i = 0; i < p; i++) {
        at[i] = (int)(n * i / p) * size;
        share[i] = (int)(n * (i + 1) / p) * size - at[i];
    }
    for (int i = 0; i < p; i++) {
        mine[i] = share[c->rank];
        mine_at[i] = i * share[c->rank];
    }
    MPI_Request r;
    char *all = room(c, (int64_t)p * share[c->rank]);
    MPI(MPI_Ialltoallv(buf, share, at, MPI_BYTE, all, mine, mine_at, MPI_BYTE, ch->mpi, &r));
    finish(c, "all_reduce", &r, MPI_STATUS_IGNORE);
    combine(c, all, share[c->rank], share[c->rank] / size, t, op);
    comm_copy(NULL, buf + at[c->rank], all, share[c->rank]);
    MPI(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, buf, share, at, MPI_BYTE, ch->mpi, &r));
    finish(c, "all_reduce", &r, MPI_STATUS_IGNORE);
}

static void all_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                       enum comm_op op)
{
    int64_t size = dtype_size(t), step = (int64_t)PIECE / size * MIN(c->size, 64); /* fits an int */
    check_lane(c, l);
    for (int64_t i = 0; i < n; i += step)
        all_reduce_piece(c, (char *)buf + i * size, MIN(step, n - i), t, op);
}

/* Counts and places in rows, as MPI takes them. */
static void rows_as_ints(const struct comm *c, const int64_t *rows, int *count, int *at)
{
    int64_t sum = 0;
    for (int i = 0; i < c->size; i++) {
        count[i] = (int)rows[i];
        at[i] = (int)sum;
        sum += rows[i];
    }
    if (sum > INT_MAX)
        die("group %s: %lld rows at once are more than MPI counts", c->name, (long long)sum);
}

static void all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                       const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    struct channel *ch = c->state;
    int *out = ch->ints, *out_at = out + c->size, *in = out_at + c->size, *in_at = in + c->size;
    MPI_Request r;
    check_lane(c, l);
    rows_as_ints(c, send_rows, out, out_at);
    rows_as_ints(c, recv_rows, in, in_at);
    MPI_Datatype row = block_type(row_bytes, row_bytes);
    MPI(MPI_Ialltoallv(send, out, out_at, row, recv, in, in_at, row, ch->mpi, &r));
    finish(c, "all_to_all", &r, MPI_STATUS_IGNORE);
    MPI_Type_free(&row);
}

static void broadcast_as(struct comm *c, const char *call, void *buf, int64_t bytes, int root)
{
    struct channel *ch = c->state;
    MPI_Request r;
    MPI_Datatype block = block_type(bytes, bytes);
    MPI(MPI_Ibcast(buf, 1, block, root, ch->mpi, &r));
    finish(c, call, &r, MPI_STATUS_IGNORE);
    MPI_Type_free(&block);
}

static void broadcast(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root)
{
    check_lane(c, l);
    broadcast_as(c, "broadcast", buf, bytes, root);
}

static void barrier(struct comm *c)
{
    struct channel *ch = c->state;
    MPI_Request r;
    MPI(MPI_Ibarrier(ch->mpi, &r));
    finish(c, "barrier", &r, MPI_STATUS_IGNORE);
}

static void gather_bytes(struct comm *c, const void *p, int64_t n, char **out, int64_t *len)
{
    all_gather(c, NULL, len, &n, 1, DT_I64);
    for (int i = 0; i < c->size; i++) {
        out[i] = i == c->rank ? comm_bytes(p, n) : xcalloc((size_t)len[i] + 1, 1);
        broadcast_as(c, "gather_bytes", out[i], len[i], i);
    }
}

/* ---- messages ---- */

static void send(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to)
{
    struct channel *ch = c->state;
    struct sent *s = xcalloc(1, sizeof *s), **end = &ch->sent;
    check_lane(c, l);
    sent_done(c, 0);
    while (*end)
        end = &(*end)->next;
    *end = s;
    s->m = message_new(l, buf, bytes);
    MPI_Datatype block = block_type(bytes, bytes);
    MPI(MPI_Isend(s->m->data, 1, block, to, 0, ch->mpi, &s->request));
    MPI_Type_free(&block);
}

static void recv(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from)
{
    struct channel *ch = c->state;
    MPI_Request r;
    MPI_Status status;
    MPI_Count got;
    check_lane(c, l);
    MPI_Datatype block = block_type(bytes, bytes);
    MPI(MPI_Irecv(buf, 1, block, from, 0, ch->mpi, &r));
    finish(c, "recv", &r, &status);
    MPI(MPI_Get_elements_x(&status, block, &got));
    MPI_Type_free(&block);
    if (got != bytes)
        die("group %s: rank %d sent %lld bytes and rank %d expects %lld", c->name, from,
            (long long)got, c->rank, (long long)bytes);
}

/* ---- the world ---- */

static void world_close(struct world *w)
{
    die_then(NULL);
    MPI_Finalize();
}

static const struct engine engine_mpi = {
    .name = "mpi",
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
    .barrier = barrier,
    .gather_bytes = gather_bytes,
};

static void end_all(int status)
{
    MPI_Abort(MPI_COMM_WORLD, status);
}

/* A process that nobody launched need not become a job of one: MPI_Init() then takes a second. */
static int launched(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
    const char *variable;
    for (int64_t i = 0; i < ARRAY_LEN(marks); i++)
        if (getenv(marks[i]))
            return 1;
    return launched_ranks(&variable) > 1;
}

struct world *world_mpi(double seconds)
{
    struct world *w = xcalloc(1, sizeof *w);
    int level;
    MPI_Comm node;
    if (!launched()) {
        free(w);
        return NULL;
    }
    deadline_s = w->deadline_s = seconds;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    die_then(end_all);
    w->engine = &engine_mpi;
    MPI(MPI_Comm_rank(MPI_COMM_WORLD, &w->rank));
    MPI(MPI_Comm_size(MPI_COMM_WORLD, &w->size));
    MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node));
    MPI(MPI_Comm_size(node, &w->local));
    MPI(MPI_Comm_rank(node, &w->i_local));
    MPI(MPI_Comm_free(&node));
    return w;
}
