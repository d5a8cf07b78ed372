/* dev_dry.c -- a device that has no memory and does no work: it counts what it is asked for.
 *
 * A step on it, with the ops of op_dry.c, goes through everything that takes memory on a real
 * device, so what a run will need is known before any of it is taken.  Addresses are of nothing. */
#include "dev/tally.h"

#include <stdlib.h>

enum { PAGE = 4096 };

static struct tally tally;

static void *dry_alloc(int64_t bytes)
{
    static uintptr_t next = (uintptr_t)1 << 40;
    uintptr_t size = (uintptr_t)(MAX(bytes, 1) + PAGE - 1) / PAGE * PAGE;
    void *p = (void *)__atomic_fetch_add(&next, size, __ATOMIC_RELAXED);
    tally_add(&tally, p, bytes);
    return p;
}

static void dry_free(void *p)
{
    tally_remove(&tally, p);
}

static void *dry_alloc_host(int64_t bytes)
{
    return xmalloc((size_t)MAX(bytes, 1));
}

static void dry_memory(struct dev_memory *m)
{
    tally_read(&tally, m);
    m->left = -1;
}

static void dry_copy(struct lane *l, void *dst, const void *src, int64_t bytes)
{
}

static void dry_zero(struct lane *l, void *p, int64_t bytes)
{
}

static void dry_lane(struct lane *l)
{
}

static void dry_lane_open(struct lane *l)
{
    l->handle = dry_alloc(LANE_WORKSPACE);
}

static void dry_lane_close(struct lane *l)
{
    dry_free(l->handle);
}

static void dry_event(struct lane *l, struct event *e)
{
}

static void dry_reach(struct event *e)
{
}

static double dry_elapsed(const struct event *from, const struct event *to)
{
    return 0;
}

static void dry_capture_end(struct lane *l, struct capture *c)
{
}

static void dry_replay(struct lane *l, const struct capture *c)
{
}

static void dry_capture_free(struct capture *c)
{
}

const struct dev_ops *dev_dry_open(void)
{
    static const struct dev_ops ops = {
        .name = "dry",
        .alloc = dry_alloc,
        .free = dry_free,
        .alloc_host = dry_alloc_host,
        .free_host = free,
        .alloc_both = dry_alloc,
        .memory = dry_memory,
        .copy = dry_copy,
        .put = dry_copy,
        .get = dry_copy,
        .get_later = dry_copy,
        .zero = dry_zero,
        .wait = dry_lane,
        .record = dry_event,
        .follow = dry_event,
        .reach = dry_reach,
        .event_free = dry_reach,
        .elapsed = dry_elapsed,
        .capture_begin = dry_lane,
        .capture_end = dry_capture_end,
        .replay = dry_replay,
        .capture_free = dry_capture_free,
        .lane_open = dry_lane_open,
        .lane_close = dry_lane_close,
    };
    return &ops;
}
