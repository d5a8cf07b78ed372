/* par.c -- a pool of threads that share the indices of one loop at a time.
 *
 * The whole claim is one 64-bit word, job number and next index together.  A worker takes an index
 * by compare-and-swap, so a latecomer that still remembers the last job can take nothing of this
 * one, and par_for() waits for the indices alone, never for a worker that has not woken up. */
#include "base.h"
#include "internal.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS_MAX = 4096 };

struct par {
    int64_t threads;
    int spins; /* polls before sleeping */
    pthread_t *workers;
    _Atomic uint64_t claim;       /* job << 32 | next index */
    _Atomic int64_t count, first; /* of the current job */
    _Atomic(void *) arg;
    void (*_Atomic fn)(void *arg, int64_t i);
    _Atomic int64_t left; /* indices not yet done */
    _Atomic int64_t sleepers;
    _Atomic int caller_sleeps, quit;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
};

int64_t cores_usable(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Works on job until all its indices are taken. */
static void work(struct par *p, uint64_t job)
{
    uint64_t claim = atomic_load(&p->claim);
    while (claim >> 32 == job) {
        /* Right if the swap succeeds: a job's fields change only after its last index is done. */
        void (*fn)(void *, int64_t) = atomic_load(&p->fn);
        void *arg = atomic_load(&p->arg);
        int64_t i = (int64_t)(claim & UINT32_MAX), first = atomic_load(&p->first);
        if (i >= atomic_load(&p->count))
            return;
        if (!atomic_compare_exchange_weak(&p->claim, &claim, claim + 1))
            continue;
        fn(arg, first + i);
        if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
        claim = atomic_load(&p->claim);
    }
}

/* Returns the number of a job other than seen, or seen when the pool is closing. */
static uint64_t next_job(struct par *p, uint64_t seen)
{
    for (int i = 0; i < p->spins; i++) {
        uint64_t job = atomic_load(&p->claim) >> 32;
        if (job != seen || atomic_load(&p->quit))
            return job;
        relax();
    }
    uint64_t job;
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while ((job = atomic_load(&p->claim) >> 32) == seen && !atomic_load(&p->quit))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
    return job;
}

static void *worker(void *arg)
{
    struct par *p = arg;
    uint64_t seen = 0;
    for (;;) {
        uint64_t job = next_job(p, seen);
        if (job == seen)
            return NULL;
        work(p, job);
        seen = job;
    }
}

void par_check(int64_t threads)
{
    if (threads > THREADS_MAX)
        die_misused("%lld threads: at most %d", (long long)threads, THREADS_MAX);
}

struct par *par_new(int64_t threads)
{
    struct par *p = xcalloc(1, sizeof(*p));
    par_check(threads);
    p->threads = MAX(threads, 1);
    /* Polling pays only when every thread has a core to poll on. */
    p->spins = p->threads <= cores_usable() ? 500 : 0;
    p->workers = xcalloc((size_t)p->threads, sizeof(*p->workers));
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int64_t i = 1; i < p->threads; i++)
        if (pthread_create(&p->workers[i], NULL, worker, p))
            die("cannot start thread %lld of %lld", (long long)i, (long long)p->threads);
    return p;
}

void par_free(struct par *p)
{
    if (!p)
        return;
    atomic_store(&p->quit, 1);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int64_t i = 1; i < p->threads; i++)
        pthread_join(p->workers[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int64_t par_threads(const struct par *p)
{
    return p ? p->threads : 1;
}

/* One job of at most 2^31 indices, first .. first + count - 1. */
static void run_job(struct par *p, int64_t first, int64_t count, void (*fn)(void *arg, int64_t i),
                    void *arg)
{
    /* A job number is never 0, what a new worker has seen, and fits 32 bits. */
    uint64_t last = atomic_load(&p->claim) >> 32, job = last % UINT32_MAX + 1;
    /* Close the last job first: a worker still in it must not judge its index by the new count. */
    atomic_store(&p->claim, last << 32 | UINT32_MAX);
    atomic_store(&p->count, count);
    atomic_store(&p->first, first);
    atomic_store(&p->arg, arg);
    atomic_store(&p->fn, fn);
    atomic_store(&p->left, count);
    atomic_store(&p->claim, job << 32);
    int64_t sleepers = atomic_load(&p->sleepers);
    if (sleepers > 0) {
        pthread_mutex_lock(&p->lock);
        if (count - 1 < sleepers)
            for (int64_t i = 1; i < count; i++)
                pthread_cond_signal(&p->wake);
        else
            pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    work(p, job);
    for (int i = 0; i < p->spins && atomic_load(&p->left); i++)
        relax();
    if (atomic_load(&p->left)) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->caller_sleeps, 1);
        while (atomic_load(&p->left))
            pthread_cond_wait(&p->done, &p->lock);
        atomic_store(&p->caller_sleeps, 0);
        pthread_mutex_unlock(&p->lock);
    }
}

void par_for(struct par *p, int64_t n, void (*fn)(void *arg, int64_t i), void *arg)
{
    static const int64_t job_max = (int64_t)1 << 31;
    if (!p || p->threads == 1 || n == 1) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i);
        return;
    }
    for (int64_t first = 0; first < n; first += job_max)
        run_job(p, first, MIN(n - first, job_max), fn, arg);
}
