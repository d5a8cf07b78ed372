/* ptx.cuh -- all inline PTX: copies into shared memory, barriers between roles of a block, and the
 * Hopper matrix instruction wgmma.
 *
 * Shared tiles are rows of 128 bytes (64 bf16), 1024-byte aligned, with the 16-byte chunk c of row
 * r at chunk c ^ (r % 8): the 128-byte swizzle that wgmma reads without bank conflicts.  A matrix
 * wider than 64 is several such blocks.  The same tile serves as an operand along either direction:
 * with its rows as M or N and its columns as K, or (transposed) with its rows as K. */
#ifndef PTX_CUH
#define PTX_CUH

#include <cuda_bf16.h>
#include <stdint.h>

static __device__ __forceinline__ uint32_t shared_addr(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- kernels that overlap (launch_early in dev.cuh) ---- */

/* Lets the next kernel come, once all blocks of this one have said so or left. */
static __device__ __forceinline__ void call_next()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
/* Waits until the kernels before this one have finished. */
static __device__ __forceinline__ void await_turn()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
/* A kernel that calls the next at once may have several come behind it, each with its first weights
 * in registers when its turn is there.  So before its turn a kernel reads what no kernel has
 * written since the last that was not launched early: weights, and what the host has put there. */
static __device__ __forceinline__ void call_and_wait()
{
    call_next();
    await_turn();
}
/* Calls the next only when its own turn is there: what that one reads before its turn may be all
 * that was written before this one. */
static __device__ __forceinline__ void take_turn()
{
    await_turn();
    call_next();
}

/* ---- asynchronous copies of 16 bytes; bytes 0 writes zeros ---- */

static __device__ __forceinline__ void copy16(uint32_t dst, const void *src, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void copy4(uint32_t dst, const void *src, int bytes)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void copies_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until all but the N newest groups of this thread are there. */
template <int N>
static __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/* Ordinary writes to shared memory become visible to wgmma. */
static __device__ __forceinline__ void fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- barriers in shared memory ---- */

static __device__ __forceinline__ void barrier_init(uint64_t *b, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_addr(b)), "r"(arrivals)
                 : "memory");
}
static __device__ __forceinline__ void barrier_arrive(uint64_t *b)
{
    asm volatile("{ .reg .b64 s; mbarrier.arrive.shared::cta.b64 s, [%0]; }" ::"r"(shared_addr(b))
                 : "memory");
}
/* Arrives, and makes the phase wait for this many bytes of bulk copies too. */
static __device__ __forceinline__ void barrier_arrive_bytes(uint64_t *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_addr(b)),
                 "r"(bytes)
                 : "memory");
}
/* Counts this thread as arrived when all copies of 16 bytes it has begun are there. */
static __device__ __forceinline__ void copies_arrive(uint64_t *b)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_addr(b))
                 : "memory");
}
/* Until the phase of this parity is complete. */
static __device__ __forceinline__ void barrier_wait(uint64_t *b, int parity)
{
    asm volatile("{\n .reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 " @!done bra again;\n}" ::"r"(shared_addr(b)),
                 "r"(parity)
                 : "memory");
}
/* A box of a tensor (CUDA's tensor map, three dimensions) from element (z, y, x) on; its bytes
 * arrive at barrier b. */
static __device__ __forceinline__ void copy_box(uint32_t dst, const void *map, int x, int y, int z,
                                                uint64_t *b)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(dst),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_addr(b))
                 : "memory");
}
/* The same to all BLOCKS of the cluster, in the same place and with the same barrier in each. */
template <int BLOCKS>
static __device__ __forceinline__ void copy_box_to_all(uint32_t dst, const void *map, int x, int y,
                                                       int z, uint64_t *b)
{
    if (BLOCKS == 1)
        copy_box(dst, map, x, y, z, b);
    else
        asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                     ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(dst),
                     "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_addr(b)),
                     "h"((uint16_t)((1 << BLOCKS) - 1))
                     : "memory");
}
/* Arrives at the barrier in this place of a block of the cluster.  Without words on memory: with
 * .release.cluster it would wait for all stores of the thread. */
static __device__ __forceinline__ void barrier_arrive_at(uint64_t *b, int block)
{
    asm volatile("{ .reg .b32 there;\n mapa.shared::cluster.u32 there, %0, %1;\n"
                 " mbarrier.arrive.shared::cluster.b64 _, [there]; }" ::"r"(shared_addr(b)),
                 "r"(block)
                 : "memory");
}
static __device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\n barrier.cluster.wait.acquire;" ::: "memory");
}
/* 1 in one thread of a warp, whose threads are all here. */
static __device__ __forceinline__ int elected()
{
    int mine;
    asm volatile("{ .reg .pred p;\n elect.sync _|p, 0xffffffff;\n selp.b32 %0, 1, 0, p; }"
                 : "=r"(mine));
    return mine;
}

/* A barrier among some warps of a block. */
static __device__ __forceinline__ void named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* The part in it of warps that do not wait. */
static __device__ __forceinline__ void named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int N>
static __device__ __forceinline__ void registers_less()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
static __device__ __forceinline__ void registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma: a warpgroup's 64 rows ---- */

/* Of a tile of swizzled rows.  blocks: bytes between blocks of 64 columns, where those are M or N.
 */
