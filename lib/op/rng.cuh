/* rng.cuh -- base/rng.c on the device: the same bits from the same key and counter. */
#ifndef RNG_CUH
#define RNG_CUH

#include <stdint.h>

static __device__ __forceinline__ uint4 rng_bits_of(uint64_t key, uint64_t hi, uint64_t lo)
{
    uint32_t c0 = (uint32_t)lo, c1 = (uint32_t)(lo >> 32);
    uint32_t c2 = (uint32_t)hi, c3 = (uint32_t)(hi >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

/* rng_round_bf16(), of a number that is finite; the bf16 is the upper half. */
static __device__ __forceinline__ uint32_t rng_round(float x, uint32_t bits)
{
    return __float_as_uint(x) + (bits & 0xffff);
}

#endif
