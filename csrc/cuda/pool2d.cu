// Maximum and average pooling, forward and backward.
//
// A thread makes four neighbouring channels of one pixel (one where channels do not come in fours), so that a warp reads
// and writes runs of 512 bytes. Windows overlap in L1; what is read from memory once is what counts: pooling does about
// one operation for each element and is limited by memory.
//
// Backward nothing is scattered: a pixel of gx looks at the windows that may hold it, and adds up the gy of those that
// do, in order. So there are no atomics, and the same bits come every time. For the maximum "hold" means that the window's
// index names the pixel, for the average that its distance is a multiple of the dilation.

#include "cuda.h"
#include "common.h"

namespace nnlite {
namespace cuda {

namespace {

struct Pool {
    int N, C, H, W, R, S, P, Q, stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right, dilation_h, dilation_w,
        count_include_pad;

    explicit Pool(const Pool2d& g)
        : N(int(g.N)), C(int(g.C)), H(int(g.H)), W(int(g.W)), R(int(g.R)), S(int(g.S)), P(int(g.P)), Q(int(g.Q)),
          stride_h(int(g.stride_h)), stride_w(int(g.stride_w)), pad_top(int(g.pad_top)), pad_left(int(g.pad_left)),
          pad_bottom(int(g.pad_bottom)), pad_right(int(g.pad_right)), dilation_h(int(g.dilation_h)),
          dilation_w(int(g.dilation_w)), count_include_pad(int(g.count_include_pad)) {}
};

// A thread's place: (n, i, j) of a picture of height x width pixels, first of its channels.
template <int width>
struct Place {
    int n, i, j, c;
    bool exists;

