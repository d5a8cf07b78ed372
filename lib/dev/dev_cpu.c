/* dev_cpu.c -- the CPU as a device.
 *
 * Every call has finished when it returns, so there is nothing to wait for and an event is nothing.
 * Threads belong to the lane: OpenBLAS is told to use one, and the ops hand out tiles. */
#include "dev/dev.h"

#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

static void *cpu_alloc(int64_t bytes)
{
    return aligned_alloc(PAGE, (size_t)(bytes + PAGE - 1) / PAGE * PAGE);
}

static void *cpu_alloc_host(int64_t bytes)
{
    return xmalloc((size_t)MAX(bytes, 1));
}

static void cpu_memory(struct dev_memory *m)
{
    *m = (struct dev_memory){.left = -1};
}

/* memmove, since a copy from one part of a block to another may overlap. */
static void cpu_copy(struct lane *l, void *dst, const void *src, int64_t bytes)
{
    if (bytes > 0)
        memmove(dst, src, (size_t)bytes);
}

static void cpu_zero(struct lane *l, void *p, int64_t bytes)
{
    if (bytes > 0)
        memset(p, 0, (size_t)bytes);
}

static void cpu_wait(struct lane *l)
{
}

static void cpu_record(struct lane *l, struct event *e)
{
    if (e->timed)
        e->at_s = clock_s();
}

static void cpu_follow(struct lane *l, struct event *e)
{
}

static void cpu_event(struct event *e)
{
}

static void cpu_capture_end(struct lane *l, struct capture *c)
{
}

static void cpu_replay(struct lane *l, const struct capture *c)
{
}

static void cpu_capture_free(struct capture *c)
{
}

static double cpu_elapsed(const struct event *from, const struct event *to)
{
    return to->at_s - from->at_s;
}

static void one_blas_thread(void)
{
    openblas_set_num_threads(1);
}

static void cpu_lane_open(struct lane *l)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* ranks may be threads */
    pthread_once(&once, one_blas_thread);
}

static void cpu_lane_close(struct lane *l)
{
}

const struct dev_ops *dev_cpu_open(void)
{
    static const struct dev_ops ops = {
        .name = "cpu",
        .alloc = cpu_alloc,
        .free = free,
        .alloc_host = cpu_alloc_host,
        .free_host = free,
        .alloc_both = cpu_alloc,
        .memory = cpu_memory,
        .is_host = 1,
        .copy = cpu_copy,
        .put = cpu_copy,
        .get = cpu_copy,
        .get_later = cpu_copy,
        .zero = cpu_zero,
        .wait = cpu_wait,
        .reach = cpu_event,
        .event_free = cpu_event,
        .capture_begin = cpu_wait,
        .capture_end = cpu_capture_end,
        .replay = cpu_replay,
        .capture_free = cpu_capture_free,
        .record = cpu_record,
        .follow = cpu_follow,
        .elapsed = cpu_elapsed,
        .lane_open = cpu_lane_open,
        .lane_close = cpu_lane_close,
    };
    return &ops;
}
