/* comm_thread.c -- ranks as threads of one process: a collective is an exchange of pointers.
 *
 * Every member posts where its data are, all meet at a barrier, each does its part of the work on
 * everybody's memory, and all meet again before anyone goes on.  In a sum the elements are divided
 * among the members, and one member adds an element of all in rank order, so all get the same bits.
 * Sends copy into a mailbox for each pair of ranks and return at once. */
#include "comm/engine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct post { /* what a member says about its call; what must agree comes first */
    const char *call;
    int64_t n;  /* elements, bytes, or bytes of a row */
    int detail; /* operation or root */
    enum dtype type;
    const void *in;
    void *out;
    const int64_t *rows; /* (size) */
    int64_t bytes;
};
struct group {
    struct group *next;
    int64_t seq; /* the how-manieth group of each of its members */
    char *name;
    int n, joined, left;
    int *ranks;        /* (n) of the world */
    struct post *post; /* (n) */
    pthread_barrier_t barrier;
    pthread_mutex_t lock; /* of the mailboxes */
    pthread_cond_t arrived;
    struct mailbox *box; /* (n, n) from, to */
};
struct team { /* what the worlds of one process share */
    pthread_mutex_t lock;
    struct group *groups;
};

/* Several ranks may find the same fault; the first to take the lock words it and never lets go. */
#define TEAM_DIE(team, ...) (pthread_mutex_lock(&(team)->lock), die(__VA_ARGS__))

static struct group *group_new(int64_t seq, const char *name, const int *ranks, int n)
{
    struct group *g = xcalloc(1, sizeof *g);
    *g = (struct group){
        .seq = seq,
        .name = xstrdup(name),
        .n = n,
        .ranks = xmemdup(ranks, (size_t)n * sizeof *ranks),
        .post = xcalloc((size_t)n, sizeof *g->post),
        .box = xcalloc((size_t)n * (size_t)n, sizeof *g->box),
    };
    for (int i = 0; i < n * n; i++)
        mailbox_init(&g->box[i]);
    pthread_barrier_init(&g->barrier, NULL, (unsigned)n);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->arrived, NULL);
    return g;
}

static void group_free(struct group *g)
{
    for (int i = 0; i < g->n * g->n; i++)
        mailbox_release(&g->box[i]);
    pthread_barrier_destroy(&g->barrier);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->arrived);
    free(g->box);
    free(g->post);
    free(g->ranks);
    free(g->name);
    free(g);
}

static int same_members(const struct group *g, const struct comm *c)
{
    return g->n == c->size && !memcmp(g->ranks, c->ranks, (size_t)g->n * sizeof *g->ranks);
}

/* Whether g, made at the same point of the order of calls, cannot stand beside c's group. */
static int conflicts(const struct group *g, const struct comm *c)
{
    if (same_members(g, c))
        return strcmp(g->name, c->name) != 0;
    for (int i = 0; i < g->n; i++)
        for (int j = 0; j < c->size; j++)
            if (g->ranks[i] == c->ranks[j])
                return 1;
    return 0;
}

/* The first member to come makes the group; it is kept until each has come and gone. */
static void thread_group_open(struct comm *c)
{
    struct team *team = c->world->state;
    pthread_mutex_lock(&team->lock);
    struct group *found = NULL;
    for (struct group *g = team->groups; g; g = g->next) {
        if (g->seq != c->world->groups)
            continue;
        if (conflicts(g, c))
            die("rank %d makes group %s of %d where group %s of %d is made by others: groups are made "
                "in one order",
                c->world->rank, c->name, c->size, g->name, g->n);
        if (same_members(g, c))
            found = g;
    }
    if (!found) {
        found = group_new(c->world->groups, c->name, c->ranks, c->size);
        found->next = team->groups;
        team->groups = found;
    }
    found->joined++;
    c->state = found;
    pthread_mutex_unlock(&team->lock);
}

static void thread_group_close(struct comm *c)
{
    struct team *team = c->world->state;
    struct group *g = c->state;
    pthread_mutex_lock(&team->lock);
    if (++g->left == g->n) {
        struct group **at = &team->groups;
        while (*at != g)
            at = &(*at)->next;
        *at = g->next;
        group_free(g);
    }
    pthread_mutex_unlock(&team->lock);
}

/* Posts a call and returns when every member has posted the same one. */
static struct group *meet(struct comm *c, struct lane *l, struct post p)
{
    struct team *team = c->world->state;
    struct group *g = c->state;
    if (l && strcmp(l->dev->name, "cpu"))
        TEAM_DIE(team, "group %s: ranks as threads need host memory, not %s", c->name, l->dev->name);
    g->post[c->rank] = p;
    pthread_barrier_wait(&g->barrier);
    const struct post *a = &g->post[0];
    for (int i = 1; i < g->n; i++) {
        const struct post *b = &g->post[i];
        if (strcmp(a->call, b->call) || a->n != b->n || a->type != b->type || a->detail != b->detail)
            TEAM_DIE(team, "group %s: rank %d calls %s (%lld %s) where rank 0 calls %s (%lld %s)", c->name,
                     i, b->call, (long long)b->n, dtype_name(b->type), a->call, (long long)a->n,
                     dtype_name(a->type));
    }
    return g;
}

/* Nobody's memory is touched by another after this. */
static void part(struct group *g)
{
    pthread_barrier_wait(&g->barrier);
}

