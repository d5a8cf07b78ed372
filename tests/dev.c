/* dev.c -- heaps and arenas hand out what they promise; lanes run every task once, whoever runs it.
 */
#include "tap.h"

#include "dev/dev.h"

#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_arena(void)
{
    struct heap h;
    struct arena a;
    heap_init(&h, dev_open("cpu"));
    arena_init(&a, &h);
    char *p = arena_take(&a, 3), *q = arena_take(&a, 5);
    ok((uintptr_t)p % 256 == 0 && q == p + 256, "what is taken begins at multiples of 256");
    struct arena_mark mark = arena_mark(&a);
    char *big = arena_take(&a, 5 << 20);
    memset(big, 1, 5 << 20);
    ok((uintptr_t)big % 256 == 0 && a.blocks == 2,
       "what does not fit goes into a block of its own");
    arena_back(&a, mark);
    ok(arena_take(&a, 5) == q + 256, "what was taken after a mark is free again");
    int64_t peak = h.peak;
    arena_reset(&a);
    ok(h.chunks == 1 && h.bytes == peak && !h.used && peak >= 5 << 20,
       "after a reset its heap holds what was in use at most, in one piece");
    p = arena_take(&a, 3), q = arena_take(&a, 5), big = arena_take(&a, 5 << 20);
    arena_reset(&a);
    ok(arena_take(&a, 3) == p && arena_take(&a, 5) == q && arena_take(&a, 5 << 20) == big &&
           h.bytes == peak,
       "from then on the same requests get the same places, and take no more memory");
    arena_release(&a);
    heap_release(&h);
}

static void test_heap_places(void)
{
    enum { KIB = 1 << 10 };
    struct heap h;
    heap_init(&h, dev_open("dry"));
    heap_reserve(&h, 100 * KIB);
    char *at = h.chunk[0].p;
    struct heap_block *a = heap_take(&h, 10 * KIB, HEAP_BOTTOM);
    struct heap_block *b = heap_take(&h, 20 * KIB, HEAP_BOTTOM);
    struct heap_block *c = heap_take(&h, 30 * KIB, HEAP_TOP);
    ok(a->p == at && b->p == at + 10 * KIB && c->p == at + 70 * KIB,
       "a heap gives what is kept from the bottom and what passes from the top");
    heap_give(&h, a);
    a = heap_take(&h, 11 * KIB, HEAP_BOTTOM);
    struct heap_block *d = heap_take(&h, 10 * KIB, HEAP_BOTTOM);
    ok(a->p == at + 30 * KIB && d->p == at, "a hole is filled by what fits");
    heap_give(&h, b), heap_give(&h, d), heap_give(&h, a), heap_give(&h, c);
    a = heap_take(&h, 100 * KIB, HEAP_TOP);
    ok(a->p == at && h.chunks == 1, "neighbours given back in any order are one again");
    h.fixed = 1;
    b = heap_take(&h, 1, HEAP_BOTTOM);
    heap_give(&h, a), heap_give(&h, b);
    ok(h.chunks == 2 && h.chunk[0].p == at, "a fixed heap grows and keeps its places");
    h.fixed = 0;
    heap_give(&h, heap_take(&h, 1, HEAP_TOP));
    ok(h.chunks == 1 && h.bytes > 100 * KIB && h.bytes < 102 * KIB,
       "another becomes one piece, a little larger than what did not do");
    heap_release(&h);
}

