// The instructions that CUDA C++ has no words for, each behind a function with a name: asynchronous copies,
// matrix fragments, products of a warp, conversions. Nothing else in this folder holds assembly.
//
// Source: NVIDIA, Parallel Thread Execution ISA, the sections on cp.async, ldmatrix and mma. Before sm_80 copies
// are ordinary ones and products of a warp do not exist: those kernels are never chosen there.
#ifndef NNLITE_CUDA_PTX_H
#define NNLITE_CUDA_PTX_H

#include <cuda_runtime.h>
#include <stdint.h>

namespace nnlite {
namespace ptx {

__device__ inline char* dynamic_shared() {
    extern __shared__ uint4 memory[];
    return reinterpret_cast<char*>(memory);
}

__device__ inline unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// ---- asynchronous copies from global to shared memory, past the registers; zeros where `valid` is false

template <int bytes>
__device__ inline void copy_async(void* to, const void* from, bool valid) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "what cp.async takes");
#if __CUDA_ARCH__ >= 800
    const int there = valid ? bytes : 0;
    if (bytes == 16)  // past L1: what a block shares it shares in shared memory
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(bytes),
                     "r"(there));
#else
    for (int i = 0; i < bytes / 4; ++i)
        static_cast<unsigned*>(to)[i] = valid ? static_cast<const unsigned*>(from)[i] : 0;
#endif
}

// Ends a group of copies; wait_for_copies<n> waits until at most the n youngest groups are still open.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int still_open>
__device__ inline void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(still_open) : "memory");
#endif
}

// ---- four matrices of 8 rows of 16 bytes: lane l gets word l % 4 of row l / 4 of each; lanes 8 i to 8 i + 7 name the
// rows of matrix i. Transposed, of elements of 16 bits: lane l gets elements 2 (l % 4) and the next of column l / 4.

__device__ inline void load_matrices(unsigned (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ inline void load_matrices_transposed(unsigned (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// ---- products of a warp on tensor cores: D[16 x 8] += A[16 x depth] B[depth x 8], sums in float32.
// Lane l holds D's row l / 4 (d[0], d[1]) and row l / 4 + 8 (d[2], d[3]), columns 2 (l % 4) and the next.

#if __CUDA_ARCH__ >= 800
#define NNLITE_MULTIPLY(instruction)                                                                            \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                   \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
#define NNLITE_MULTIPLY(instruction) __trap()
#endif
__device__ inline void multiply_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {  // depth 8
    NNLITE_MULTIPLY("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
}
__device__ inline void multiply_half(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {  // depth 16
    NNLITE_MULTIPLY("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
}
__device__ inline void multiply_bfloat16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {  // depth 16
    NNLITE_MULTIPLY("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
}
#undef NNLITE_MULTIPLY

// ---- conversions, to the nearest

// The tensor cores would cut off what TF32 (8 bits of exponent, 10 of fraction) does not hold.
__device__ inline unsigned round_to_tf32(unsigned bits) {
#if __CUDA_ARCH__ >= 800
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
#else
    return bits;
#endif
}
// Two float32 numbers, given by their bits, as bfloat16 in one word, the first in its lower half.
__device__ inline unsigned pack_bfloat16(unsigned low, unsigned high) {
#if __CUDA_ARCH__ >= 800
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(__uint_as_float(high)), "f"(__uint_as_float(low)));
    return packed;
#else
    return low >> 16 | (high & 0xFFFF0000);
#endif
}
__device__ inline float from_half(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
__device__ inline uint16_t to_half(float x) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ inline float from_bfloat16(uint16_t bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
__device__ inline uint16_t to_bfloat16(float x) {
    if (!(x == x)) return 0x7FFF;
    const unsigned bits = __float_as_uint(x);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace ptx
}  // namespace nnlite

#endif