/* acc[i] = acc[i] op x[i].  A maximum keeps NaN, so that it does not depend on the order. */
#define COMBINERS(suffix, type)                                                                     \
    static void sum_##suffix(void *acc, const void *x, int64_t n)                                   \
    {                                                                                               \
        type *a = acc;                                                                              \
        const type *b = x;                                                                          \
        for (int64_t i = 0; i < n; i++)                                                             \
            a[i] += b[i];                                                                           \
    }                                                                                               \
    static void max_##suffix(void *acc, const void *x, int64_t n)                                   \
    {                                                                                               \
        type *a = acc;                                                                              \
        const type *b = x;                                                                          \
        for (int64_t i = 0; i < n; i++)                                                             \
            if (b[i] > a[i] || b[i] != b[i])                                                        \
                a[i] = b[i];                                                                        \
    }
COMBINERS(f32, float)
COMBINERS(f64, double)
COMBINERS(i32, int32_t)
COMBINERS(i64, int64_t)

typedef void combine_fn(void *acc, const void *x, int64_t n);
static combine_fn *const combiners[DT_COUNT][2] = {
    [DT_F32] = {[COMM_SUM] = sum_f32, [COMM_MAX] = max_f32},
    [DT_F64] = {[COMM_SUM] = sum_f64, [COMM_MAX] = max_f64},
    [DT_I32] = {[COMM_SUM] = sum_i32, [COMM_MAX] = max_i32},
    [DT_I64] = {[COMM_SUM] = sum_i64, [COMM_MAX] = max_i64},
};

/* Combines the members' elements [lo, hi) block by block in rank order, and hands each block to put. */
static void combine(struct group *g, int64_t lo, int64_t hi, enum dtype t, enum comm_op op,
                    void (*put)(struct group *g, void *arg, int64_t at, const void *p, int64_t bytes),
                    void *arg)
{
    enum { BLOCK = 4096 }; /* bytes: stays in the first cache */
    _Alignas(64) char acc[BLOCK];
    int64_t size = dtype_size(t), step = BLOCK / size;
    for (int64_t i = lo; i < hi; i += step) {
        int64_t n = MIN(step, hi - i);
        memcpy(acc, (const char *)g->post[0].in + i * size, (size_t)(n * size));
        for (int r = 1; r < g->n; r++)
            combiners[t][op](acc, (const char *)g->post[r].in + i * size, n);
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
    struct group *g = meet(c, l, (struct post){.call = "all_reduce", .n = n, .type = t, .detail = (int)op,
                                               .in = buf, .out = buf});
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
    struct group *g = meet(c, l, (struct post){.call = "reduce_scatter", .n = n, .type = t, .in = in});
    combine(g, n * c->rank, n * (c->rank + 1), t, COMM_SUM, put_to_one, out);
    part(g);
}

static void thread_all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                              const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    struct group *g = meet(c, l, (struct post){.call = "all_to_all", .n = row_bytes, .type = DT_U8,
                                               .in = send, .rows = send_rows});
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
    struct group *g = meet(c, l, (struct post){.call = "broadcast", .n = bytes, .type = DT_U8,
                                               .detail = root, .in = buf});
    comm_copy(NULL, buf, g->post[root].in, bytes);
    part(g);
}

static void thread_barrier(struct comm *c)
{
    part(meet(c, NULL, (struct post){.call = "barrier", .type = DT_U8}));
}

static void thread_gather_bytes(struct comm *c, const void *p, int64_t n, char **out, int64_t *len)
{
    struct group *g = meet(c, NULL, (struct post){.call = "gather_bytes", .type = DT_U8, .in = p,
                                                  .bytes = n});
    for (int r = 0; r < g->n; r++) {
        out[r] = comm_bytes(g->post[r].in, g->post[r].bytes);
        len[r] = g->post[r].bytes;
    }
    part(g);
}

static void thread_close(struct world *w)
{
}

const struct engine engine_thread = {
    .name = "thread",
    .close = thread_close,
    .group_open = thread_group_open,
    .group_close = thread_group_close,
    .all_reduce = thread_all_reduce,
    .all_gather = thread_all_gather,
    .reduce_scatter = thread_reduce_scatter,
    .all_to_all = thread_all_to_all,
    .send = thread_send,
    .recv = thread_recv,
    .broadcast = thread_broadcast,
    .barrier = thread_barrier,
    .gather_bytes = thread_gather_bytes,
};

struct start {
    void (*fn)(struct world *w, void *arg);
    void *arg;
    struct world *world;
    pthread_t thread;
};

static void *thread_main(void *p)
{
    struct start *s = p;
    s->fn(s->world, s->arg);
    return NULL;
}

void world_threads(int n, void (*fn)(struct world *w, void *arg), void *arg)
{
    struct team team = {.groups = NULL};
    pthread_mutex_init(&team.lock, NULL);
    struct start *start = xcalloc((size_t)n, sizeof *start);
    for (int i = 0; i < n; i++) {
        struct world *w = xcalloc(1, sizeof *w);
        *w = (struct world){.engine = &engine_thread, .rank = i, .size = n, .state = &team};
        start[i] = (struct start){.fn = fn, .arg = arg, .world = w};
    }
    for (int i = 1; i < n; i++) {
        int error = pthread_create(&start[i].thread, NULL, thread_main, &start[i]);
        if (error)
            die("rank %d of %d: no thread: %s", i, n, strerror(error));
    }
    thread_main(&start[0]);
    for (int i = 1; i < n; i++)
        pthread_join(start[i].thread, NULL);
    for (int i = 0; i < n; i++)
        world_free(start[i].world);
    for (struct group *g; (g = team.groups);) { /* of comms that nobody freed */
        team.groups = g->next;
        group_free(g);
    }
    pthread_mutex_destroy(&team.lock);
    free(start);
}
