// Softmax, cross-entropy and layer normalisation, which see rows [M,C] one by one.
//
// A warp takes a row and passes over it two or three times, from L1 after the first; lane l takes elements l, l + 32, ...
// Sums and maxima go from lane to lane by exclusive-or shuffles, after which every lane holds the same bits. Eight rows to
// a block. Limited by memory for rows of a thousand elements, by starting the kernel for the usual batch of short ones.
//
// Cross-entropy makes losses and gradient at once, so that probabilities are never stored. A label that is no class, which
// a host could refuse, gives a loss of NaN.

#include "channel_sums.h"
#include "cuda.h"

namespace nnlite {
namespace cuda {

namespace {

constexpr int rows_of_block = 8;

__device__ inline float sum_of_warp(float x) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) x += __shfl_xor_sync(~0u, x, mask);
    return x;
}
__device__ inline float largest_of_warp(float x) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, mask));
    return x;
}

struct Line {
    int row, lane;
    int64_t at;  // where the row begins
    bool exists;

    __device__ Line(int M, int C)
        : row(int(blockIdx.x) * rows_of_block + int(threadIdx.x) / 32), lane(int(threadIdx.x) % 32), at(int64_t(row) * C),
          exists(row < M) {}
};

// The largest element, and the logarithm of the sum of exp(x - largest). A NaN makes the latter one.
__device__ inline float largest_and_log_sum(const float* x, int C, int lane, float* log_sum) {
    float largest = -INFINITY, sum = 0;
    for (int c = lane; c < C; c += 32) largest = fmaxf(largest, x[c]);
    largest = largest_of_warp(largest);
    for (int c = lane; c < C; c += 32) sum += expf(x[c] - largest);
    *log_sum = logf(sum_of_warp(sum));
    return largest;
}

template <bool logarithm>
__global__ void __launch_bounds__(256) softmax(int M, int C, const float* x, float* y) {
    const Line line(M, C);
    if (!line.exists) return;
    float log_sum;
    const float largest = largest_and_log_sum(x + line.at, C, line.lane, &log_sum);
    const float inverse = logarithm ? 0 : expf(-log_sum);
    for (int c = line.lane; c < C; c += 32) {
        const float away = x[line.at + c] - largest;
        y[line.at + c] = logarithm ? away - log_sum : expf(away) * inverse;
    }
}

template <bool logarithm>
__global__ void __launch_bounds__(256) softmax_gradient(int M, int C, const float* gy, const float* y, float* gx) {
    const Line line(M, C);
    if (!line.exists) return;
    float sum = 0;
    for (int c = line.lane; c < C; c += 32) sum += logarithm ? gy[line.at + c] : gy[line.at + c] * y[line.at + c];
    sum = sum_of_warp(sum);
    for (int c = line.lane; c < C; c += 32) {
        const float g = gy[line.at + c], at = y[line.at + c];
        gx[line.at + c] = logarithm ? g - expf(at) * sum : at * (g - sum);
    }
}

// losses[m] = sum over c of share[c] l[c], l = -ln softmax; gradient = scale d losses.
__global__ void __launch_bounds__(256) cross_entropy_lines(int M, int C, const float* logits, const int64_t* labels,
                                                           const float* weight, float smoothing, float scale,
                                                           float* losses, float* gradient) {
    const Line line(M, C);
    if (!line.exists) return;
    const int64_t label = labels[line.row];
    const float each = smoothing / float(C);
    if (label < 0 || label >= C) {
        if (line.lane == 0) losses[line.row] = label < 0 ? 0 : NAN;
        for (int c = line.lane; gradient && c < C; c += 32) gradient[line.at + c] = label < 0 ? 0 : NAN;
        return;
    }
    float log_sum;
    const float* x = logits + line.at;
    const float largest = largest_and_log_sum(x, C, line.lane, &log_sum);
    const auto share_of = [&](int c) {
        const float mine = weight ? weight[c] : 1;
        return mine * each + (c == label ? (1 - smoothing) * mine : 0);
    };
    float loss = 0, all = 0;
    for (int c = line.lane; c < C; c += 32) {
        const float share = share_of(c);
        if (share != 0) loss -= share * (x[c] - largest - log_sum);  // an element of -infinity may have none
        all += share;
    }
    loss = sum_of_warp(loss);
    all = sum_of_warp(all);
    if (line.lane == 0) losses[line.row] = loss;
    for (int c = line.lane; gradient && c < C; c += 32)
        gradient[line.at + c] = scale * (expf(x[c] - largest - log_sum) * all - share_of(c));
}

