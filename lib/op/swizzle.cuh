/* swizzle.cuh -- where tiles lie in shared memory, as ptx.cuh says wgmma reads them. */
#ifndef SWIZZLE_CUH
#define SWIZZLE_CUH

#include <stdint.h>

/* Dynamic shared memory from the first multiple of 1024 on. */
static __device__ __forceinline__ char *shared_tiles()
{
    extern __shared__ char memory[];
    return (char *)(((uintptr_t)memory + 1023) & ~(uintptr_t)1023);
}

/* Where chunk `part` (16 bytes) of row r lies in a tile of swizzled rows. */
static __device__ __forceinline__ int swizzled(int r, int part)
{
    return r * 128 + ((part ^ (r & 7)) << 4);
}

#endif
