/* far.h -- what comm_nccl.c shares with window_nccl.cu. */
#ifndef FAR_H
#define FAR_H

#include "comm/engine.h"

#include <cuda_runtime.h>
#include <nccl.h>

/* NCCL's communicator of a group's members for the calls of one lane; made by all of them at once.
 */
ncclComm_t far_clique(struct comm *c, const struct lane *l);
/* What has just been queued is to be done before the deadline.  What is captured is queued later.
 */
void far_queued(const struct comm *c, cudaStream_t stream, const char *call);

#endif