__global__ void __launch_bounds__(256) layer_norm(int M, int C, float epsilon, const float* x, const float* weight,
                                                  const float* bias, float* y, float* mean, float* inv_std) {
    const Line line(M, C);
    if (!line.exists) return;
    float sum = 0, square = 0;
    for (int c = line.lane; c < C; c += 32) sum += x[line.at + c];
    const float centre = sum_of_warp(sum) / float(C);
    for (int c = line.lane; c < C; c += 32) {
        const float away = x[line.at + c] - centre;
        square += away * away;
    }
    const float scale = 1 / sqrtf(sum_of_warp(square) / float(C) + epsilon);
    for (int c = line.lane; c < C; c += 32) {
        const float normal = (x[line.at + c] - centre) * scale;
        y[line.at + c] = (weight ? normal * weight[c] : normal) + (bias ? bias[c] : 0);
    }
    if (line.lane == 0) {
        mean[line.row] = centre;
        inv_std[line.row] = scale;
    }
}

__global__ void __launch_bounds__(256) layer_norm_gx(int M, int C, const float* x, const float* gy, const float* weight,
                                                     const float* mean, const float* inv_std, float* gx) {
    const Line line(M, C);
    if (!line.exists) return;
    const float centre = mean[line.row], scale = inv_std[line.row];
    const auto weighted = [&](int c) { return weight ? gy[line.at + c] * weight[c] : gy[line.at + c]; };
    float sum = 0, dot = 0;
    for (int c = line.lane; c < C; c += 32) {
        const float g = weighted(c);
        sum += g;
        dot += g * ((x[line.at + c] - centre) * scale);
    }
    sum = sum_of_warp(sum) / float(C);
    dot = sum_of_warp(dot) / float(C);
    for (int c = line.lane; c < C; c += 32)
        gx[line.at + c] = scale * (weighted(c) - sum - (x[line.at + c] - centre) * scale * dot);
}

// gbias = sum gy, gweight = sum gy (x - mean) inv_std, mean and deviation being those of rows
struct LayerNormSums {
    const float *x, *gy, *mean, *inv_std;
    int C;
    template <int width>
    __device__ void at(int row, int channel, float (&sum)[width], float (&dot)[width]) const {
        const int64_t place = int64_t(row) * C + channel;
        const auto seen = *reinterpret_cast<const Pack<float, width>*>(x + place);
        const auto g = *reinterpret_cast<const Pack<float, width>*>(gy + place);
#pragma unroll
        for (int i = 0; i < width; ++i) {
            sum[i] += g.at[i];
            dot[i] += g.at[i] * ((seen.at[i] - mean[row]) * inv_std[row]);
        }
    }
};

template <class... Parameters, class... Arguments>
void run(const char* what, const Norm& g, cudaStream_t stream, void (*kernel)(int, int, Parameters...),
         Arguments... arguments) {
    if (g.M)
        start({what, dim3(unsigned(ceil_div(g.M, rows_of_block))), 32 * rows_of_block, 0, stream}, kernel, int(g.M), int(g.C),
              arguments...);
}

}  // namespace

void softmax_forward(const Norm& g, const float* x, float* y, cudaStream_t stream) {
    run("softmax_forward", g, stream, softmax<false>, x, y);
}
void log_softmax_forward(const Norm& g, const float* x, float* y, cudaStream_t stream) {
    run("log_softmax_forward", g, stream, softmax<true>, x, y);
}
void softmax_backward(const Norm& g, const float* gy, const float* y, float* gx, cudaStream_t stream) {
    run("softmax_backward", g, stream, softmax_gradient<false>, gy, y, gx);
}
void log_softmax_backward(const Norm& g, const float* gy, const float* y, float* gx, cudaStream_t stream) {
    run("log_softmax_backward", g, stream, softmax_gradient<true>, gy, y, gx);
}

void cross_entropy(const Norm& g, const float* logits, const int64_t* labels, const float* weight, float smoothing,
                   float scale, float* losses, float* gradient, cudaStream_t stream) {
    run("cross_entropy", g, stream, cross_entropy_lines, logits, labels, weight, smoothing, scale, losses, gradient);
}

void layer_norm_forward(const Norm& g, double epsilon, const float* x, const float* weight, const float* bias, float* y,
                        float* mean, float* inv_std, cudaStream_t stream) {
    run("layer_norm_forward", g, stream, layer_norm, float(epsilon), x, weight, bias, y, mean, inv_std);
}

void layer_norm_backward(const Norm& g, const float* x, const float* gy, const float* weight, const float* mean,
                         const float* inv_std, float* gx, float* gweight, float* gbias, void* workspace,
                         cudaStream_t stream) {
    if (gx) run("layer_norm_backward", g, stream, layer_norm_gx, x, gy, weight, mean, inv_std, gx);
    const bool four = g.C % 4 == 0 && aligned(x, 16) && aligned(gy, 16);
    if (gweight || gbias)
        sum_down("layer_norm_backward", g.M, g.C, four, LayerNormSums{x, gy, mean, inv_std, int(g.C)}, gbias, gweight,
                 workspace, stream);
}

}  // namespace cuda
}  // namespace nnlite
