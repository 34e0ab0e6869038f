// A GPU in one thread of the CPU: enough of CUDA's runtime to compile csrc/cuda with an ordinary compiler
// and to run every kernel as it is written. See fibers.h for how the threads of a block take turns.
//
// This header stands where CUDA's own would: the folder comes first among the include paths.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // blocks run one after another
#define __launch_bounds__(...)

// ---- types
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using std::max;
using std::min;

// ---- the host's side
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };
using cudaStream_t = struct EmulatedStream*;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

inline const char* cudaGetErrorName(cudaError_t) { return "emulated error"; }
inline const char* cudaGetErrorString(cudaError_t) { return "the emulated launch is not one that a GPU takes"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    return *value = which == cudaDevAttrComputeCapabilityMajor ? 9 : 0, cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
    emulation::permitted = static_cast<size_t>(bytes);
    return bytes <= 227 * 1024 ? cudaSuccess : cudaErrorInvalidConfiguration;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... given) {
    const dim3 grid = config->gridDim, block = config->blockDim;
    const size_t most = std::max(emulation::permitted, size_t(48 * 1024));
    emulation::permitted = 0;
    const bool fits = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x < 1u << 31 && grid.y < 1u << 16 &&
                      grid.z < 1u << 16 && block.x * block.y * block.z <= 1024 && config->dynamicSmemBytes <= most;
    if (!fits) return cudaErrorInvalidConfiguration;
    emulation::run(grid, block, config->dynamicSmemBytes, [&] { kernel(static_cast<Parameters>(given)...); });
    return cudaSuccess;
}

// ---- the threads' side
inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { emulation::exchange(0); }

template <class T>
T __shfl_sync(unsigned, T value, int from) {
    return emulation::exchange(value).template of<T>(from & 31);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulation::exchange(value).template of<T>(emulation::lane() ^ mask);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int by) {
    const int from = emulation::lane() + by;
    return emulation::exchange(value).template of<T>(from < 32 ? from : emulation::lane());
}

template <class T>
T __ldg(const T* at) {
    return *at;
}
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
