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

#endif
