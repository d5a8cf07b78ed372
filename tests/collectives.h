/* collectives.h -- every collective against what the members' inputs must give, and the conventions
 * of comm.h about places in memory; faults are counted by claim, by all ranks. */
#ifndef COLLECTIVES_H
#define COLLECTIVES_H

#include "far_calls.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum claim { REDUCE, GATHER, SCATTER, ALL_TO_ALL, MESSAGES, BROADCAST, BYTES, ORDER, MANY, CLAIMS };
static const char *const claims[CLAIMS] = {
    [REDUCE] = "all_reduce and reduce have the bits of a sum in rank order, in every type",
    [GATHER] = "all_gather, apart and in place",
    [SCATTER] = "reduce_scatter, apart and in place",
    [ALL_TO_ALL] = "all_to_all with uneven and empty rows",
    [MESSAGES] = "messages arrive whole, in order, also from oneself",
    [BROADCAST] = "broadcast from every root",
    [BYTES] = "gather_bytes of any length",
    [ORDER] = "a group keeps the order that its ranks were given in",
    [MANY] = "thousands of calls and groups that come and go",
};
static int64_t faults[CLAIMS];
static void fault(enum claim claim, int64_t n)
{
    if (n)
        __atomic_add_fetch(&faults[claim], n, __ATOMIC_RELAXED);
}

static const enum dtype types[] = {DT_F32, DT_F64, DT_I32, DT_I64};

/* ---- what goes in and must come out ---- */

/* Element i of what a rank brings, stored as t. */
static void put(void *p, int64_t at, enum dtype t, int rank, int64_t i)
{
    double x = rng_normal(7, (uint64_t)rank, (uint64_t)i);
    if (t == DT_F32)
        ((float *)p)[at] = (float)x;
    else if (t == DT_F64)
        ((double *)p)[at] = x;
    else if (t == DT_I32)
        ((int32_t *)p)[at] = (int32_t)(x * 1e6);
    else
        ((int64_t *)p)[at] = (int64_t)(x * 1e15);
}

static void *input(enum dtype t, int rank, int64_t n)
{
    void *p = xmalloc((size_t)(n * dtype_size(t) + 1));
    for (int64_t i = 0; i < n; i++)
        put(p, i, t, rank, i);
    return p;
}

/* What a reduction of [lo, hi) of n ranks' inputs gives, rank by rank. */
#define REDUCE_AS(type)                                                                            \
    for (int64_t i = lo; i < hi; i++) {                                                            \
        type a = ((type *)in[0])[i];                                                               \
        for (int r = 1; r < ranks; r++) {                                                          \
            type b = ((type *)in[r])[i];                                                           \
            a = op == COMM_MAX ? (b > a ? b : a) : a + b;                                          \
        }                                                                                          \
        ((type *)out)[i - lo] = a;                                                                 \
    }
static void *expected(enum dtype t, int ranks, int64_t n, int64_t lo, int64_t hi, enum comm_op op)
{
    void **in = xcalloc((size_t)ranks, sizeof *in), *out = xmalloc((size_t)((hi - lo) * 8 + 1));
    for (int r = 0; r < ranks; r++)
        in[r] = input(t, r, n);
    if (t == DT_F32) {
        REDUCE_AS(float)
    } else if (t == DT_F64) {
        REDUCE_AS(double)
    } else if (t == DT_I32) {
        REDUCE_AS(int32_t)
    } else {
        REDUCE_AS(int64_t)
    }
    for (int r = 0; r < ranks; r++)
        free(in[r]);
    free(in);
    return out;
}

static const int64_t sizes[] = {0, 1, 5, 1023, 2500};

