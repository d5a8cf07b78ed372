/* far.h -- what the files that carry memory of GPUs share. */
#ifndef FAR_H
#define FAR_H

#include "comm/engine.h"

#include <cuda_runtime.h>
#include <nccl.h>

static inline void far_ok(cudaError_t e, const char *call)
{
    if (e != cudaSuccess)
        die("%s: %s", call, cudaGetErrorString(e));
}
#define CUDA(call) far_ok(call, #call)

/* NCCL's communicator of a group's members for the calls of one lane; made by all of them at once.
 */
ncclComm_t far_clique(struct comm *c, const struct lane *l);
/* What has just been queued is to be done before the deadline.  What is captured is queued later.
 */
void far_queued(const struct comm *c, cudaStream_t stream, const char *call);

/* ---- watch_nccl.c: ends a job whose calls do not get done ---- */

struct watch;
struct mark;
struct watch *watch_open(const struct world *w);
void watch_close(struct watch *w);
void watch_queued(struct watch *w, const struct comm *c, cudaStream_t stream, const char *call);
/* The same of a call of the host's. */
struct mark *watch_begin(struct watch *w, const struct comm *c, const char *call);
void watch_end(struct watch *w, struct mark *m);

#endif
