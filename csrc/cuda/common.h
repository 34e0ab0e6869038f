// What every CUDA file needs: launches, element types, activations.
#pragma once

#include "../include/params.h"
#include "ptx.h"
#include "types.h"

namespace nnlite {
namespace cuda {

// ---- the host's side

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a kernel is started: shape of the grid, threads of a block, bytes of dynamic shared memory, and where.
struct Launch {
    const char* what;  // for errors
    dim3 grid;
    unsigned threads;
    size_t shared;
    cudaStream_t stream;
};

template <class... Parameters, class... Arguments>
void start(const Launch& launch, void (*kernel)(Parameters...), Arguments... arguments) {
    if (launch.shared > 48 * 1024)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(launch.shared)),
              launch.what);
    cudaLaunchConfig_t config = {};
    config.gridDim = launch.grid;
    config.blockDim = dim3(launch.threads);
    config.dynamicSmemBytes = launch.shared;
    config.stream = launch.stream;
    check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), launch.what);
}

inline bool aligned(const void* pointer, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// ---- element types: float, and numbers of 16 bits that are only stored as such

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Half x) { return ptx::from_half(x.bits); }
__device__ inline float to_float(BFloat16 x) { return ptx::from_bfloat16(x.bits); }
__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(Half* to, float x) { to->bits = ptx::to_half(x); }
__device__ inline void store(BFloat16* to, float x) { to->bits = ptx::to_bfloat16(x); }

// Elements that are read and written at once.
template <class T, int count>
struct alignas(sizeof(T) * count) Pack {
    T at[count];
};

// ---- activations

__device__ inline float activate(const Activation& act, float z) {
    if (act.kind == no_activation) return z;
    z = z < act.low ? act.low : z;  // written so that a NaN stays one
    return act.kind == clamp_activation && z > act.high ? act.high : z;
}

}  // namespace cuda
}  // namespace nnlite
