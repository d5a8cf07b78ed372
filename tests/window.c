/* window.c -- rows through windows (comm.h) against what they must be, which every rank knows since
 * all that anybody brings is a function of where it lies.
 *
 *   mpirun -n 2 build/cuda-nccl-mpi/tests/window cuda
 *
 * Without GPUs of their own the ranks can only be told why there is no window. */
#include "comm/comm.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 5000, WIDE = 512, ROUNDS = 6 };

static struct lane lane;
static struct comm *all;
static int ranks, me;
static int64_t faults;

/* Expert j of row i on rank r: one in four is none. */
static int32_t choice(int64_t round, int64_t r, int64_t i, int64_t j, int64_t experts)
{
    double u = rng_uniform((uint64_t)round, (uint64_t)(r * MOST + i), (uint64_t)j);
    return u < 0.25 ? -1 : (int32_t)((u - 0.25) / 0.75 * (double)experts);
}

static float value(int64_t round, int64_t who, int64_t row, int64_t j)
{
    return (float)rng_uniform((uint64_t)(round + 100), (uint64_t)row, (uint64_t)(who * WIDE + j)) -
           0.5f;
}

static int wanted(const struct window_rows *w, const int32_t *index, int r)
{
    int64_t first = r / w->share * w->el;
    for (int64_t j = 0; j < w->k; j++)
        if (index[j] >= first && index[j] < first + w->el)
            return 1;
    return 0;
}

static void *put(void *there, const float *x, int64_t n, enum dtype t)
{
    char *host = xmalloc((size_t)(n * 4 + 1));
    dtype_convert(host, t, x, DT_F32, n);
    lane.dev->put(&lane, there, host, n * dtype_size(t));
    lane.dev->wait(&lane);
    free(host);
    return there;
}

static void get(float *x, const void *there, int64_t n, enum dtype t)
{
    char *host = xmalloc((size_t)(n * 4 + 1));
    lane.dev->get(&lane, host, there, n * dtype_size(t));
    lane.dev->wait(&lane);
    dtype_convert(x, DT_F32, host, t, n);
    free(host);
}

static float rounded(float x, enum dtype t)
{
    char one[4];
    dtype_convert(one, t, &x, DT_F32, 1);
    dtype_convert(&x, DT_F32, one, t, 1);
    return x;
}

struct arrays { /* on the device */
    int32_t *index, *there;
    void *x, *got, *gate, *gates, *y;
};

static void test_rows(struct window *w, struct arrays *a, int64_t n, int64_t k, int64_t d,
                      enum dtype t, int share, int repeat)
{
    int64_t el = 3, experts = ranks / share * el, size = ranks * n;
    struct window_rows rows = {a->index, NULL, n, k, el, share};
    const struct window_part out[] = {{a->got, a->x, NULL, d, t},
                                      {a->there, a->index, NULL, k, DT_I32},
                                      {a->gates, a->gate, NULL, k, DT_F32}};
    const struct window_part back[] = {{a->y, a->got, a->x, d, t},
                                       {a->gate, a->gates, NULL, k, DT_F32}};
    int32_t *index = xmalloc((size_t)(size * k) * sizeof *index);
    int32_t *index_got = xmalloc((size_t)(size * k) * sizeof *index);
    float *x = xmalloc((size_t)(size * MAX(d, k)) * sizeof *x);
    struct capture kept[2] = {{0}};
    for (int64_t round = 0; round < ROUNDS; round++) {
        for (int64_t i = 0; i < size * k; i++)
            index[i] = choice(round, i / k / n, i / k % n, i % k, experts);
        lane.dev->put(&lane, a->index, index + me * n * k, n * k * 4);
        for (int64_t i = 0; i < n * d; i++)
            x[i] = value(round, 0, me * n + i / d, i % d);
        put(a->x, x, n * d, t);
        for (int64_t i = 0; i < n * k; i++)
            x[i] = value(round, 1, me * n + i / k, i % k);
        put(a->gate, x, n * k, DT_F32);
        for (int64_t i = 0; i < size * d; i++)
            x[i] = -7;
        put(a->got, x, size * d, t);

        rows.there = NULL;
        if (repeat && round == 2) {
            lane.dev->capture_begin(&lane);
            window_out(w, &lane, &rows, out, ARRAY_LEN(out));
            lane.dev->capture_end(&lane, &kept[0]);
        }
        if (kept[0].handle)
            lane.dev->replay(&lane, &kept[0]);
        else
            window_out(w, &lane, &rows, out, ARRAY_LEN(out));
        lane.dev->get(&lane, index_got, a->there, size * k * 4);
        lane.dev->wait(&lane);
        faults += memcmp(index, index_got, (size_t)(size * k) * 4) != 0;
        get(x, a->gates, size * k, DT_F32);
        for (int64_t i = 0; i < size * k; i++)
            faults += x[i] != value(round, 1, i / k, i % k);
        get(x, a->got, size * d, t);
        for (int64_t i = 0; i < size * d; i++)
            faults += x[i] != (wanted(&rows, index + i / d * k, me)
                                   ? rounded(value(round, 0, i / d, i % d), t)
                                   : -7);

        /* the answers: of rank q to row i, and gradients of its gates */
        for (int64_t i = 0; i < size * d; i++)
            x[i] = value(round, 2 + me, i / d, i % d);
        put(a->got, x, size * d, t);
        for (int64_t i = 0; i < size * k; i++)
            x[i] = value(round, 20 + me, i / k, i % k);
        put(a->gates, x, size * k, DT_F32);
        rows.there = a->there;
        if (repeat && round == 2) {
            lane.dev->capture_begin(&lane);
            window_back(w, &lane, &rows, back, ARRAY_LEN(back));
            lane.dev->capture_end(&lane, &kept[1]);
        }
        if (kept[1].handle)
            lane.dev->replay(&lane, &kept[1]);
        else
            window_back(w, &lane, &rows, back, ARRAY_LEN(back));
        for (int part = 0; part < 2; part++) {
            int64_t cols = part ? k : d;
            enum dtype type = part ? DT_F32 : t;
            get(x, part ? (void *)a->gate : a->y, n * cols, type);
            for (int64_t i = 0; i < n * cols; i++) {
                int64_t row = me * n + i / cols, j = i % cols;
                float sum = part ? 0 : rounded(value(round, 0, row, j), t);
                for (int q = 0; q < ranks; q++)
                    if (wanted(&rows, index + row * k, q))
                        sum += rounded(value(round, (part ? 20 : 2) + q, row, j), type);
                faults += x[i] != rounded(sum, type);
            }
        }
    }
    for (int i = 0; i < 2; i++)
        if (kept[i].handle)
            lane.dev->capture_free(&kept[i]);
    free(index), free(index_got), free(x);
}