static void test_reduce(struct comm *c)
{
    for (int64_t k = 0; k < ARRAY_LEN(sizes); k++)
        for (int64_t i = 0; i < ARRAY_LEN(types); i++)
            for (int op = COMM_SUM; op <= COMM_MAX; op++) {
                int64_t n = sizes[k];
                void *x = input(types[i], comm_rank(c), n);
                void *y = expected(types[i], comm_size(c), n, 0, n, (enum comm_op)op);
                all_reduce(c, x, n, types[i], (enum comm_op)op);
                fault(REDUCE, memcmp(x, y, (size_t)(n * dtype_size(types[i]))) != 0);
                free(x);
                int root = (int)(k % comm_size(c));
                x = input(types[i], comm_rank(c), n);
                reduce(c, x, n, types[i], root);
                fault(REDUCE, op == COMM_SUM && comm_rank(c) == root &&
                                  memcmp(x, y, (size_t)(n * dtype_size(types[i]))) != 0);
                free(x);
                free(y);
            }
    /* One NaN makes the maximum NaN, whoever brings it; NCCL promises no such thing. */
    for (int r = 0; !far && r < comm_size(c); r++) {
        double x = comm_rank(c) == r ? strtod("nan", NULL) : comm_rank(c);
        all_reduce(c, &x, 1, DT_F64, COMM_MAX);
        fault(REDUCE, x == x);
    }
}

static void test_gather(struct comm *c)
{
    int size = comm_size(c), rank = comm_rank(c);
    for (int64_t k = 0; k < ARRAY_LEN(sizes); k++)
        for (int64_t i = 0; i < ARRAY_LEN(types); i++) {
            int64_t n = sizes[k], bytes = n * dtype_size(types[i]);
            char *in = input(types[i], rank, n), *out = xcalloc(1, (size_t)(bytes * size + 1));
            char *same = xcalloc(1, (size_t)(bytes * size + 1));
            memcpy(same + rank * bytes, in, (size_t)bytes);
            all_gather(c, out, in, n, types[i]);
            all_gather(c, same, same + rank * bytes, n, types[i]);
            for (int r = 0; r < size; r++) {
                char *want = input(types[i], r, n);
                fault(GATHER, memcmp(out + r * bytes, want, (size_t)bytes) != 0);
                fault(GATHER, memcmp(same + r * bytes, want, (size_t)bytes) != 0);
                free(want);
            }
            free(in);
            free(out);
            free(same);
        }
}

static void test_scatter(struct comm *c)
{
    int size = comm_size(c), rank = comm_rank(c);
    for (int64_t k = 0; k < ARRAY_LEN(sizes); k++)
        for (int64_t i = 0; i < ARRAY_LEN(types); i++) {
            int64_t n = sizes[k], bytes = n * dtype_size(types[i]);
            char *in = input(types[i], rank, n * size),
                 *same = xmemdup(in, (size_t)(bytes * size + 1));
            char *out = xmalloc((size_t)bytes + 1);
            char *want = expected(types[i], size, n * size, n * rank, n * (rank + 1), COMM_SUM);
            reduce_scatter(c, out, in, n, types[i]);
            reduce_scatter(c, same + rank * bytes, same, n, types[i]);
            fault(SCATTER, memcmp(out, want, (size_t)bytes) != 0);
            fault(SCATTER, memcmp(same + rank * bytes, want, (size_t)bytes) != 0);
            free(in);
            free(same);
            free(out);
            free(want);
        }
}

/* How many rows `from` sends to `to` in a round: rank 1 sends nothing in round 1, rank 0 gets
 * nothing in round 2, and round 3 is empty. */
static int64_t rows_between(int from, int to, int round)
{
    if (round == 3 || (round == 1 && from == 1) || (round == 2 && to == 0))
        return 0;
    return (from * 5 + to * 3 + round) % 7;
}

