/* dev_nocuda.c -- the device "cuda" in a build that has none. */
#include "dev/dev.h"

const char *dev_cuda_missing(void)
{
    return "this build has no CUDA; make CUDA=1";
}

const struct dev_ops *dev_cuda_open(void)
{
    die_misused("%s", dev_cuda_missing());
}
