/* dev.h -- where numbers live and in what order they are worked on: devices, lanes, events.
 *
 * A device owns memory.  A lane is one in-order queue of work on a device (a CUDA stream; on the CPU
 * the calling thread), with its threads, its scratch memory and its library handles.  Every op and
 * every collective takes a lane first.  Events order lanes among themselves; on the CPU every call
 * has finished when it returns, so an event is nothing.
 *
 * What lives as long as a model is allocated at the start; what a step needs lies in a lane's heap, so
 * that a step neither allocates nor frees and memory use is one number. */
#ifndef DEV_H
#define DEV_H

#include "base/base.h"

struct lane;
struct event;
struct dev_memory;
struct capture;

struct dev_ops { /* what a backend is: dev_cpu.c, dev_cuda.cu */
    const char *name;
    void *(*alloc)(int64_t bytes); /* aligned to 4096; NULL when there is not enough */
    void (*free)(void *p);
    void *(*alloc_host)(int64_t bytes); /* host memory that ops may read and write in place; dies */
    void (*free_host)(void *p);
    /* Memory that host and device both read and write in place, each at its own speed once it has
     * been touched there: for measurements and tests.  Free with free(); NULL as alloc(). */
    void *(*alloc_both)(int64_t bytes);
    void (*memory)(struct dev_memory *m);
    int is_host; /* device memory is host memory: the caller may look at it without get() */
    void (*copy)(struct lane *l, void *dst, const void *src, int64_t bytes); /* on the device */
    /* From ordinary memory put() has read when it returns; memory of alloc_host() is read by the
     * time an event recorded after it is reached. */
    void (*put)(struct lane *l, void *dst, const void *host, int64_t bytes);
    void (*get)(struct lane *l, void *host, const void *src, int64_t bytes);
    /* Into memory of alloc_host(); there when an event recorded after it is reached. */
    void (*get_later)(struct lane *l, void *host, const void *src, int64_t bytes);
    void (*zero)(struct lane *l, void *p, int64_t bytes);
    void (*wait)(struct lane *l); /* until all queued work is done */
    void (*record)(struct lane *l, struct event *e);
    void (*follow)(struct lane *l, struct event *e); /* l goes on after e */
    void (*reach)(struct event *e);                  /* the caller goes on after e */
    void (*event_free)(struct event *e);
    /* Work queued between begin and end is not done but kept, where the device can: replay() does
     * it, as often as it is called, from and into the same memory.  Where it cannot (the CPU), the
     * work is done at once, nothing is kept and replay() does nothing. */
    void (*capture_begin)(struct lane *l);
    void (*capture_end)(struct lane *l, struct capture *c);
    void (*replay)(struct lane *l, const struct capture *c);
    void (*capture_free)(struct capture *c);
    /* Seconds between two timed events of a lane, once it has reached the later one (wait). */
    double (*elapsed)(const struct event *from, const struct event *to);
    /* What libraries call the lane's queue: a cudaStream_t.  NULL where there is none. */
    void *(*queue)(struct lane *l);
    void (*lane_open)(struct lane *l); /* makes and frees l->handle */
    void (*lane_close)(struct lane *l);
};

struct dev_memory { /* bytes of the device */
    int64_t used, peak; /* given out by alloc(), now and at most; 0 where nobody counts */
    int64_t left;       /* what could be given out; -1: nobody knows */
};
struct capture {
    void *handle; /* NULL: nothing is kept */
    int64_t nodes;
};
struct event {
    void *handle;
    int timed;   /* set before the first record() of an event that elapsed() is asked about */
    double at_s; /* where no clock but the host's is needed */
};

/* ---- heap.c: the memory of a step ---- */

/* Blocks of a few chunks of device memory.  What is kept is taken from the bottom and what is soon
 * given back from the top, so that neither leaves holes in the other.  A heap that has taken several
 * chunks replaces them by one once it is empty: of what was in use at most, or a little more where
 * that was not enough; so a step repeated takes no memory after a while, or from the beginning where
 * somebody knew how much to reserve. */
