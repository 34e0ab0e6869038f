// Weights for the gradient by the input: [groups][K/groups][taps][C/groups] to [groups][C/groups][taps][K/groups], so
// that the gradient's depth, the output channels, are runs in memory as the input channels are in the forward pass.
// A copy of the weights costs their bytes twice; the product reads them once for every tile of pixels.
//
// 32 x 32 elements at a time through shared memory, both sides in runs of 32; a row of the tile is one element longer,
// so that a column of it lies in different banks.
#pragma once

#include "common.h"

namespace nnlite {
namespace cuda {

template <class T>
__global__ void __launch_bounds__(256) exchange_channels_kernel(int outputs, int inputs, int taps, const T* from, T* to) {
    __shared__ T tile[32][33];
    const int group = int(blockIdx.z) / taps, tap = int(blockIdx.z) % taps;
    const int column = threadIdx.x % 32, first = threadIdx.x / 32;
    const int64_t start = int64_t(group) * outputs * inputs * taps;
    for (int i = first; i < 32; i += 8) {
        const int k = blockIdx.y * 32 + i, c = blockIdx.x * 32 + column;
        if (k < outputs && c < inputs) tile[i][column] = from[start + (int64_t(k) * taps + tap) * inputs + c];
    }
    __syncthreads();
    for (int i = first; i < 32; i += 8) {
        const int c = blockIdx.x * 32 + i, k = blockIdx.y * 32 + column;
        if (k < outputs && c < inputs) to[start + (int64_t(c) * taps + tap) * outputs + k] = tile[column][i];
    }
}

template <class T>
size_t exchanged_bytes(const Conv2d& g) {
    return size_t(ceil_div(int64_t(sizeof(T)) * g.K * g.group_C() * g.taps(), 16) * 16);
}

template <class T>
void exchange_channels(const char* what, const Conv2d& g, const T* from, T* to, cudaStream_t stream) {
    const dim3 grid(unsigned(ceil_div(g.group_C(), 32)), unsigned(ceil_div(g.group_K(), 32)), unsigned(g.groups * g.taps()));
    start({what, grid, 256, 0, stream}, exchange_channels_kernel<T>, int(g.group_K()), int(g.group_C()), int(g.taps()), from, to);
}

// A gradient by the input: run(exchanged weights), where there are pictures.
template <class T, class Run>
void with_exchanged(const Conv2d& g, const T* w, void* workspace, cudaStream_t stream, const Run& run) {
    if (!g.N) return;
    T* exchanged = static_cast<T*>(workspace);
    exchange_channels("conv2d_grad_input", g, w, exchanged, stream);
    run(exchanged);
}

}  // namespace cuda
}  // namespace nnlite