static __device__ __forceinline__ uint64_t tile_desc(uint32_t addr, int blocks)
{
    return (uint64_t)((addr & 0x3ffff) >> 4) | (uint64_t)(blocks >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
static __device__ __forceinline__ void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N>
static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Operands that are a thread's sums from d[i] on. */
#define SUMS8(i)                                                                                   \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS32(i) SUMS8(i), SUMS8(i + 8), SUMS8(i + 16), SUMS8(i + 24)

/* d (64,N) = or += a (64,16) b (16,N).  Thread t of the warpgroup has, of row t / 32 * 16 + t % 32
 * / 4 + 8 h and columns 8 j + t % 4 * 2 + {0, 1}, d[4 j + 2 h + {0, 1}].  AT, BT: the operand's
 * rows are K. */
template <int AT, int BT>
static __device__ __forceinline__ void wgmma64(float *d, uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, p, 1, 1, %35, %36;\n}"
                 : SUMS32(0)
                 : "l"(a), "l"(b), "r"(add), "n"(AT), "n"(BT));
}
template <int AT, int BT>
static __device__ __forceinline__ void wgmma128(float *d, uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, p, 1, 1, %67, %68;\n}"
                 : SUMS32(0), SUMS32(32)
                 : "l"(a), "l"(b), "r"(add), "n"(AT), "n"(BT));
}
template <int AT, int BT>
static __device__ __forceinline__ void wgmma192(float *d, uint64_t a, uint64_t b, int add)
{
    asm volatile(
        "{\n .reg .pred p;\n setp.ne.b32 p, %98, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
        "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
        "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
        "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
        "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
        "%87, %88, %89, %90, %91, %92, %93, %94, %95}, "
        "%96, %97, p, 1, 1, %99, %100;\n}"
        : SUMS32(0), SUMS32(32), SUMS32(64)
        : "l"(a), "l"(b), "r"(add), "n"(AT), "n"(BT));
}
template <int BT>
static __device__ __forceinline__ void wgmma64_regs(float *d, const uint32_t *a, uint64_t b,
                                                    int add)
{
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
                 : SUMS32(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(BT));
}
template <int BT>
static __device__ __forceinline__ void wgmma128_regs(float *d, const uint32_t *a, uint64_t b,
                                                     int add)
{
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}"
                 : SUMS32(0), SUMS32(32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(BT));
}

template <int N, int AT, int BT>
static __device__ __forceinline__ void wgmma(float *d, uint64_t a, uint64_t b, int add)
{
    if constexpr (N == 64)
        wgmma64<AT, BT>(d, a, b, add);
    else if constexpr (N == 128)
        wgmma128<AT, BT>(d, a, b, add);
    else
        wgmma192<AT, BT>(d, a, b, add);
}
template <int N, int BT>
static __device__ __forceinline__ void wgmma_regs(float *d, const uint32_t *a, uint64_t b, int add)
{
    if constexpr (N == 64)
        wgmma64_regs<BT>(d, a, b, add);
    else
        wgmma128_regs<BT>(d, a, b, add);
}

/* ---- mma: a warp's 16 rows, operands in registers ---- */

/* d (16,8) += a (16,16) b (16,8).  Lane l has, of rows l / 4 and l / 4 + 8 of d, columns l % 4 * 2
 * + {0, 1}; of the same rows of a, and of column l / 4 of b, k = l % 4 * 2 + {0, 1} and these + 8.
 * The order of k is the caller's, as long as a and b agree. */
static __device__ __forceinline__ void mma16(float *d, uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of bf16 as mma leaves them, v[i] the lane's pair of matrix i; to: where row
 * lane % 8 of matrix lane / 8 goes. */
static __device__ __forceinline__ void store_matrices(uint32_t to, const uint32_t *v)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                 "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
static __device__ __forceinline__ uint4 load_shared(uint32_t from)
{
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(from)
                 : "memory");
    return x;
}

/* 16 bytes that are read once: they do not stay in L1.  Not by the path for what never changes
 * (.nc): the compiler would move that past a kernel's turn. */
static __device__ __forceinline__ uint4 load_once(const void *p)
{
    uint4 x;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(p)
                 : "memory");
    return x;
}

/* *p += (a, b), without waiting.  Where every element is added to once, the result is as exact and
 * as repeatable as a load, an add and a store. */
static __device__ __forceinline__ void add2(float *p, float a, float b)
{
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(p), "f"(a), "f"(b) : "memory");
}

/* Two floats as neighbouring bf16, the first in the low half. */
static __device__ __forceinline__ uint32_t pack2(float a, float b)
{
    uint32_t x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(b), "f"(a));
    return x;
}

/* In four instructions, with a relative error of 4e-6 at most (at x = -87; below 1e-6 to -8). */
static __device__ __forceinline__ float sigmoid_near(float x)
{
    float y;
    asm("{ .reg .f32 t;\n mul.ftz.f32 t, %1, 0fBFB8AA3B;\n" /* - log2 e */
        " ex2.approx.ftz.f32 t, t;\n add.ftz.f32 t, t, 0f3F800000;\n rcp.approx.ftz.f32 %0, t; }"
        : "=f"(y)
        : "f"(x));
    return y;
}

/* The root within an ulp or two, in one instruction. */
static __device__ __forceinline__ float sqrt_near(float x)
{
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
