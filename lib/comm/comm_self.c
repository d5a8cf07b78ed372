/* comm_self.c -- groups of one rank, in any world: a collective is at most a copy, and a message to
 * oneself waits in a mailbox. */
#include "comm/engine.h"

#include <stdlib.h>

static void self_close(struct world *w)
{
}

static void self_group_open(struct comm *c)
{
    c->state = xcalloc(1, sizeof(struct mailbox));
    mailbox_init(c->state);
}

static void self_group_close(struct comm *c)
{
    mailbox_release(c->state);
    free(c->state);
}

static void self_all_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                            enum comm_op op)
{
}

static void self_all_gather(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                            enum dtype t)
{
    comm_copy(l, out, in, n * dtype_size(t));
}

static void self_reduce_scatter(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                                enum dtype t)
{
    comm_copy(l, out, in, n * dtype_size(t));
}

static void self_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                        int root)
{
}

static void self_all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                            const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    comm_copy(l, recv, send, send_rows[0] * row_bytes);
}

static void self_send(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to)
{
    mailbox_put(c->state, message_new(l, buf, bytes));
}

static void self_recv(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from)
{
    struct message *m = mailbox_take(c->state);
    if (!m)
        die("group %s: rank 0 waits for a message that only it could send", c->name);
    message_deliver(c, l, m, buf, bytes, from);
}

static void self_broadcast(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root)
{
}

static void self_barrier(struct comm *c)
{
}

static void self_gather_bytes(struct comm *c, const void *p, int64_t n, char **out, int64_t *len)
{
    out[0] = comm_bytes(p, n);
    len[0] = n;
}

const struct engine engine_self = {
    .name = "self",
    .close = self_close,
    .group_open = self_group_open,
    .group_close = self_group_close,
    .all_reduce = self_all_reduce,
    .all_gather = self_all_gather,
    .reduce_scatter = self_reduce_scatter,
    .reduce = self_reduce,
    .all_to_all = self_all_to_all,
    .send = self_send,
    .recv = self_recv,
    .broadcast = self_broadcast,
    .barrier = self_barrier,
    .gather_bytes = self_gather_bytes,
};

struct world *world_self(void)
{
    struct world *w = xcalloc(1, sizeof *w);
    *w = (struct world){.engine = &engine_self, .size = 1, .local = 1};
    return w;
}
