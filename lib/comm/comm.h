/* comm.h -- groups of ranks and what they do together.
 *
 * A world is the set of all ranks as one of them sees it; a comm is a group within it, made once
 * at the start.  Collectives are called by every member in the same order.  Sums are taken in rank
 * order, so that they have the same bits at every call and on every member; on GPUs in an order of
 * NCCL's choice, which for two ranks is the same and for more is at least the same at every call.
 * A group of one costs nothing: where input and output may be the same place, they are.
 *
 * Engines: comm_self.c (one rank), comm_thread.c (ranks as threads of one process; for tests
 * and for trying a mapping without MPI), comm_mpi.c (ranks as processes, host memory), comm_nccl.c
 * (the same processes, memory of their GPUs).  A lane of NULL means host memory, done on return; on
 * a lane of a GPU calls are queued. */
#ifndef COMM_H
#define COMM_H

#include "dev/dev.h"

struct world;
struct comm;
enum comm_op { COMM_SUM, COMM_MAX };

int world_rank(const struct world *w);
int world_size(const struct world *w);
int world_local(const struct world *w); /* how many of the ranks are on this machine */

/* The world this process was launched into: the MPI job of mpirun or srun, else one rank.  Called once, by
 * the main thread.  A collective that is not done deadline_s seconds after its call ends the job with a
 * message that names rank, group and call; and when one rank dies, all do. */
struct world *world_open(double deadline_s);
struct world *world_self(void); /* one rank; free with world_free() */
/* As one of several ranks sees it, though the others are not there: calls are local copies.  So one
 * rank's part can be timed without the others and, on the device "dry", its memory counted. */
struct world *world_dry(int rank, int size);
/* Runs fn in n threads, the caller's among them, each with its own world of size n, and returns
 * when all have.  The worlds are freed here. */
void world_threads(int n, void (*fn)(struct world *w, void *arg), void *arg);
void world_free(struct world *w);

/* The group of the given world ranks, in that order.  Called by every rank of the world, in the
 * same order of calls, each with the group that it is a member of.  name is for messages ("ep"). */
struct comm *comm_new(struct world *w, const char *name, const int *ranks, int n);
void comm_free(struct comm *c);
int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);

/* In place.  t: F32, F64, I32 or I64, on GPUs also BF16. */
void comm_all_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                     enum comm_op op);
/* out holds size * n elements, rank i's at i * n; in may be out + rank * n (then it is not
 * copied). */
void comm_all_gather(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                     enum dtype t);
/* in holds size * n elements; out gets the sum of everybody's block `rank`; out may be in + rank
 * n, and in is then spoilt elsewhere. */
void comm_reduce_scatter(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                         enum dtype t);
/* In place at the root, which gets the sum; what the others have in buf is spoilt. */
void comm_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t, int root);
/* Rows of row_bytes: send_rows[i] rows go to rank i, laid out in rank order; recv_rows[i] come
 * from it.  The counts are on the host. */
void comm_all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                     const void *send, const int64_t *send_rows, int64_t row_bytes);
/* Pairs match in order of calls.  A send may return before it is received; on GPUs the first message
 * between two ranks waits for both. */
void comm_send(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to);
void comm_recv(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from);
void comm_broadcast(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root);
void comm_barrier(struct comm *c);
/* Host bytes of any length from every rank: returns rank i's at out[i], a NUL after them, with
 * length len[i] (arrays of size entries), on every rank.  Caller frees each out[i]. */
void comm_gather_bytes(struct comm *c, const void *p, int64_t n, char **out, int64_t *len);

/* ---- windows: rows straight into the memory of other GPUs, where they can write to each other's ----
 *
 * Every member holds el experts, `share` neighbours the same ones: rank r those from r / share el on.
 * Of a rank's n rows (as many on each) row i goes to every rank that holds one of its k experts, once,
 * and lies there as row `rank n + i` of size n.  The host knows nothing of counts, so all of it can be
 * captured. */
struct window;
struct window_rows {
    const int32_t *index; /* (n,k) experts of this rank's rows, others than 0 .. size / share el for none */
    const int32_t *there; /* (size n,k) of the rows here; or NULL: not yet here, they are part 1 */
    int64_t n, k, el;
    int share;
};
struct window_part { /* one of several arrays whose rows travel together, a row in one piece */
    void *out;
    const void *in, *res;
    int64_t cols;
    enum dtype type;
};
/* Bytes that window_open() is asked for where so many bytes of n rows travel together (0 of more ranks than
 * a window has), and what it then takes of the device. */
int64_t window_half(int64_t ranks, int64_t n, int64_t row_bytes);
int64_t window_bytes(int64_t half);
/* By every member at once.  Movements then come in one order, whatever lanes they are on.  NULL and why where
 * there can be none. */
struct window *window_open(struct comm *c, struct lane *l, int64_t half, const char **why);
void window_close(struct window *w);
/* To the experts: in (n,cols), out (size n,cols).  Rows of part 0 that are not wanted are left out, and
 * so is what `out` has in their place; parts after it come whole. */
void window_out(struct window *w, struct lane *l, const struct window_rows *rows, const struct window_part *part,
                int parts);
/* And back: in (size n,cols), out (n,cols) = res + what comes of the row's experts, added in order of
 * ranks.  res may be NULL. */
void window_back(struct window *w, struct lane *l, const struct window_rows *rows, const struct window_part *part,
                 int parts);

#endif