    __device__ Place(int batch, int height, int width_, int channels) {
        const unsigned groups = channels / width, at = blockIdx.x * 256 + threadIdx.x;
        const int pixel = int(at / groups);
        exists = pixel < batch * height * width_;
        c = int(at % groups) * width;
        j = pixel % width_;
        i = pixel / width_ % height;
        n = pixel / width_ / height;
    }
};

// First tap of a window beginning at `start` that lies at `begin` or later.
__device__ inline int first_tap(int start, int begin, int dilation) {
    return start >= begin ? 0 : (begin - start + dilation - 1) / dilation;
}
// How many taps from the first on lie before `end`.
__device__ inline int past_tap(int start, int end, int dilation, int taps) {
    return start >= end ? 0 : min(taps, (end - start + dilation - 1) / dilation);
}

// Elements that the window beginning at (top, left) averages over.
__device__ inline int counted(const Pool& p, int top, int left) {
    const bool padded = p.count_include_pad;
    const int h_begin = padded ? -p.pad_top : 0, h_end = padded ? p.H + p.pad_bottom : p.H;
    const int w_begin = padded ? -p.pad_left : 0, w_end = padded ? p.W + p.pad_right : p.W;
    const int rows = past_tap(top, h_end, p.dilation_h, p.R) - first_tap(top, h_begin, p.dilation_h);
    const int columns = past_tap(left, w_end, p.dilation_w, p.S) - first_tap(left, w_begin, p.dilation_w);
    return max(rows, 0) * max(columns, 0);
}

template <bool maximum, int width>
__global__ void __launch_bounds__(256) pool_forward(const Pool p, const float* x, float* y, int* indices) {
    const Place<width> at(p.N, p.P, p.Q, p.C);
    if (!at.exists) return;
    const int top = at.i * p.stride_h - p.pad_top, left = at.j * p.stride_w - p.pad_left;
    const int r_end = past_tap(top, p.H, p.dilation_h, p.R), s_begin = first_tap(left, 0, p.dilation_w);
    const int s_end = past_tap(left, p.W, p.dilation_w, p.S);
    Pack<float, width> best = {};
    Pack<int, width> where = {};
    bool first = true;
    for (int r = first_tap(top, 0, p.dilation_h); r < r_end; ++r)
        for (int s = s_begin; s < s_end; ++s) {
            const int h = top + r * p.dilation_h, w = left + s * p.dilation_w;
            const auto seen = *reinterpret_cast<const Pack<float, width>*>(
                x + ((int64_t(at.n) * p.H + h) * p.W + w) * p.C + at.c);
#pragma unroll
            for (int c = 0; c < width; ++c) {
                if (!maximum) {
                    best.at[c] += seen.at[c];
                } else if (first || seen.at[c] > best.at[c] || (seen.at[c] != seen.at[c] && best.at[c] == best.at[c])) {
                    best.at[c] = seen.at[c];
                    where.at[c] = h * p.W + w;
                }
            }
            first = false;
        }
    if (!maximum) {
        const float count = float(counted(p, top, left));
#pragma unroll
        for (int c = 0; c < width; ++c) best.at[c] /= count;
    }
    const int64_t to = ((int64_t(at.n) * p.P + at.i) * p.Q + at.j) * p.C + at.c;
    *reinterpret_cast<Pack<float, width>*>(y + to) = best;
    if (indices) *reinterpret_cast<Pack<int, width>*>(indices + to) = where;
}

template <bool maximum, int width>
__global__ void __launch_bounds__(256) pool_backward(const Pool p, const float* gy, const int* indices, float* gx) {
    const Place<width> at(p.N, p.H, p.W, p.C);
    if (!at.exists) return;
    // Windows i that reach over the pixel: i stride - pad <= h <= i stride - pad + (taps - 1) dilation.
    const int h = at.i + p.pad_top, w = at.j + p.pad_left, mine = at.i * p.W + at.j;
    const int i_begin = max(0, h - (p.R - 1) * p.dilation_h + p.stride_h - 1) / p.stride_h;
    const int j_begin = max(0, w - (p.S - 1) * p.dilation_w + p.stride_w - 1) / p.stride_w;
    const int i_end = min(p.P - 1, h / p.stride_h), j_end = min(p.Q - 1, w / p.stride_w);
    Pack<float, width> sum = {};
    for (int i = i_begin; i <= i_end; ++i) {
        if (!maximum && (h - i * p.stride_h) % p.dilation_h) continue;
        for (int j = j_begin; j <= j_end; ++j) {
            if (!maximum && (w - j * p.stride_w) % p.dilation_w) continue;
            const int64_t from = ((int64_t(at.n) * p.P + i) * p.Q + j) * p.C + at.c;
            const auto gradient = *reinterpret_cast<const Pack<float, width>*>(gy + from);
            if (maximum) {
                const auto index = *reinterpret_cast<const Pack<int, width>*>(indices + from);
#pragma unroll
                for (int c = 0; c < width; ++c) sum.at[c] += index.at[c] == mine ? gradient.at[c] : 0;
            } else {
                const float count = float(counted(p, i * p.stride_h - p.pad_top, j * p.stride_w - p.pad_left));
#pragma unroll
                for (int c = 0; c < width; ++c) sum.at[c] += gradient.at[c] / count;
            }
        }
    }
    *reinterpret_cast<Pack<float, width>*>(gx + ((int64_t(at.n) * p.H + at.i) * p.W + at.j) * p.C + at.c) = sum;
}

template <bool maximum>
void run_forward(const char* what, const Pool2d& g, const float* x, float* y, int32_t* indices, cudaStream_t stream) {
    const bool four = g.C % 4 == 0 && aligned(x, 16) && aligned(y, 16) && aligned(indices, 16);
    const int64_t threads = g.N * g.P * g.Q * (four ? g.C / 4 : g.C);
    if (!threads) return;
    start({what, dim3(unsigned(ceil_div(threads, 256))), 256, 0, stream},
          four ? pool_forward<maximum, 4> : pool_forward<maximum, 1>, Pool(g), x, y, indices);
}

template <bool maximum>
void run_backward(const char* what, const Pool2d& g, const float* gy, const int32_t* indices, float* gx,
                  cudaStream_t stream) {
    const bool four = g.C % 4 == 0 && aligned(gy, 16) && aligned(gx, 16) && aligned(indices, 16);
    const int64_t threads = g.N * g.H * g.W * (four ? g.C / 4 : g.C);
    if (!threads) return;
    start({what, dim3(unsigned(ceil_div(threads, 256))), 256, 0, stream},
          four ? pool_backward<maximum, 4> : pool_backward<maximum, 1>, Pool(g), gy, indices, gx);
}

}  // namespace

void max_pool2d_forward(const Pool2d& g, const float* x, float* y, int32_t* indices, cudaStream_t stream) {
    run_forward<true>("max_pool2d_forward", g, x, y, indices, stream);
}
void max_pool2d_backward(const Pool2d& g, const float* gy, const int32_t* indices, float* gx, cudaStream_t stream) {
    run_backward<true>("max_pool2d_backward", g, gy, indices, gx, stream);
}
void avg_pool2d_forward(const Pool2d& g, const float* x, float* y, cudaStream_t stream) {
    run_forward<false>("avg_pool2d_forward", g, x, y, nullptr, stream);
}
void avg_pool2d_backward(const Pool2d& g, const float* gy, float* gx, cudaStream_t stream) {
    run_backward<false>("avg_pool2d_backward", g, gy, nullptr, gx, stream);
}

}  // namespace cuda
}  // namespace nnlite
