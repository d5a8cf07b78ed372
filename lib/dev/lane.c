/* lane.c -- lanes, their scratch memory and the choice of a device: what is the same for every
 * backend.
 *
 * An arena never moves what it handed out: when a block is full it goes on in the next one, and
 * takes a new block only when none is left. */
#include "dev/dev.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256, BLOCK_MIN = 1 << 20 };

void arena_init(struct arena *a, struct heap *heap)
{
    *a = (struct arena){.heap = heap};
}

void *arena_take(struct arena *a, int64_t bytes)
{
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    while (a->at < a->blocks && a->used + bytes > a->block[a->at]->bytes) {
        a->at++;
        a->used = 0;
    }
    if (a->at == a->blocks) {
        a->block = xrealloc(a->block, (size_t)(a->blocks + 1) * sizeof *a->block);
        a->block[a->blocks++] = heap_take(a->heap, MAX(bytes, BLOCK_MIN), HEAP_TOP);
    }
    void *p = a->block[a->at]->p + a->used;
    a->used += bytes;
    return p;
}

void arena_back(struct arena *a, struct arena_mark m)
{
    while (a->blocks > m.at + (m.used > 0))
        heap_give(a->heap, a->block[--a->blocks]);
    a->at = m.at;
    a->used = m.used;
}

void arena_reset(struct arena *a)
{
    arena_back(a, (struct arena_mark){0, 0});
}

void arena_release(struct arena *a)
{
    arena_reset(a);
    free(a->block);
    arena_init(a, a->heap);
}

static _Noreturn void too_little(const struct dev_ops *dev, const char *what, int64_t bytes)
{
    const double mib = 1048576.0;
    struct dev_memory m;
    dev->memory(&m);
    if (m.left < 0)
        die("%s needs %.1f MiB more than device %s has", what, (double)bytes / mib, dev->name);
    die("%s needs %.1f MiB and device %s has %.1f left, beside %.1f in use here", what,
        (double)bytes / mib, dev->name, (double)m.left / mib, (double)m.used / mib);
}

void *dev_alloc(const struct dev_ops *dev, int64_t bytes, const char *what)
{
    void *p = dev->alloc(MAX(bytes, 1));
    if (!p)
        too_little(dev, what, bytes);
    return p;
}

static void open_lane(struct lane *l)
{
    heap_init(&l->heap, l->dev);
    arena_init(&l->scratch, &l->heap);
    l->dev->lane_open(l);
}

void lane_init(struct lane *l, const struct dev_ops *dev, int64_t threads)
{
    *l = (struct lane){.dev = dev, .par = threads > 1 ? par_new(threads) : NULL};
    open_lane(l);
}

void lane_init_urgent(struct lane *l, const struct dev_ops *dev)
{
    *l = (struct lane){.dev = dev, .urgent = 1};
    open_lane(l);
}

void lane_release(struct lane *l)
{
    l->dev->lane_close(l);
    arena_release(&l->scratch);
    heap_release(&l->heap);
    if (l->par)
        par_free(l->par);
    *l = (struct lane){.dev = l->dev};
}

/* Workers draw tasks from one counter, so a worker can own scratch and none waits for another. */
struct work {
    void (*fn)(void *arg, int64_t i, void *scratch);
    void *arg;
    int64_t n, scratch_bytes;
    char *scratch; /* (workers, scratch_bytes) */
    atomic_llong next;
};

static void work_run(void *arg, int64_t worker)
{
    struct work *w = arg;
    for (int64_t i; (i = atomic_fetch_add(&w->next, 1)) < w->n;)
        w->fn(w->arg, i, w->scratch + worker * w->scratch_bytes);
}

void lane_for(struct lane *l, int64_t n, void (*fn)(void *arg, int64_t i, void *scratch), void *arg,
              int64_t scratch_bytes)
{
    int64_t workers = l->par ? MIN(n, par_threads(l->par)) : MIN(n, 1);
    struct arena_mark mark = arena_mark(&l->scratch);
    struct work w = {fn, arg, n, (scratch_bytes + ALIGN - 1) / ALIGN * ALIGN};
    w.scratch = arena_take(&l->scratch, workers * w.scratch_bytes);
    if (workers > 1)
        par_for(l->par, workers, work_run, &w);
    else if (workers)
        work_run(&w, 0);
    arena_back(&l->scratch, mark);
}

static int chosen;

void dev_choose(int i)
{
    chosen = i;
}

int dev_chosen(void)
{
    return chosen;
}

static const char *never(void)
{
    return NULL;
}

static const struct backend {
    const char *name;
    const struct dev_ops *(*open)(void);
    const char *(*missing)(void);
} backends[] = {{"cpu", dev_cpu_open, never},
                {"cuda", dev_cuda_open, dev_cuda_missing},
                {"dry", dev_dry_open, never}};

static const struct backend *backend_find(const char *name)
{
    for (int64_t i = 0; i < ARRAY_LEN(backends); i++)
        if (!strcmp(name, backends[i].name))
            return &backends[i];
    die_misused("%s: no such device (cpu or cuda)", name);
}

const struct dev_ops *dev_open(const char *name)
{
    return backend_find(name)->open();
}

const char *dev_missing(const char *name)
{
    return backend_find(name)->missing();
}

void *lane_alloc(struct lane *l, int64_t bytes, const char *what)
{
    void *p = dev_alloc(l->dev, bytes, what);
    l->dev->zero(l, p, MAX(bytes, 1));
    return p;
}
