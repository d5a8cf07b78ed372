/* comm_thread.c -- ranks as threads of one process: a collective is an exchange of pointers.
 *
 * Every member posts where its data are, all meet at a barrier, each does its part of the work on
 * everybody's memory, and all meet again before anyone goes on.  In a sum the elements are divided
 * among the members, and one member adds an element of all in rank order, so all get the same bits.
 * Sends copy into a mailbox for each pair of ranks and return at once. */
#include "comm/team.h"

#include <string.h>

/* Posts a call and returns when every member has posted the same one. */
static struct group *meet(struct comm *c, struct lane *l, struct post p)
{
    struct team *team = c->world->state;
    struct group *g = c->state;
    if (l && strcmp(l->dev->name, "cpu"))
        TEAM_DIE(team, "group %s: ranks as threads need host memory, not %s", c->name,
                 l->dev->name);
    g->post[c->rank] = p;
    pthread_barrier_wait(&g->barrier);
    const struct post *a = &g->post[0];
    for (int i = 1; i < g->n; i++) {
        const struct post *b = &g->post[i];
        if (strcmp(a->call, b->call) || a->n != b->n || a->type != b->type ||
            a->detail != b->detail)
            TEAM_DIE(team, "group %s: rank %d calls %s (%lld %s) where rank 0 calls %s (%lld %s)",
                     c->name, i, b->call, (long long)b->n, dtype_name(b->type), a->call,
                     (long long)a->n, dtype_name(a->type));
    }
    return g;
}

/* Nobody's memory is touched by another after this. */
static void part(struct group *g)
{
    pthread_barrier_wait(&g->barrier);
}

/* Combines the members' elements [lo, hi) block by block in rank order, and hands each block to
 * put. */
static void combine(struct group *g, int64_t lo, int64_t hi, enum dtype t, enum comm_op op,
                    void (*put)(struct group *g, void *arg, int64_t at, const void *p,
                                int64_t bytes),
                    void *arg)
{
    enum { BLOCK = 4096 }; /* bytes: stays in the first cache */
    _Alignas(64) char acc[BLOCK];
    int64_t size = dtype_size(t), step = BLOCK / size;
    for (int64_t i = lo; i < hi; i += step) {
        int64_t n = MIN(step, hi - i);
        memcpy(acc, (const char *)g->post[0].in + i * size, (size_t)(n * size));
        for (int r = 1; r < g->n; r++)
            comm_combine(acc, (const char *)g->post[r].in + i * size, n, t, op);
        put(g, arg, (i - lo) * size, acc, n * size);
    }
}

static void put_to_all(struct group *g, void *arg, int64_t at, const void *p, int64_t bytes)
{
    const int64_t *lo_bytes = arg;
    for (int r = 0; r < g->n; r++)
        memcpy((char *)g->post[r].out + *lo_bytes + at, p, (size_t)bytes);
}

static void put_to_one(struct group *g, void *out, int64_t at, const void *p, int64_t bytes)
{
    memcpy((char *)out + at, p, (size_t)bytes);
}

static void thread_all_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                              enum comm_op op)
{
    struct group *g = meet(
        c, l,
        (struct post){
            .call = "all_reduce", .n = n, .type = t, .detail = (int)op, .in = buf, .out = buf});
    int64_t lo = n * c->rank / c->size, hi = n * (c->rank + 1) / c->size;
    combine(g, lo, hi, t, op, put_to_all, &(int64_t){lo * dtype_size(t)});
    part(g);
}

static void thread_all_gather(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                              enum dtype t)
{
    struct group *g = meet(c, l, (struct post){.call = "all_gather", .n = n, .type = t, .in = in});
    int64_t bytes = n * dtype_size(t);
    for (int r = 0; r < g->n; r++)
        comm_copy(NULL, (char *)out + r * bytes, g->post[r].in, bytes);
    part(g);
}

static void thread_reduce_scatter(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                                  enum dtype t)
{
    struct group *g =
        meet(c, l, (struct post){.call = "reduce_scatter", .n = n, .type = t, .in = in});
    combine(g, n * c->rank, n * (c->rank + 1), t, COMM_SUM, put_to_one, out);
    part(g);
}

static void thread_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                          int root)
{
    struct group *g =
        meet(c, l, (struct post){.call = "reduce", .n = n, .type = t, .detail = root, .in = buf});
    if (c->rank == root)
        combine(g, 0, n, t, COMM_SUM, put_to_one, buf);
    part(g);
}

static void thread_all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                              const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    struct group *g = meet(
        c, l,
        (struct post){
            .call = "all_to_all", .n = row_bytes, .type = DT_U8, .in = send, .rows = send_rows});
    char *to = recv;
    for (int r = 0; r < g->n; r++) {
        const struct post *p = &g->post[r];
        if (p->rows[c->rank] != recv_rows[r])
            TEAM_DIE((struct team *)c->world->state,
                     "group %s: rank %d sends rank %d %lld rows where it expects %lld", c->name, r,
                     c->rank, (long long)p->rows[c->rank], (long long)recv_rows[r]);
        int64_t before = 0;
        for (int i = 0; i < c->rank; i++)
            before += p->rows[i];
        comm_copy(NULL, to, (const char *)p->in + before * row_bytes, recv_rows[r] * row_bytes);
        to += recv_rows[r] * row_bytes;
    }
    part(g);
}

static void thread_send(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to)
{
    struct group *g = c->state;
    struct message *m = message_new(l, buf, bytes);
    pthread_mutex_lock(&g->lock);
    mailbox_put(&g->box[c->rank * c->size + to], m);
    pthread_cond_broadcast(&g->arrived);
    pthread_mutex_unlock(&g->lock);
}

static void thread_recv(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from)
{
    struct group *g = c->state;
    struct message *m;
    pthread_mutex_lock(&g->lock);
    while (!(m = mailbox_take(&g->box[from * c->size + c->rank])))
        pthread_cond_wait(&g->arrived, &g->lock);
    pthread_mutex_unlock(&g->lock);
    message_deliver(c, l, m, buf, bytes, from);
}

static void thread_broadcast(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root)
{
    struct group *g = meet(
        c, l,
        (struct post){.call = "broadcast", .n = bytes, .type = DT_U8, .detail = root, .in = buf});
    comm_copy(NULL, buf, g->post[root].in, bytes);
    part(g);
}

static void thread_barrier(struct comm *c)
{
    part(meet(c, NULL, (struct post){.call = "barrier", .type = DT_U8}));
}

static void thread_gather_bytes(struct comm *c, const void *p, int64_t n, char **out, int64_t *len)
{
    struct group *g =
        meet(c, NULL, (struct post){.call = "gather_bytes", .type = DT_U8, .in = p, .bytes = n});
    for (int r = 0; r < g->n; r++) {
        out[r] = comm_bytes(g->post[r].in, g->post[r].bytes);
        len[r] = g->post[r].bytes;
    }
    part(g);
}

const struct engine engine_thread = {
    .name = "thread",
    .close = team_close,
    .group_open = team_group_open,
    .group_close = team_group_close,
    .all_reduce = thread_all_reduce,
    .all_gather = thread_all_gather,
    .reduce_scatter = thread_reduce_scatter,
    .reduce = thread_reduce,
    .all_to_all = thread_all_to_all,
    .send = thread_send,
    .recv = thread_recv,
    .broadcast = thread_broadcast,
    .barrier = thread_barrier,
    .gather_bytes = thread_gather_bytes,
};
