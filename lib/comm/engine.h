/* engine.h -- what carries messages between ranks, behind comm.h: one table of calls an engine.
 *
 * comm.c checks arguments, counts the groups and calls the engine of the group; a group of one is
 * always comm_self's, whatever the world is.  A world may have a second engine, `far`, for memory
 * that is not the host's; its table has the collectives only, and it may call the first one's.  A
 * new engine is one file with a table and a function that opens its world. */
#ifndef ENGINE_H
#define ENGINE_H

#include "comm/comm.h"

struct engine {
    const char *name;
    void (*close)(struct world *w);     /* frees w->state */
    void (*group_open)(struct comm *c); /* may set c->state */
    void (*group_close)(struct comm *c);
    void (*all_reduce)(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                       enum comm_op op);
    void (*all_gather)(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                       enum dtype t);
    void (*reduce_scatter)(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                           enum dtype t);
    void (*reduce)(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t, int root);
    void (*all_to_all)(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                       const void *send, const int64_t *send_rows, int64_t row_bytes);
    void (*send)(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to);
    void (*recv)(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from);
    void (*broadcast)(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root);
    void (*barrier)(struct comm *c);
    void (*gather_bytes)(struct comm *c, const void *p, int64_t n, char **out, int64_t *len);
};
extern const struct engine engine_self, engine_thread;
/* What carries memory of GPUs between processes: comm_nccl.c; NULL in builds without NCCL:
 * comm_nonccl.c. */
const struct engine *engine_far(void);

/* The MPI job this process is a rank of: comm_mpi.c.  NULL when no launcher started the process as one, and
 * in builds without MPI: comm_nompi.c. */
struct world *world_mpi(double deadline_s);
/* How many processes a launcher says it has started as one job, and in which variable; 1 and NULL where
 * there is no launcher. */
int launched_ranks(const char **variable);

struct world {
    const struct engine *engine;
    int rank, size;
    int local, i_local; /* ranks on this machine, and which of them this is */
    int64_t groups;     /* made so far: every rank makes the same number */
    double deadline_s;
    void *state;
    const struct engine *far; /* or NULL */
    void *far_state;
};
struct comm {
    const struct engine *engine;
    struct world *world;
    char *name;
    int rank, size;
    int *ranks; /* (size) of the world */
    void *state;
    const struct engine *far;
    void *far_state;
};

/* Copies within one process: on the lane, or at once without one. */
void comm_copy(struct lane *l, void *dst, const void *src, int64_t bytes);
/* acc[i] = acc[i] op x[i], for the types that comm.h reduces. */
void comm_combine(void *acc, const void *x, int64_t n, enum dtype t, enum comm_op op);
/* A copy of n host bytes with a NUL after them; caller frees. */
char *comm_bytes(const void *p, int64_t n);

/* Messages from one rank to another within a process, first in, first out. */
struct message {
    struct message *next;
    int64_t bytes;
    char data[];
};
struct mailbox {
    struct message *first, **end;
};
void mailbox_init(struct mailbox *b);
void mailbox_put(struct mailbox *b, struct message *m);
struct message *mailbox_take(struct mailbox *b); /* NULL when there is none; caller frees */
void mailbox_release(struct mailbox *b);
struct message *message_new(struct lane *l, const void *buf, int64_t bytes);
/* Copies m to the receiver's buf and frees it; dies when the sizes differ. */
void message_deliver(struct comm *c, struct lane *l, struct message *m, void *buf, int64_t bytes,
                     int from);

#endif
