/* rng.c -- Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, SC 2011).
 *
 * Ten rounds of multiply and xor turn key and counter into 128 random bits.  There is no state. */
#include "base.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>

uint64_t rng_key(uint64_t seed, const char *label)
{
    return XXH3_64bits_withSeed(label, strlen(label), seed);
}

void rng_bits(uint32_t out[4], uint64_t key, uint64_t counter_hi, uint64_t counter_lo)
{
    uint32_t c0 = (uint32_t)counter_lo, c1 = (uint32_t)(counter_lo >> 32);
    uint32_t c2 = (uint32_t)counter_hi, c3 = (uint32_t)(counter_hi >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9; /* the golden ratio */
        k1 += 0xBB67AE85; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* 53 bits of two words as a number in (0, 1): the one value that would be 0 becomes 2^-54. */
static double unit(uint32_t low, uint32_t high)
{
    uint64_t x = ((uint64_t)high << 32 | low) >> 11;
    return x ? (double)x * 0x1p-53 : 0x1p-54;
}

double rng_uniform(uint64_t key, uint64_t hi, uint64_t lo)
{
    uint32_t r[4];
    rng_bits(r, key, hi, lo);
    return unit(r[0], r[1]);
}

double rng_normal(uint64_t key, uint64_t hi, uint64_t lo)
{
    uint32_t r[4];
    rng_bits(r, key, hi, lo);
    return sqrt(-2 * log(unit(r[0], r[1]))) * cos(6.283185307179586 * unit(r[2], r[3]));
}

int64_t rng_permute(uint64_t key, int64_t n, int64_t i)
{
    assert(0 <= i && i < n);
    int half = 1; /* bits in each half of a Feistel block; the smallest 4^half >= n */
    while (half < 32 && 1ull << 2 * half < (uint64_t)n)
        half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)i;
    /* A permutation of 0..4^half-1, followed until it is back below n: again a permutation, and in
     * fewer than four steps on average. */
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 8; round++) {
            uint32_t r[4];
            rng_bits(r, key, round, right);
            uint64_t mixed = left ^ (r[0] & mask);
            left = right;
            right = mixed;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
