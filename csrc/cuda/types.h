// Numbers of 16 bits that are only stored as such, and refused calls: what the host knows of the kernels' world.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

#include <stdexcept>
#include <string>

namespace nnlite {
namespace cuda {

struct Half {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

inline void check(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return;
    cudaGetLastError();  // else whoever asks next would be told of it again
    throw std::runtime_error(std::string(what) + ": CUDA says " + cudaGetErrorName(code) + ", " +
                             cudaGetErrorString(code));
}

}  // namespace cuda
}  // namespace nnlite
