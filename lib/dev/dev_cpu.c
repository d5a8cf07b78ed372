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

static void cpu_event(struct lane *l, struct event *e)
{
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
        .copy = cpu_copy,
        .put = cpu_copy,
        .get = cpu_copy,
        .zero = cpu_zero,
        .wait = cpu_wait,
        .record = cpu_event,
        .follow = cpu_event,
        .lane_open = cpu_lane_open,
        .lane_close = cpu_lane_close,
    };
    return &ops;
}