static void claim(const char *what)
{
    comm_all_reduce(all, NULL, &faults, 1, DT_I64, COMM_SUM);
    if (me == 0)
        ok(faults == 0, "%d GPUs: %s: %lld faults", ranks, what, (long long)faults);
    faults = 0;
}

int main(int argc, char **argv)
{
    struct world *w = world_open(60);
    const char *why = "none";
    int gpu = argc > 1 && !strcmp(argv[1], "cuda"), list[64];
    ranks = world_size(w), me = world_rank(w);
    for (int i = 0; i < ranks; i++)
        list[i] = i;
    all = comm_new(w, "all", list, ranks);
    lane_init(&lane, dev_open(gpu ? "cuda" : "cpu"), 1);
    struct window *win = window_open(all, &lane, window_half(ranks, MOST, WIDE * 4 + 64), &why);
    if (!gpu) {
        ok(!win && strlen(why) > 8, "no window without GPUs: %s", why);
    } else if (!win) {
        if (me == 0)
            skip("rows through windows", why);
    } else {
        struct arrays a;
        void **at[] = {(void **)&a.index, (void **)&a.there, &a.x, &a.got, &a.gate, &a.gates, &a.y};
        for (int64_t i = 0; i < ARRAY_LEN(at); i++)
            *at[i] = lane_alloc(&lane, (int64_t)ranks * MOST * WIDE * 4, "the test");
        test_rows(win, &a, MOST, 2, WIDE, DT_BF16, 1, 0);
        claim("bf16, the same bytes there and the bits of a sum in rank order back");
        test_rows(win, &a, 1000, 8, 96, DT_F32, 1, 0);
        test_rows(win, &a, 1, 8, 64, DT_BF16, 1, 0);
        test_rows(win, &a, 77, 3, 50, DT_BF16, 1, 0);
        test_rows(win, &a, 513, 1, 33, DT_F32, 1, 0);
        claim("f32, few rows, and rows of odd lengths");
        test_rows(win, &a, 600, 4, 128, DT_BF16, 2, 0);
        claim("experts that two ranks share");
        test_rows(win, &a, 3000, 4, 256, DT_BF16, 1, 1);
        claim("captured and repeated");
        for (int64_t i = 0; i < ARRAY_LEN(at); i++)
            lane.dev->free(*at[i]);
        window_close(win);
    }
    comm_free(all);
    world_free(w);
    lane_release(&lane);
    return me == 0 ? finish() : 0;
}
