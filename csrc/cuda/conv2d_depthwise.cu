// Depthwise convolution: one input and one output channel to a group; forward, and both gradients.
//
// Nothing is worth a matrix product here: with 3x3 taps there are 18 operations for every 8 bytes that must come from
// and go to memory, so memory is the limit, 3.35 TB/s on an H100, and what counts is that neighbours in memory are
// neighbours in a warp. A block takes 64 channels: 16 threads of four channels each (64 of one where the channels do not
// come in fours) for 16 pixels at a time, four times. Taps of one pixel are the next pixel's too: all but the first read
// of an element come from L1. The weights of the 64 channels lie in shared memory, taps outside, channels inside.
//
// The gradient by the input is the same kernel on the classes of windows.h. That by the weights cuts the pixels into
// splits: a block sums up one row of taps for 64 channels in registers, 16 pixels side by side, and adds these up in
// order through shared memory; sum_splits then adds up the splits. No atomics.

#include "cuda.h"
#include "product_columns.h"
#include "rows.h"

namespace nnlite {
namespace cuda {

namespace {

constexpr int block_channels = 64, rounds = 4;
constexpr int most_taps_across = 8;  // of the gradient by the weights: sums in registers

using Problem = Rows<float, float, float>;

template <int width>
__global__ void __launch_bounds__(block_threads) depthwise_rows(const Problem p, bool whole) {
    constexpr int lanes = block_channels / width, pixels = block_threads / lanes;
    __shared__ Axis down, across;
    float* weights = reinterpret_cast<float*>(ptx::dynamic_shared());  // [taps][64]
    const int first = int(blockIdx.y) * block_channels, taps = int(p.g.R) * p.kernel_across;
    if (threadIdx.x == 0) {
        down = p.down(int(blockIdx.z) / p.classes_across());
        across = p.across(int(blockIdx.z) % p.classes_across());
    }
    for (int i = threadIdx.x; i < taps * block_channels; i += block_threads) {
        const int channel = i / taps, tap = i % taps;
        weights[tap * block_channels + channel] = first + channel < p.out_channels ? p.weights[first * taps + i] : 0;
    }
    __syncthreads();

    const int lane = int(threadIdx.x) % lanes * width, channel = first + lane;
    if (channel >= p.out_channels) return;
    const auto to = p.destination(0, p.out_channels);
    for (int round = 0; round < rounds; ++round) {
        const int at = (int(blockIdx.x) * rounds + round) * pixels + int(threadIdx.x) / lanes;
        if (at >= p.batch * down.count * across.count) return;
        const int line = at / across.count, n = line / down.count, i = line % down.count, j = at % across.count;
        const int top = i * down.step + down.base, left = j * across.step + across.base;
        float z[width] = {};
        for (int r = 0; r < down.taps; ++r) {
            const int h = top + r * down.reach;
            if (unsigned(h) >= unsigned(p.height)) continue;
            const float* row = p.source + (int64_t(n) * p.height + h) * p.width * p.source_channels + channel;
            const float* taps_of_row = weights + (down.tap_first + r * down.tap_step) * p.kernel_across * block_channels;
            for (int s = 0; s < across.taps; ++s) {
                const int w = left + s * across.reach;
                if (unsigned(w) >= unsigned(p.width)) continue;
                const auto x = *reinterpret_cast<const Pack<float, width>*>(row + w * p.source_channels);
                const auto tap = *reinterpret_cast<const Pack<float, width>*>(
                    taps_of_row + (across.tap_first + s * across.tap_step) * block_channels + lane);
#pragma unroll
                for (int c = 0; c < width; ++c) z[c] += x.at[c] * tap.at[c];
            }
        }
        store_run(to, p.result_at(down, across, n, i, j), channel, z, whole);
    }
}

void run_rows(const char* what, const Problem& p, cudaStream_t stream) {
    const bool four = p.out_channels % 4 == 0 && aligned(p.source, 16) && aligned(p.out, 16) && aligned(p.residual, 16);
    const int64_t pixels = rounds * block_threads / (four ? block_channels / 4 : block_channels);
    const dim3 grid(unsigned(ceil_div(p.largest_class(), pixels)), unsigned(ceil_div(p.out_channels, block_channels)),
                    unsigned(p.classes()));
    const size_t shared = sizeof(float) * block_channels * size_t(p.g.taps());
    start({what, grid, block_threads, shared, stream}, four ? depthwise_rows<4> : depthwise_rows<1>, p, four);
}

template <int width>
__global__ void __launch_bounds__(block_threads) depthwise_columns(const Columns<float> p) {
    constexpr int lanes = block_channels / width, side_by_side = block_threads / lanes;
    __shared__ float partial[side_by_side][block_channels];
    const int lane = int(threadIdx.x) % lanes * width, channel = int(blockIdx.x) * block_channels + lane;
    const int r = int(blockIdx.y), split = int(blockIdx.z);
    const int begin = split * p.of_split, end = min(begin + p.of_split, p.pixels);
    float sums[most_taps_across][width] = {};
    int pixel = begin + int(threadIdx.x) / lanes;
    int q = pixel % p.out_width, line = pixel / p.out_width;
    if (channel >= p.channels) pixel = end;
    for (; pixel < end; pixel += side_by_side) {
        const int n = line / p.out_height, h = line % p.out_height * p.stride_h - p.pad_top + r * p.dilation_h;
        const int left = q * p.stride_w - p.pad_left;
        if (unsigned(h) < unsigned(p.height)) {
            const auto gy = *reinterpret_cast<const Pack<float, width>*>(p.gy + pixel * p.out_channels + channel);
            const float* row = p.x + (int64_t(n) * p.height + h) * p.width * p.channels + channel;
#pragma unroll
            for (int s = 0; s < most_taps_across; ++s) {
                const int w = left + s * p.dilation_w;
                if (s >= p.taps_across || unsigned(w) >= unsigned(p.width)) continue;
                const auto x = *reinterpret_cast<const Pack<float, width>*>(row + w * p.channels);
#pragma unroll
                for (int c = 0; c < width; ++c) sums[s][c] += x.at[c] * gy.at[c];
            }
        }
        for (q += side_by_side; q >= p.out_width; q -= p.out_width) ++line;
    }
#pragma unroll
    for (int s = 0; s < most_taps_across; ++s) {
        if (s >= p.taps_across) break;
        __syncthreads();
        for (int c = 0; c < width; ++c) partial[threadIdx.x / lanes][lane + c] = sums[s][c];
        __syncthreads();
        const int mine = int(blockIdx.x) * block_channels + int(threadIdx.x);
        if (threadIdx.x < block_channels && mine < p.channels) {
            float sum = 0;
            for (int i = 0; i < side_by_side; ++i) sum += partial[i][threadIdx.x];
            p.sums[(int64_t(split) * p.channels + mine) * p.columns + r * p.taps_across + s] = sum;
        }
    }
}

// Four blocks for each of 132 processors, as far as every split keeps 256 pixels.
Cut cut_depthwise(const Conv2d& g) {
    const int64_t blocks = ceil_div(g.C, block_channels) * g.R, pixels = g.N * g.P * g.Q;
    int64_t splits = ceil_div(528, blocks);
    if (splits > ceil_div(pixels, 256)) splits = ceil_div(pixels, 256);
    if (splits < 1) splits = 1;
    const int64_t of_split = ceil_div(pixels, splits);
    return {false, pixels ? ceil_div(pixels, of_split) : 1, of_split};
}

}  // namespace

void conv2d_forward_depthwise(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual,
                              float* y, cudaStream_t stream) {
    if (g.N) run_rows("conv2d_forward", {g, false, x, w, bias, residual, y}, stream);
}

void conv2d_grad_input_depthwise(const Conv2d& g, const float* gy, const float* w, float* gx, void*,
                                 cudaStream_t stream) {
    if (g.N) run_rows("conv2d_grad_input", {g, true, gy, w, nullptr, nullptr, gx}, stream);
}

size_t conv2d_grad_input_depthwise_workspace(const Conv2d&) { return 0; }

size_t conv2d_grad_weight_depthwise_workspace(const Conv2d& g) {
    return sizeof(float) * size_t(ceil_div(cut_depthwise(g).splits * g.C * g.taps(), 4) * 4);
}

void conv2d_grad_weight_depthwise(const Conv2d& g, const float* x, const float* gy, float* gw, void* workspace,
                                  cudaStream_t stream) {
    const Cut cut = cut_depthwise(g);
    Columns<float> p(g, x, gy);
    p.splits = int(cut.splits);
    p.of_split = int(cut.of_split);
    p.sums = static_cast<float*>(workspace);
    const dim3 grid(unsigned(ceil_div(g.C, block_channels)), unsigned(g.R), unsigned(p.splits));
    const bool four = g.C % 4 == 0 && aligned(x, 16) && aligned(gy, 16);
    start({"conv2d_grad_weight", grid, block_threads, 0, stream}, four ? depthwise_columns<4> : depthwise_columns<1>, p);
    const int size = int(g.C * g.taps());
    start({"conv2d_grad_weight", dim3(unsigned(ceil_div(size, 256))), 256, 0, stream}, sum_splits<float>, size, p.splits,
          p.sums, gw);
}

}  // namespace cuda
}  // namespace nnlite
