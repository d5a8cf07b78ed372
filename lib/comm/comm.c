/* comm.c -- worlds and groups, and the way from each call to the engine that carries it. */
#include "comm/engine.h"

#include <stdlib.h>

int world_rank(const struct world *w)
{
    return w->rank;
}

int world_size(const struct world *w)
{
    return w->size;
}

int world_local(const struct world *w)
{
    return w->local;
}

int launched_ranks(const char **variable)
{
    static const char *const known[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"};
    *variable = NULL;
    int ranks = 1;
    for (int64_t i = 0; i < ARRAY_LEN(known); i++) {
        const char *s = getenv(known[i]);
        if (s && atoi(s) > ranks) {
            ranks = atoi(s);
            *variable = known[i];
        }
    }
    return ranks;
}

/* Processes that each believe to be alone would all write the same output. */
struct world *world_open(double deadline_s)
{
    const char *variable;
    struct world *w = world_mpi(deadline_s);
    int launched = launched_ranks(&variable);
    if (launched > 1 && (!w || w->size == 1))
        die_misused(
            "%s is %d, but MPI has 1 rank: %s", variable, launched,
            w ? "this build's MPI and the launcher's are not the same"
              : "this build has no MPI (make MPI=1), or the launcher does not start MPI jobs "
                "(srun --mpi=pmix); unset the variable to run alone");
    if (!w)
        return world_self();
    if (w->size > 1)
        w->far = engine_far();
    dev_choose(w->i_local);
    return w;
}

void world_free(struct world *w)
{
    if (w->far)
        w->far->close(w);
    w->engine->close(w);
    free(w);
}

struct comm *comm_new(struct world *w, const char *name, const int *ranks, int n)
{
    int rank = -1;
    for (int i = 0; i < n; i++) {
        if (ranks[i] < 0 || ranks[i] >= w->size)
            die("group %s: rank %d is not in a world of %d", name, ranks[i], w->size);
        for (int j = 0; j < i; j++)
            if (ranks[j] == ranks[i])
                die("group %s: rank %d is in it twice", name, ranks[i]);
        if (ranks[i] == w->rank)
            rank = i;
    }
    if (rank < 0)
        die("group %s: rank %d makes it without being in it", name, w->rank);
    struct comm *c = xcalloc(1, sizeof *c);
    *c = (struct comm){
        .engine = n == 1 ? &engine_self : w->engine,
        .world = w,
        .name = xstrdup(name),
        .rank = rank,
        .size = n,
        .ranks = xmemdup(ranks, (size_t)n * sizeof *ranks),
        .far = n == 1 ? NULL : w->far,
    };
    c->engine->group_open(c);
    if (c->far)
        c->far->group_open(c);
    w->groups++;
    return c;
}

void comm_free(struct comm *c)
{
    if (!c)
        return;
    if (c->far)
        c->far->group_close(c);
    c->engine->group_close(c);
    free(c->ranks);
    free(c->name);
    free(c);
}

int comm_rank(const struct comm *c)
{
    return c->rank;
}

int comm_size(const struct comm *c)
{
    return c->size;
}

static int is_far(const struct comm *c, const struct lane *l)
{
    return c->far && l && !l->dev->is_host;
}

static const struct engine *engine_of(const struct comm *c, const struct lane *l)
{
    return is_far(c, l) ? c->far : c->engine;
}

static void check_type(const struct comm *c, const struct lane *l, const char *call, enum dtype t)
{
    int bf16 = t == DT_BF16 && l && !l->dev->is_host;
    /* a group of one adds nothing up */
    if (c->size > 1 && t != DT_F32 && t != DT_F64 && t != DT_I32 && t != DT_I64 && !bf16)
        die("group %s: %s of %s is not supported", c->name, call, dtype_name(t));
}

static void check_peer(const struct comm *c, const char *call, int rank)
{
    if (rank < 0 || rank >= c->size)
        die("group %s: %s: rank %d is not in a group of %d", c->name, call, rank, c->size);
}

void comm_all_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t,
                     enum comm_op op)
{
    check_type(c, l, "all_reduce", t);
    engine_of(c, l)->all_reduce(c, l, buf, n, t, op);
}

void comm_all_gather(struct comm *c, struct lane *l, void *out, const void *in, int64_t n,
                     enum dtype t)
{
    engine_of(c, l)->all_gather(c, l, out, in, n, t);
}

void comm_reduce_scatter(struct comm *c, struct lane *l, void *out, void *in, int64_t n,
                         enum dtype t)
{
    check_type(c, l, "reduce_scatter", t);
    engine_of(c, l)->reduce_scatter(c, l, out, in, n, t);
}

void comm_reduce(struct comm *c, struct lane *l, void *buf, int64_t n, enum dtype t, int root)
{
    check_type(c, l, "reduce", t);
    check_peer(c, "reduce", root);
    engine_of(c, l)->reduce(c, l, buf, n, t, root);
}

void comm_all_to_all(struct comm *c, struct lane *l, void *recv, const int64_t *recv_rows,
                     const void *send, const int64_t *send_rows, int64_t row_bytes)
{
    int64_t out = send_rows[c->rank], in = recv_rows[c->rank];
    if (out != in)
        die("group %s: rank %d sends rank %d %lld rows where it expects %lld", c->name, c->rank,
            c->rank, (long long)out, (long long)in);
    engine_of(c, l)->all_to_all(c, l, recv, recv_rows, send, send_rows, row_bytes);
}

void comm_send(struct comm *c, struct lane *l, const void *buf, int64_t bytes, int to)
{
    check_peer(c, "send", to);
    engine_of(c, l)->send(c, l, buf, bytes, to);
}

void comm_recv(struct comm *c, struct lane *l, void *buf, int64_t bytes, int from)
{
    check_peer(c, "recv", from);
    engine_of(c, l)->recv(c, l, buf, bytes, from);
}

void comm_broadcast(struct comm *c, struct lane *l, void *buf, int64_t bytes, int root)
{
    check_peer(c, "broadcast", root);
    engine_of(c, l)->broadcast(c, l, buf, bytes, root);
}

void comm_barrier(struct comm *c)
{
    c->engine->barrier(c);
}

void comm_gather_bytes(struct comm *c, const void *p, int64_t n, char **out, int64_t *len)
{
    c->engine->gather_bytes(c, p, n, out, len);
}