struct heap_block {
    char *p; /* a multiple of 256 */
    int64_t bytes, chunk;
    struct heap_block *next; /* of the free ones: the next by chunk and address */
};
struct heap_chunk {
    char *p;
    int64_t bytes;
};
struct heap {
    const struct dev_ops *dev;
    struct heap_block *idle;
    struct heap_chunk *chunk; /* (chunks) */
    int64_t chunks;
    int64_t settled, spare; /* bytes of the one that replaced others, and by how many the next grows */
    int64_t bytes, used, peak; /* in all chunks; now in use, and at most */
    int fixed;                 /* its chunks stay what they are, since a capture has their addresses */
};
enum heap_end { HEAP_BOTTOM, HEAP_TOP };
void heap_init(struct heap *h, const struct dev_ops *dev);
void heap_reserve(struct heap *h, int64_t bytes); /* of an empty heap: one chunk, no smaller */
struct heap_block *heap_take(struct heap *h, int64_t bytes, enum heap_end end); /* dies naming the size */
void heap_give(struct heap *h, struct heap_block *b);
void heap_release(struct heap *h); /* all has been given back */

/* ---- lane.c ---- */

/* A stack on blocks of a heap's top; arena_reset() gives all of it back. */
struct arena {
    struct heap *heap;
    struct heap_block **block; /* (blocks) */
    int64_t blocks, at, used;  /* the block in use, and the bytes used of it */
};
void arena_init(struct arena *a, struct heap *heap);
void *arena_take(struct arena *a, int64_t bytes); /* aligned to 256 */
void arena_reset(struct arena *a);
void arena_release(struct arena *a);

/* A place to go back to: what was taken after the mark is free again. */
struct arena_mark {
    int64_t at, used;
};
static inline struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){a->at, a->used};
}
void arena_back(struct arena *a, struct arena_mark m);

enum { LANE_WORKSPACE = 64 << 20 }; /* what a GPU's lane has for libraries */
struct lane {
    const struct dev_ops *dev;
    struct par *par;      /* CPU threads; NULL means the calling thread alone */
    struct heap heap;     /* the memory of what runs on it: what is kept, and scratch */
    struct arena scratch; /* for the op or segment in progress; its user resets it */
    void *handle;         /* stream and library handles of the backend */
    int deterministic;    /* libraries must give the same bits again, at a cost */
    int urgent;           /* where work of several lanes could begin, this one's does first */
};
/* threads: CPU threads of this lane (the device lane of a GPU needs one). */
void lane_init(struct lane *l, const struct dev_ops *dev, int64_t threads);
/* The same for what travels between ranks while another lane computes. */
void lane_init_urgent(struct lane *l, const struct dev_ops *dev);
void lane_release(struct lane *l);
/* Zeroed memory of the lane's device; dies naming what needs how much.  Free with dev->free(). */
void *lane_alloc(struct lane *l, int64_t bytes, const char *what);
/* Memory of a device; dies as lane_alloc(). */
void *dev_alloc(const struct dev_ops *dev, int64_t bytes, const char *what);

/* Calls fn(arg, i, scratch) once for each i in 0..n-1 on the CPU threads of the lane, in no order,
 * and returns when all are done.  A call in progress has scratch_bytes to itself, aligned to 256,
 * whose contents are whatever the last one left; they are given back at the end. */
void lane_for(struct lane *l, int64_t n, void (*fn)(void *arg, int64_t i, void *scratch), void *arg,
              int64_t scratch_bytes);

/* "cpu" or "cuda"; dies when this build or machine has none of that name.  "dry" has no memory and
 * counts what it is asked for. */
const struct dev_ops *dev_open(const char *name);
/* Which of several devices of a kind this process works on, counted around; the first unless called,
 * before the first dev_open(). */
void dev_choose(int i);
int dev_chosen(void);
/* Why dev_open(name) would die, or NULL when it would not. */
const char *dev_missing(const char *name);

/* What dev_open() chooses from: dev_cpu.c; dev_dry.c; dev_cuda.cu or, in builds without it, dev_nocuda.c. */
const struct dev_ops *dev_cpu_open(void);
const struct dev_ops *dev_dry_open(void);
const struct dev_ops *dev_cuda_open(void);
const char *dev_cuda_missing(void);

#endif
