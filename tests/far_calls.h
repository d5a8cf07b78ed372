/* far_calls.h -- the collectives of comm.h on host memory, or on copies of it in a GPU's: what goes in
 * and comes out is the host's either way. */
#ifndef FAR_CALLS_H
#define FAR_CALLS_H

#include "comm/comm.h"

enum { FAR_BYTES = 32 << 20 };
static struct lane *far; /* NULL: host memory */
static char *far_in, *far_out;

static void *away(char *there, const void *p, int64_t bytes)
{
    far->dev->put(far, there, p, bytes);
    return there;
}

static void home(void *p, const void *there, int64_t bytes)
{
    far->dev->get(far, p, there, bytes);
    far->dev->wait(far);
}

static void all_reduce(struct comm *c, void *buf, int64_t n, enum dtype t, enum comm_op op)
{
    int64_t bytes = n * dtype_size(t);
    comm_all_reduce(c, far, far ? away(far_in, buf, bytes) : buf, n, t, op);
    if (far)
        home(buf, far_in, bytes);
}

static void reduce(struct comm *c, void *buf, int64_t n, enum dtype t, int root)
{
    int64_t bytes = n * dtype_size(t);
    comm_reduce(c, far, far ? away(far_in, buf, bytes) : buf, n, t, root);
    if (far)
        home(buf, far_in, bytes);
}

static void all_gather(struct comm *c, void *out, const void *in, int64_t n, enum dtype t)
{
    int64_t each = n * dtype_size(t), at = comm_rank(c) * each;
    if (!far) {
        comm_all_gather(c, NULL, out, in, n, t);
        return;
    }
    int in_place = in == (char *)out + at;
    comm_all_gather(c, far, far_out, away(in_place ? far_out + at : far_in, in, each), n, t);
    home(out, far_out, each * comm_size(c));
}

static void reduce_scatter(struct comm *c, void *out, void *in, int64_t n, enum dtype t)
{
    int64_t each = n * dtype_size(t), at = comm_rank(c) * each;
    if (!far) {
        comm_reduce_scatter(c, NULL, out, in, n, t);
        return;
    }
    char *to = out == (char *)in + at ? far_in + at : far_out;
    comm_reduce_scatter(c, far, to, away(far_in, in, each * comm_size(c)), n, t);
    home(out, to, each);
}

static void all_to_all(struct comm *c, void *recv, const int64_t *in, const void *send,
                       const int64_t *out, int64_t row_bytes)
{
    int64_t rows[2] = {0, 0};
    for (int i = 0; i < comm_size(c); i++)
        rows[0] += out[i], rows[1] += in[i];
    if (far)
        send = away(far_in, send, rows[0] * row_bytes);
    comm_all_to_all(c, far, far ? far_out : recv, in, send, out, row_bytes);
    if (far)
        home(recv, far_out, rows[1] * row_bytes);
}

static void send_to(struct comm *c, const void *buf, int64_t bytes, int to)
{
    comm_send(c, far, far ? away(far_in, buf, bytes) : buf, bytes, to);
}

static void recv_from(struct comm *c, void *buf, int64_t bytes, int from)
{
    comm_recv(c, far, far ? far_out : buf, bytes, from);
    if (far)
        home(buf, far_out, bytes);
}

static void broadcast(struct comm *c, void *buf, int64_t bytes, int root)
{
    comm_broadcast(c, far, far ? away(far_in, buf, bytes) : buf, bytes, root);
    if (far)
        home(buf, far_in, bytes);
}

#endif