/* Blocks of any size, kept for any time, never overlap, and a sequence repeated takes nothing. */
static void test_heap_repeats(void)
{
    enum { LIVE = 40, STEPS = 60, TURNS = 500 };
    struct heap h;
    struct heap_block *live[LIVE] = {0};
    int64_t bytes = -1, overlaps = 0, settled = 0;
    heap_init(&h, dev_open("dry"));
    for (int step = 0; step < STEPS; step++) {
        settled = bytes == h.bytes;
        bytes = h.bytes;
        for (int i = 0; i < TURNS; i++) {
            int at = (int)(rng_uniform(1, 0, (uint64_t)i) * LIVE);
            int64_t n = (int64_t)(exp2(8 + 14 * rng_uniform(1, 1, (uint64_t)i)));
            if (live[at])
                heap_give(&h, live[at]);
            live[at] = heap_take(&h, n, at % 4 ? HEAP_BOTTOM : HEAP_TOP);
            for (int j = 0; j < LIVE; j++)
                overlaps += j != at && live[j] && live[j]->p < live[at]->p + live[at]->bytes &&
                            live[at]->p < live[j]->p + live[j]->bytes;
        }
        for (int j = 0; j < LIVE; j++) {
            if (live[j])
                heap_give(&h, live[j]);
            live[j] = NULL;
        }
    }
    ok(!overlaps, "blocks in use never overlap");
    ok(settled && h.chunks == 1 && h.bytes < 1.5 * (double)h.peak,
       "a sequence repeated settles in one piece (%lld bytes for %lld at once)", (long long)h.bytes,
       (long long)h.peak);
    heap_release(&h);
}

enum { TASKS = 1000 };
struct count {
    int done[TASKS];
    int spoilt[TASKS]; /* somebody else wrote to the task's scratch */
};

static void count_task(void *arg, int64_t i, void *scratch)
{
    struct count *c = arg;
    int64_t *own = scratch; /* (100) */
    for (int j = 0; j < 100; j++)
        own[j] = i;
    for (int j = 0; j < 100; j++)
        c->spoilt[i] += own[j] != i;
    c->done[i]++;
}

static void test_lane(int64_t threads)
{
    struct lane l;
    struct count c = {0};
    int once = 1, spoilt = 0;
    lane_init(&l, dev_open("cpu"), threads);
    for (int64_t n = 0; n < 3; n++) /* nothing, one, all */
        lane_for(&l, n == 2 ? TASKS - 1 : n, count_task, &c, 100 * 8);
    for (int i = 0; i < TASKS; i++) {
        once &= c.done[i] == (i < TASKS - 1) + (i == 0);
        spoilt += c.spoilt[i];
    }
    ok(once, "%d threads run every task once", (int)threads);
    ok(!spoilt && !l.scratch.used, "and each has its scratch to itself, which is given back");
    lane_release(&l);
}

static void test_both(void)
{
    struct lane l;
    lane_init(&l, dev_open("cpu"), 1);
    struct event from = {.timed = 1}, to = {.timed = 1};
    char *p = l.dev->alloc_both(1000);
    l.dev->record(&l, &from);
    l.dev->zero(&l, p, 1000);
    usleep(2000);
    l.dev->record(&l, &to);
    l.dev->wait(&l);
    ok(l.dev->elapsed(&from, &to) >= 0.002 && !p[999],
       "timed events tell how long the work between them took");
    l.dev->free(p);
    lane_release(&l);
}

static void test_dry(void)
{
    const struct dev_ops *dev = dev_open("dry");
    struct dev_memory m;
    char *p = dev->alloc(1ll << 40), *q = dev->alloc(1000);
    dev->memory(&m);
    ok(q >= p + (1ll << 40) && m.used == (1ll << 40) + 1000 && m.left < 0,
       "the dry device gives out what nobody has, and counts it");
    dev->free(p);
    dev->memory(&m);
    ok(m.used == 1000 && m.peak == (1ll << 40) + 1000, "what is freed counts for the peak only");
    dev->free(q);
    dev->free(dev->alloc(7));
    dev->memory(&m);
    ok(m.used == 0 && m.peak == 7, "a peak is of the time since nothing was out");
}

static int status_of(const char *device)
{
    pid_t child = fork();
    if (!child) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(99);
        dev_open(device);
        _exit(0);
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(void)
{
    test_arena();
    test_heap_places();
    test_heap_repeats();
    test_dry();
    test_lane(1);
    test_lane(3);
    test_both();
    ok(status_of("cpu") == 0, "there is a device cpu");
    ok(status_of("gpu") == EXIT_MISUSED, "and none called gpu");
    return finish();
}