static void test_all_to_all(struct comm *c)
{
    int size = comm_size(c), rank = comm_rank(c);
    for (int round = 0; round < 6; round++) {
        int64_t width = (int64_t[]){1, 8, 24}[round % 3]; /* bytes of a row */
        int64_t *out = xcalloc((size_t)size, sizeof *out), *in = xcalloc((size_t)size, sizeof *in);
        int64_t out_rows = 0, in_rows = 0;
        for (int r = 0; r < size; r++) {
            out_rows += out[r] = rows_between(rank, r, round);
            in_rows += in[r] = rows_between(r, rank, round);
        }
        unsigned char *send = xmalloc((size_t)(out_rows * width + 1)), *s = send;
        unsigned char *recv = xcalloc(1, (size_t)(in_rows * width + 1)), *p = recv;
        recv[in_rows * width] = 0xAA; /* must stay */
        for (int r = 0; r < size; r++)
            for (int64_t i = 0; i < out[r] * width; i++)
                *s++ = (unsigned char)(rank * 31 + r * 7 + i);
        all_to_all(c, recv, in, send, out, width);
        for (int r = 0; r < size; r++)
            for (int64_t i = 0; i < in[r] * width; i++)
                fault(ALL_TO_ALL, *p++ != (unsigned char)(r * 31 + rank * 7 + i));
        fault(ALL_TO_ALL, *p != 0xAA);
        free(out);
        free(in);
        free(send);
        free(recv);
    }
}

static void test_messages(struct comm *c)
{
    enum { ROUNDS = 50 };
    int size = comm_size(c), rank = comm_rank(c);
    /* All sends come first, and are taken from the last rank back: pairs do not wait for one
     * another. */
    for (int i = 0; i < ROUNDS; i++)
        for (int r = 0; r < size; r++) {
            int64_t n = i % 4;
            int32_t m[3] = {rank, r, i};
            if (far && r == rank) /* GPUs send nothing to themselves */
                continue;
            send_to(c, m, n * 4, r);
            m[0] = m[1] = m[2] = -1; /* the message was copied */
        }
    for (int r = size - 1; r >= 0; r--)
        for (int i = 0; i < ROUNDS; i++) {
            int64_t n = i % 4;
            int32_t m[3] = {-1, -1, -1}, want[3] = {r, rank, i};
            if (far && r == rank)
                continue;
            recv_from(c, m, n * 4, r);
            fault(MESSAGES, memcmp(m, want, (size_t)n * 4) != 0);
        }
}

static void test_broadcast(struct comm *c)
{
    for (int root = 0; root < comm_size(c); root++)
        for (int64_t n = 0; n < 4; n++) {
            int64_t x[3] = {comm_rank(c), 2 * comm_rank(c), -7};
            const int64_t want[3] = {root, 2 * root, -7};
            broadcast(c, x, n * 8, root);
            fault(BROADCAST, memcmp(x, want, (size_t)n * 8) != 0);
        }
    comm_barrier(c);
}

static void test_bytes(struct comm *c)
{
    int size = comm_size(c), rank = comm_rank(c);
    char **out = xcalloc((size_t)size, sizeof *out), text[64];
    int64_t *len = xcalloc((size_t)size, sizeof *len);
    memset(text, 'a' + rank, sizeof text);
    comm_gather_bytes(c, rank ? text : NULL, rank * 3, out, len);
    for (int r = 0; r < size; r++) {
        fault(BYTES, len[r] != r * 3 || (int64_t)strlen(out[r]) != len[r]);
        for (int64_t i = 0; i < len[r]; i++)
            fault(BYTES, out[r][i] != 'a' + r);
        free(out[r]);
    }
    free(out);
    free(len);
}

static void test_order(struct world *w)
{
    int n = world_size(w), ranks[64];
    for (int i = 0; i < n; i++)
        ranks[i] = n - 1 - i;
    struct comm *c = comm_new(w, "reversed", ranks, n);
    int64_t at[64], mine = world_rank(w);
    all_gather(c, at, &mine, 1, DT_I64);
    fault(ORDER, comm_rank(c) != n - 1 - world_rank(w) || comm_size(c) != n);
    for (int i = 0; i < n; i++)
        fault(ORDER, at[i] != n - 1 - i);
    comm_free(c);
}

/* Groups of one rank, of some and of all, used in turn; some are freed without having been used,
 * and a message may outlive its sender's handle. */
