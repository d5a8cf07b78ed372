/* lane.c -- arenas, lanes and the choice of a device: what is the same for every backend.
 *
 * An arena never moves what it handed out: when a chunk is full it goes on in the next one, and
 * takes a new chunk, no larger than it must be, only when none is left.  Once nothing is handed out
 * the chunks become one, of what was in use at most: after a first step has met every size, a step
 * takes none, and no more is held than is needed. */
#include "dev/dev.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256, CHUNK_MIN = 1 << 20 };

void arena_init(struct arena *a, const struct dev_ops *dev)
{
    *a = (struct arena){.dev = dev};
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

static void arena_grow(struct arena *a, int64_t need)
{
    int64_t bytes = MAX(need, CHUNK_MIN);
    char *p = a->dev->alloc(bytes);
    if (!p)
        too_little(a->dev, "scratch memory", need);
    a->chunk = xrealloc(a->chunk, (size_t)(a->chunks + 1) * sizeof *a->chunk);
    a->chunk[a->chunks++] = (struct arena_chunk){p, bytes};
    a->bytes += bytes;
}

void *arena_take(struct arena *a, int64_t bytes)
{
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    while (a->at < a->chunks && a->used + bytes > a->chunk[a->at].bytes) {
        a->at++;
        a->used = 0;
    }
    if (a->at == a->chunks)
        arena_grow(a, bytes);
    void *p = a->chunk[a->at].p + a->used;
    a->used += bytes;
    int64_t in_use = a->used;
    for (int64_t i = 0; i < a->at; i++)
        in_use += a->chunk[i].bytes;
    a->peak = MAX(a->peak, in_use);
    return p;
}

static void chunks_free(struct arena *a)
{
    for (int64_t i = 0; i < a->chunks; i++)
        a->dev->free(a->chunk[i].p);
    a->chunks = a->bytes = a->at = a->used = 0;
}

void arena_reset(struct arena *a)
{
    a->at = a->used = 0;
    if (a->chunks > 1 && !a->fixed) {
        chunks_free(a);
        arena_grow(a, a->peak);
    }
}

void arena_release(struct arena *a)
{
    chunks_free(a);
    free(a->chunk);
    arena_init(a, a->dev);
}

void lane_init(struct lane *l, const struct dev_ops *dev, int64_t threads)
{
    *l = (struct lane){.dev = dev, .par = threads > 1 ? par_new(threads) : NULL};
    arena_init(&l->scratch, dev);
    dev->lane_open(l);
}

void lane_init_urgent(struct lane *l, const struct dev_ops *dev)
{
    *l = (struct lane){.dev = dev, .urgent = 1};
    arena_init(&l->scratch, dev);
    dev->lane_open(l);
}

void lane_release(struct lane *l)
{
    l->dev->lane_close(l);
    arena_release(&l->scratch);
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
    void *p = l->dev->alloc(MAX(bytes, 1));
    if (!p)
        too_little(l->dev, what, bytes);
    l->dev->zero(l, p, MAX(bytes, 1));
    return p;
}
