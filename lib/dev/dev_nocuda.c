/* dev_nocuda.c -- the device "cuda" in a build that has none. */
#include "dev/dev.h"

const struct dev_ops *dev_cuda_open(void)
{
    die_misused("this build has no CUDA; make CUDA=1");
}
