/* watch_nccl.c -- whether calls between GPUs are ever done.
 *
 * They are queued and return at once, so a thread looks: where nothing that was queued gets done
 * before the deadline it ends the job, as comm_mpi.c does, with words. */
#include "comm/far.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { MARKS = 1024, NAME = 24 };

struct mark { /* a call that has been queued, or one of the host's in progress */
    char group[NAME];
    const char *call;
    int size, open, on_host;
    double since;
    cudaEvent_t done;
};
struct watch {
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    int ends, device, rank;
    double deadline_s, progress;
    int64_t at;
    struct mark mark[MARKS];
};

/* The oldest call that is not done; those that are, are closed. */
static struct mark *oldest(struct watch *w, double now)
{
    struct mark *first = NULL;
    for (int64_t i = 0; i < MARKS; i++) {
        struct mark *m = &w->mark[(w->at + i) % MARKS];
        if (!m->open)
            continue;
        if (!m->on_host && cudaEventQuery(m->done) != cudaErrorNotReady) {
            m->open = 0;
            w->progress = now;
        } else if (!first) {
            first = m;
        }
    }
    return first;
}

static void *look(void *arg)
{
    struct watch *w = arg;
    CUDA(cudaSetDevice(w->device));
    for (int ends = 0; !ends;) {
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        pthread_mutex_lock(&w->lock);
        double now = clock_s();
        const struct mark *m = oldest(w, now);
        if (m && now - MAX(m->since, w->progress) > w->deadline_s)
            die("rank %d: group %s of %d: %s is not done after %g s: another rank is late, lost, "
                "or makes other calls",
                w->rank, m->group, m->size, m->call, w->deadline_s);
        ends = w->ends;
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

struct watch *watch_open(const struct world *world)
{
    struct watch *w = xcalloc(1, sizeof *w);
    w->rank = world->rank;
    w->deadline_s = world->deadline_s;
    CUDA(cudaGetDevice(&w->device));
    pthread_mutex_init(&w->lock, NULL);
    if (pthread_create(&w->thread, NULL, look, w))
        die("no thread to watch NCCL with");
    return w;
}

void watch_close(struct watch *w)
{
    pthread_mutex_lock(&w->lock);
    w->ends = 1;
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    for (int64_t i = 0; i < MARKS; i++)
        if (w->mark[i].done)
            CUDA(cudaEventDestroy(w->mark[i].done));
    free(w);
}

/* NULL where so many are under way: this one is not watched, those before it are. */
static struct mark *take(struct watch *w, const struct comm *c, const char *call)
{
    struct mark *m = &w->mark[w->at++ % MARKS];
    if (m->open)
        return NULL;
    snprintf(m->group, sizeof m->group, "%s", c->name);
    m->size = c->size;
    m->call = call;
    m->since = clock_s();
    m->open = 1;
    return m;
}

void watch_queued(struct watch *w, const struct comm *c, cudaStream_t stream, const char *call)
{
    enum cudaStreamCaptureStatus capturing;
    CUDA(cudaStreamIsCapturing(stream, &capturing));
    if (capturing != cudaStreamCaptureStatusNone)
        return;
    pthread_mutex_lock(&w->lock);
    struct mark *m = take(w, c, call);
    if (m) {
        m->on_host = 0;
        if (!m->done)
            CUDA(cudaEventCreateWithFlags(&m->done, cudaEventDisableTiming));
        CUDA(cudaEventRecord(m->done, stream));
    }
    pthread_mutex_unlock(&w->lock);
}

struct mark *watch_begin(struct watch *w, const struct comm *c, const char *call)
{
    pthread_mutex_lock(&w->lock);
    struct mark *m = take(w, c, call);
    if (m)
        m->on_host = 1;
    pthread_mutex_unlock(&w->lock);
    return m;
}

void watch_end(struct watch *w, struct mark *m)
{
    pthread_mutex_lock(&w->lock);
    if (m)
        m->open = 0;
    pthread_mutex_unlock(&w->lock);
}
