// Grouped convolution with few channels to a group, forward and the gradient by the input.
//
// The tiles of product_rows.h are 64 columns wide and would be mostly empty. Here a thread makes one output channel of
// four pixels, so that a weight that it reads serves four products; 64 neighbouring channels and four pixels make a
// block's row of threads, 16 pixels in all. Elements of x are shared by the channels of a group, which lie in one warp.
// Limited by loads, about one for each three multiply-adds, all from L1.

#include "cuda.h"
#include "rows.h"
#include "transpose.h"

namespace nnlite {
namespace cuda {

namespace {

constexpr int block_channels = 64, side_by_side = block_threads / block_channels, of_thread = 4;

using Problem = Rows<float, float, float>;

template <int width>
__global__ void __launch_bounds__(block_threads) grouped_rows(const Problem p) {
    __shared__ Axis down, across;
    if (threadIdx.x == 0) {
        down = p.down(int(blockIdx.z) / p.classes_across());
        across = p.across(int(blockIdx.z) % p.classes_across());
    }
    __syncthreads();
    const int channel = int(blockIdx.y) * block_channels + int(threadIdx.x) % block_channels;
    if (channel >= p.out_channels) return;
    const int first = int(blockIdx.x) * side_by_side * of_thread + int(threadIdx.x) / block_channels;
    const int total = p.batch * down.count * across.count, depth = p.depth_channels;
    const float* source = p.source + channel / p.columns * depth;
    const float* weights = p.weights + int64_t(channel) * int(p.g.R) * p.kernel_across * depth;

    int n[of_thread], i[of_thread], j[of_thread];
    float sums[of_thread] = {};
#pragma unroll
    for (int k = 0; k < of_thread; ++k) {
        const int at = first + k * side_by_side, line = at / across.count;
        n[k] = line / down.count, i[k] = line % down.count, j[k] = at % across.count;
    }
    for (int r = 0; r < down.taps; ++r)
        for (int s = 0; s < across.taps; ++s) {
            const int tap = (down.tap_first + r * down.tap_step) * p.kernel_across + across.tap_first + s * across.tap_step;
            const float* seen[of_thread];
#pragma unroll
            for (int k = 0; k < of_thread; ++k) {
                const int h = i[k] * down.step + down.base + r * down.reach;
                const int w = j[k] * across.step + across.base + s * across.reach;
                const bool inside = first + k * side_by_side < total && unsigned(h) < unsigned(p.height) &&
                                    unsigned(w) < unsigned(p.width);
                seen[k] = inside ? source + ((int64_t(n[k]) * p.height + h) * p.width + w) * p.source_channels : nullptr;
            }
            for (int c = 0; c < depth; c += width) {
                const auto weight = *reinterpret_cast<const Pack<float, width>*>(weights + tap * depth + c);
#pragma unroll
                for (int k = 0; k < of_thread; ++k) {
                    if (!seen[k]) continue;
                    const auto x = *reinterpret_cast<const Pack<float, width>*>(seen[k] + c);
#pragma unroll
                    for (int e = 0; e < width; ++e) sums[k] += x.at[e] * weight.at[e];
                }
            }
        }
    const auto to = p.destination(0, p.out_channels);
#pragma unroll
    for (int k = 0; k < of_thread; ++k) {
        float z[1] = {sums[k]};
        if (first + k * side_by_side < total) store_run(to, p.result_at(down, across, n[k], i[k], j[k]), channel, z, true);
    }
}

void run(const char* what, const Problem& p, cudaStream_t stream) {
    const bool four = p.depth_channels % 4 == 0 && aligned(p.source, 16) && aligned(p.weights, 16);
    const dim3 grid(unsigned(ceil_div(p.largest_class(), side_by_side * of_thread)),
                    unsigned(ceil_div(p.out_channels, block_channels)), unsigned(p.classes()));
    start({what, grid, block_threads, 0, stream}, four ? grouped_rows<4> : grouped_rows<1>, p);
}

}  // namespace

void conv2d_forward_grouped(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual,
                            float* y, cudaStream_t stream) {
    if (g.N) run("conv2d_forward", {g, false, x, w, bias, residual, y}, stream);
}

size_t conv2d_grad_input_grouped_workspace(const Conv2d& g) { return exchanged_bytes<float>(g); }

void conv2d_grad_input_grouped(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace,
                               cudaStream_t stream) {
    with_exchanged(g, w, workspace, stream, [&](const float* exchanged) {
        run("conv2d_grad_input", {g, true, gy, exchanged, nullptr, nullptr, gx}, stream);
    });
}

}  // namespace cuda
}  // namespace nnlite
