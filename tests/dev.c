/* dev.c -- arenas hand out what they promise; lanes run every task once, whoever runs it. */
#include "tap.h"

#include "dev/dev.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_arena(void)
{
    struct arena a;
    arena_init(&a, dev_open("cpu"));
    char *p = arena_take(&a, 3), *q = arena_take(&a, 5);
    ok((uintptr_t)p % 256 == 0 && q == p + 256, "what is taken begins at multiples of 256");
    struct arena_mark mark = arena_mark(&a);
    char *big = arena_take(&a, 5 << 20);
    memset(big, 1, 5 << 20);
    ok((uintptr_t)big % 256 == 0 && a.chunks == 2,
       "what does not fit goes into a chunk of its own");
    int64_t peak = a.peak;
    arena_back(&a, mark);
    ok(arena_take(&a, 5) == q + 256, "what was taken after a mark is free again");
    arena_reset(&a);
    int64_t bytes = a.bytes;
    ok(a.chunks == 1 && bytes == peak && peak >= 512 + (5 << 20),
       "after a reset it holds what was in use at most, in one piece");
    p = arena_take(&a, 3), q = arena_take(&a, 5), big = arena_take(&a, 5 << 20);
    arena_reset(&a);
    ok(arena_take(&a, 3) == p && arena_take(&a, 5) == q && arena_take(&a, 5 << 20) == big &&
           a.bytes == bytes,
       "from then on the same requests get the same places, and take no more memory");
    a.fixed = 1;
    arena_take(&a, 5 << 20);
    arena_reset(&a);
    ok(a.chunks == 2 && arena_take(&a, 3) == p, "a fixed one keeps its places whatever is asked");
    arena_release(&a);
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
    test_dry();
    test_lane(1);
    test_lane(3);
    test_both();
    ok(status_of("cpu") == 0, "there is a device cpu");
    ok(status_of("gpu") == EXIT_MISUSED, "and none called gpu");
    return finish();
}
