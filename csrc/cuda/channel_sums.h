// Sums down the rows of [M,C], two for each channel, of whatever a visitor makes of the elements.
//
// A block takes 64 channels, 16 threads of four each (64 of one where the channels do not come in fours), and a range of
// rows, 16 at a time: a warp reads runs of 256 bytes. Its sums stay in registers, meet in shared memory and go to the
// workspace; a second kernel adds up the ranges in order. No atomics: the same bits every time. How rows are cut follows
// from the geometry alone. Limited by memory.
#pragma once

#include "common.h"

namespace nnlite {
namespace cuda {

constexpr int sum_channels = 64, sum_threads = 256;

// Ranges of rows: four blocks for each of 132 processors, as far as every range keeps 64 rows.
struct Ranges {
    int count, rows;

    Ranges(int64_t M, int64_t C) {
        int64_t ranges = ceil_div(528, ceil_div(C, sum_channels));
        if (ranges > ceil_div(M, 64)) ranges = ceil_div(M, 64);
        if (ranges < 1) ranges = 1;
        rows = int(ceil_div(M, ranges));
        count = rows ? int(ceil_div(M, rows)) : 1;
    }
};

inline size_t channel_sums_workspace(int64_t M, int64_t C) {
    return sizeof(float) * size_t(ceil_div(2 * Ranges(M, C).count * C, 4) * 4);
}

// visitor.template at<width>(row, channel, first, second) adds to its sums; partial is [ranges][2][C].
template <int width, class Visitor>
__global__ void __launch_bounds__(sum_threads) sum_channels_kernel(int M, int C, int rows, const Visitor visitor,
                                                                   float* partial) {
    constexpr int lanes = sum_channels / width, side_by_side = sum_threads / lanes;
    __shared__ float shared[2][side_by_side][sum_channels];
    const int lane = int(threadIdx.x) % lanes * width, line = int(threadIdx.x) / lanes;
    const int channel = int(blockIdx.x) * sum_channels + lane, begin = int(blockIdx.y) * rows;
    float first[width] = {}, second[width] = {};
    if (channel < C)
        for (int row = begin + line; row < min(begin + rows, M); row += side_by_side)
            visitor.template at<width>(row, channel, first, second);
#pragma unroll
    for (int i = 0; i < width; ++i) {
        shared[0][line][lane + i] = first[i];
        shared[1][line][lane + i] = second[i];
    }
    __syncthreads();
    const int which = int(threadIdx.x) / sum_channels, mine = int(threadIdx.x) % sum_channels;
    const int to = int(blockIdx.x) * sum_channels + mine;
    if (which > 1 || to >= C) return;
    float sum = 0;
    for (int i = 0; i < side_by_side; ++i) sum += shared[which][i][mine];
    partial[(int64_t(blockIdx.y) * 2 + which) * C + to] = sum;
}

template <class T>
__global__ void __launch_bounds__(256) add_ranges(int C, int ranges, const float* partial, T* first, T* second) {
    const int c = int(blockIdx.x) * 256 + int(threadIdx.x);
    if (c >= C) return;
    float sums[2] = {};
    for (int i = 0; i < ranges; ++i)
        for (int which = 0; which < 2; ++which) sums[which] += partial[(int64_t(i) * 2 + which) * C + c];
    if (first) first[c] = sums[0];
    if (second) second[c] = sums[1];
}

// first and second [C] may be null. `four`: channels in fours, and the visitor's arrays aligned to 16 bytes.
template <class Visitor>
void sum_down(const char* what, int64_t M, int64_t C, bool four, const Visitor& visitor, float* first, float* second,
              void* workspace, cudaStream_t stream) {
    const Ranges ranges(M, C);
    float* partial = static_cast<float*>(workspace);
    const dim3 grid(unsigned(ceil_div(C, sum_channels)), unsigned(ranges.count));
    start({what, grid, sum_threads, 0, stream}, four ? sum_channels_kernel<4, Visitor> : sum_channels_kernel<1, Visitor>,
          int(M), int(C), ranges.rows, visitor, partial);
    start({what, dim3(unsigned(ceil_div(C, 256))), 256, 0, stream}, add_ranges<float>, int(C), ranges.count, partial, first,
          second);
}

}  // namespace cuda
}  // namespace nnlite