static void test_many(struct world *w)
{
    int n = world_size(w), me = world_rank(w), all[64], half[64], halves = 0;
    for (int i = 0; i < n; i++) {
        all[i] = i;
        if (i % 2 == me % 2)
            half[halves++] = i;
    }
    struct comm *one = comm_new(w, "one", &me, 1), *every = comm_new(w, "all", all, n);
    for (int i = 0; i < 2000; i++) {
        int64_t x = me + i, y = x;
        all_reduce(every, &x, 1, DT_I64, COMM_SUM);
        all_reduce(one, &y, 1, DT_I64, COMM_SUM);
        fault(MANY, x != (int64_t)n * i + n * (n - 1) / 2 || y != me + i);
        int got = -1;
        if (me % 2 == 0) /* not all at once, for the sake of first messages */
            send_to(every, &i, sizeof i, (me + 1) % n);
        recv_from(every, &got, sizeof got, (me + n - 1) % n);
        if (me % 2)
            send_to(every, &i, sizeof i, (me + 1) % n);
        fault(MANY, got != i);
    }
    for (int i = 0; i < 200; i++) {
        struct comm *unused = comm_new(w, "unused", all, n), *c = comm_new(w, "half", half, halves);
        comm_free(unused);
        if (comm_rank(c) == 0)
            send_to(c, &i, sizeof i, comm_size(c) - 1);
        int got = -1;
        if (comm_rank(c) == comm_size(c) - 1)
            recv_from(c, &got, sizeof got, 0);
        fault(MANY, comm_rank(c) == comm_size(c) - 1 && got != i);
        comm_free(c);
    }
    comm_free(every);
    comm_free(one);
}

/* All of them, by every rank of a world. */
static void in_world(struct world *w, void *arg)
{
    int all[64];
    for (int i = 0; i < world_size(w); i++)
        all[i] = i;
    struct comm *c = comm_new(w, "all", all, world_size(w));
    test_reduce(c);
    test_gather(c);
    test_scatter(c);
    test_all_to_all(c);
    test_messages(c);
    test_broadcast(c);
    test_bytes(c);
    comm_free(c);
    test_order(w);
    test_many(w);
}

/* Larger than what one exchange carries, in the two calls that work piece by piece. */
static void test_large(struct comm *c)
{
    int64_t n = 1200000, p = comm_size(c), me = comm_rank(c), sum = p * (p + 1) / 2, wrong = 0;
    int64_t *x = xmalloc((size_t)(n * p) * sizeof *x), *y = xmalloc((size_t)n * sizeof *y);
    for (int64_t i = 0; i < n * p; i++)
        x[i] = i * (me + 1);
    reduce_scatter(c, y, x, n, DT_I64);
    for (int64_t i = 0; i < n; i++)
        wrong += y[i] != (me * n + i) * sum;
    fault(SCATTER, wrong);
    for (int64_t i = 0; i < n * p; i++)
        x[i] = i * (me + 1);
    all_reduce(c, x, n * p, DT_I64, COMM_SUM);
    wrong = 0;
    for (int64_t i = 0; i < n * p; i++)
        wrong += x[i] != i * sum;
    fault(REDUCE, wrong);
    free(x), free(y);
}

/* Weights and their gradients; whole numbers to 256 are themselves in bf16. */
static void test_bf16(struct comm *c)
{
    int64_t n = 1000, p = comm_size(c), me = comm_rank(c);
    float *x = xmalloc((size_t)(n * p) * sizeof *x);
    uint16_t *half = xmalloc((size_t)(n * p) * sizeof *half),
             *sum = xmalloc((size_t)n * sizeof *sum);
    for (int64_t i = 0; i < n * p; i++)
        x[i] = (float)(i % (100 / p) * (me + 1));
    dtype_convert(half, DT_BF16, x, DT_F32, n * p);
    reduce_scatter(c, sum, half, n, DT_BF16);
    dtype_convert(x, DT_F32, sum, DT_BF16, n);
    for (int64_t i = 0; i < n; i++)
        fault(SCATTER, x[i] != (float)((me * n + i) % (100 / p) * p * (p + 1) / 2));
    free(x), free(half), free(sum);
}

static void report(const char *where)
{
    for (int i = 0; i < CLAIMS; i++) {
        ok(faults[i] == 0, "%s: %s", where, claims[i]);
        faults[i] = 0;
    }
}

#endif
