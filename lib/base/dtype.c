/* dtype.c -- element types and conversion between the floating ones.
 *
 * Everything goes through double, which holds each of the others exactly, so a value is rounded
 * once.  F32 <-> BF16, the traffic of checkpoints, has a path of its own.  Elements are read and
 * written by memcpy: a tensor in a foreign file need not be aligned. */
#include "base.h"

#include <string.h>

static const struct {
    const char *name;
    int64_t size;
} types[DT_COUNT] = {
    [DT_BOOL] = {"BOOL", 1}, [DT_U8] = {"U8", 1},           [DT_I8] = {"I8", 1},
    [DT_I16] = {"I16", 2},   [DT_U16] = {"U16", 2},         [DT_F16] = {"F16", 2},
    [DT_BF16] = {"BF16", 2}, [DT_I32] = {"I32", 4},         [DT_U32] = {"U32", 4},
    [DT_F32] = {"F32", 4},   [DT_I64] = {"I64", 8},         [DT_U64] = {"U64", 8},
    [DT_F64] = {"F64", 8},   [DT_F8_E4M3] = {"F8_E4M3", 1}, [DT_F8_E5M2] = {"F8_E5M2", 1},
};

int64_t dtype_size(enum dtype t)
{
    return types[t].size;
}

const char *dtype_name(enum dtype t)
{
    return types[t].name;
}

int dtype_parse(const char *s, size_t len)
{
    for (int t = 0; t < DT_COUNT; t++)
        if (strlen(types[t].name) == len && !memcmp(types[t].name, s, len))
            return t;
    return -1;
}

/* The 16-bit float of so many exponent and mantissa bits that is nearest to x, ties to even. */
static uint16_t narrow(double x, int exponent_bits, int mantissa_bits)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    uint64_t sign = u >> 63 << 15, mantissa = u & ((1ull << 52) - 1);
    int e = (int)(u >> 52 & 0x7ff) - 1023, least = 2 - (1 << (exponent_bits - 1));
    uint64_t infinity = ((1ull << exponent_bits) - 1) << mantissa_bits;
    if (e == 1024 && mantissa)
        return (uint16_t)(sign | infinity | 1ull << (mantissa_bits - 1) |
                          mantissa >> (52 - mantissa_bits));
    if (e > 1 - least)
        return (uint16_t)(sign | infinity);
    int drop = 52 - mantissa_bits + MAX(0, least - e); /* bits below the last one kept */
    if (drop > 54)
        return (uint16_t)sign;
    uint64_t s = mantissa | 1ull << 52, kept = s >> drop, rest = s & ((1ull << drop) - 1);
    uint64_t half = 1ull << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    /* The hidden bit adds one to the exponent field, as a carry does; subnormals have neither. */
    if (e >= least)
        kept += (uint64_t)(e - least) << mantissa_bits;
    return (uint16_t)(sign | MIN(kept, infinity));
}

static double widen_f16(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double x;
    if (e == 0) {
        x = m * 0x1p-24;
    } else {
        uint64_t u = (uint64_t)(e == 31 ? 0x7ff : e - 15 + 1023) << 52 | (uint64_t)m << 42;
        memcpy(&x, &u, 8);
    }
    return h >> 15 ? -x : x;
}

static float widen_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static void to_double(double *dst, const char *src, enum dtype from, int64_t n)
{
    uint16_t h;
    float f;
    if (from == DT_F64)
        memcpy(dst, src, (size_t)n * 8);
    else if (from == DT_F32)
        for (int64_t i = 0; i < n; i++) {
            memcpy(&f, src + 4 * i, 4);
            dst[i] = (double)f;
        }
    else
        for (int64_t i = 0; i < n; i++) {
            memcpy(&h, src + 2 * i, 2);
            dst[i] = from == DT_F16 ? widen_f16(h) : (double)widen_bf16(h);
        }
}

static void from_double(char *dst, enum dtype to, const double *src, int64_t n)
{
    if (to == DT_F64)
        memcpy(dst, src, (size_t)n * 8);
    else if (to == DT_F32)
        for (int64_t i = 0; i < n; i++) {
            float f = (float)src[i];
            memcpy(dst + 4 * i, &f, 4);
        }
    else
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = to == DT_F16 ? narrow(src[i], 5, 10) : narrow(src[i], 8, 7);
            memcpy(dst + 2 * i, &h, 2);
        }
}

static void f32_to_bf16(char *dst, const char *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + 4 * i, 4);
        int nan = (u & 0x7fffffff) > 0x7f800000;
        uint16_t h = (uint16_t)(nan ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
        memcpy(dst + 2 * i, &h, 2);
    }
}

static void bf16_to_f32(char *dst, const char *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        uint32_t u = (uint32_t)h << 16;
        memcpy(dst + 4 * i, &u, 4);
    }
}

static int is_real(enum dtype t)
{
    return t == DT_F64 || t == DT_F32 || t == DT_BF16 || t == DT_F16;
}

void dtype_convert(void *dst, enum dtype to, const void *src, enum dtype from, int64_t n)
{
    enum { CHUNK = 512 };
    double chunk[CHUNK];
    if (!is_real(to) || !is_real(from))
        die("cannot convert %s to %s", dtype_name(from), dtype_name(to));
    if (n == 0)
        return;
    if (to == from) {
        memmove(dst, src, (size_t)(n * dtype_size(to)));
    } else if (from == DT_F32 && to == DT_BF16) {
        f32_to_bf16(dst, src, n);
    } else if (from == DT_BF16 && to == DT_F32) {
        bf16_to_f32(dst, src, n);
    } else {
        for (int64_t i = 0; i < n; i += CHUNK) {
            int64_t m = MIN(CHUNK, n - i);
            to_double(chunk, (const char *)src + i * dtype_size(from), from, m);
            from_double((char *)dst + i * dtype_size(to), to, chunk, m);
        }
    }
}
