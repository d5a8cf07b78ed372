/* comm_self.c -- groups of one rank, in any world, and what is done inside one process: a collective
 * is at most a copy, and a message to oneself waits in a mailbox. */
#include "comm/engine.h"

#include <stdlib.h>
#include <string.h>

void comm_copy(struct lane *l, void *dst, const void *src, int64_t bytes)
{
    if (dst == src || bytes == 0)
        return;
    if (l)
        l->dev->copy(l, dst, src, bytes);
    else
        memcpy(dst, src, (size_t)bytes);
}

char *comm_bytes(const void *p, int64_t n)
{
    char *s = xmalloc((size_t)n + 1);
    comm_copy(NULL, s, p, n);
    s[n] = '\0';
    return s;
}

void mailbox_init(struct mailbox *b)
{
    *b = (struct mailbox){NULL, &b->first};
}

void mailbox_put(struct mailbox *b, struct message *m)
{
    *b->end = m;
    b->end = &m->next;
}

struct message *mailbox_take(struct mailbox *b)
{
    struct message *m = b->first;
    if (!m)
        return NULL;
    b->first = m->next;
    if (!b->first)
        b->end = &b->first;
    return m;
}

void mailbox_release(struct mailbox *b)
{
    for (struct message *m; (m = mailbox_take(b));)
        free(m);
}

struct message *message_new(struct lane *l, const void *buf, int64_t bytes)
{
    struct message *m = xmalloc(sizeof *m + (size_t)bytes);
    *m = (struct message){NULL, bytes};
    if (l) {
        l->dev->get(l, m->data, buf, bytes);
        l->dev->wait(l);
    } else {
        comm_copy(NULL, m->data, buf, bytes);
    }
    return m;
}

void message_deliver(struct comm *c, struct lane *l, struct message *m, void *buf, int64_t bytes,
                     int from)
{
    if (m->bytes != bytes)
        die("group %s: rank %d sent %lld bytes and rank %d expects %lld", c->name, from,
            (long long)m->bytes, c->rank, (long long)bytes);
    if (l) {
        l->dev->put(l, buf, m->data, bytes);
        l->dev->wait(l);
    } else {
        comm_copy(NULL, buf, m->data, bytes);
    }
    free(m);
}

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

static void self_all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                            const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    if (recv_rows[0] != send_rows[0])
        die("group %s: rank 0 sends itself %lld rows and expects %lld", c->name,
            (long long)send_rows[0], (long long)recv_rows[0]);
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
    *w = (struct world){.engine = &engine_self, .size = 1};
    return w;
}
