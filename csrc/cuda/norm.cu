// Batch normalisation with the activation that follows and the residual between them, on rows [M,C]: forward, backward,
// in training and with running statistics; and the sum of each channel.
//
// Training forward reads x twice: once for mean and deviation, once to apply them. The mean and the sum of squared
// distances from it are merged from parts (Chan, Golub and LeVeque 1983): no difference of large sums, whatever the mean.
// Backward reads x and gy (and y, where the activation is seen from it) twice: once for the two sums of each channel,
// once for gx. Everything else stays in registers; an activation never costs a pass of its own. Limited by memory:
// 12 bytes an element forward and 20 backward, at 3.35 TB/s on an H100. How sums are cut: channel_sums.h.
//
// Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167

#include "channel_sums.h"
#include "cuda.h"

namespace nnlite {
namespace cuda {

namespace {

template <int width>
__device__ inline Pack<float, width> load(const float* from) {
    return *reinterpret_cast<const Pack<float, width>*>(from);
}

// ---- mean and deviation

struct Moments {
    float count, mean, square;  // square: the sum of squared distances from the mean

    __device__ void merge(const Moments& other) {
        if (other.count == 0) return;
        const float total = count + other.count, away = other.mean - mean;
        mean += away * (other.count / total);
        square += other.square + away * away * (count * other.count / total);
        count = total;
    }
};

// partial [ranges][2][C]: mean and square of a range of rows
template <int width>
__global__ void __launch_bounds__(sum_threads) moments(int M, int C, int rows, const float* x, float* partial) {
    constexpr int lanes = sum_channels / width, side_by_side = sum_threads / lanes;
    __shared__ float means[side_by_side][sum_channels], squares[side_by_side][sum_channels];
    const int lane = int(threadIdx.x) % lanes * width, line = int(threadIdx.x) / lanes;
    const int channel = int(blockIdx.x) * sum_channels + lane, begin = int(blockIdx.y) * rows, end = min(begin + rows, M);
    const auto of_line = [&](int at) { return float(max(0, (end - begin - at + side_by_side - 1) / side_by_side)); };
    Pack<float, width> centre = {};  // the first of what a thread sees: near the others
    float sum[width] = {}, square[width] = {};
    if (channel < C && begin + line < end) {
        centre = load<width>(x + int64_t(begin + line) * C + channel);
        for (int row = begin + line + side_by_side; row < end; row += side_by_side) {
            const auto seen = load<width>(x + int64_t(row) * C + channel);
#pragma unroll
            for (int i = 0; i < width; ++i) {
                const float away = seen.at[i] - centre.at[i];
                sum[i] += away;
                square[i] += away * away;
            }
        }
    }
    const float count = of_line(line);
#pragma unroll
    for (int i = 0; i < width; ++i) {
        const float away = count > 0 ? sum[i] / count : 0;
        means[line][lane + i] = centre.at[i] + away;
        squares[line][lane + i] = square[i] - away * sum[i];
    }
    __syncthreads();
    const int mine = int(blockIdx.x) * sum_channels + int(threadIdx.x);
    if (threadIdx.x >= sum_channels || mine >= C) return;
    Moments all = {0, 0, 0};
    for (int i = 0; i < side_by_side; ++i) all.merge({of_line(i), means[i][threadIdx.x], squares[i][threadIdx.x]});
    partial[int64_t(blockIdx.y) * 2 * C + mine] = all.mean;
    partial[(int64_t(blockIdx.y) * 2 + 1) * C + mine] = all.square;
}

__global__ void __launch_bounds__(256) finish_moments(int M, int C, int ranges, int rows, float epsilon,
                                                      const float* partial, float* mean, float* inv_std) {
    const int c = int(blockIdx.x) * 256 + int(threadIdx.x);
    if (c >= C) return;
    Moments all = {0, 0, 0};
    for (int i = 0; i < ranges; ++i)
        all.merge({float(min(rows, M - i * rows)), partial[int64_t(i) * 2 * C + c], partial[(int64_t(i) * 2 + 1) * C + c]});
    mean[c] = all.mean;
    inv_std[c] = 1 / sqrtf(max(all.square, 0.0f) / float(M) + epsilon);
}

// ---- y = act((x - mean) scale [inv_std] + shift + residual); mean and inv_std may be null

struct Apply {
    const float *x, *mean, *inv_std, *scale, *shift, *residual;
    Activation act;
    float* y;
};

template <int width>
__global__ void __launch_bounds__(256) apply(unsigned threads, unsigned C, const Apply p) {
    const unsigned at = blockIdx.x * 256 + threadIdx.x, c = at % (C / width) * width;
    if (at >= threads) return;
    const auto x = load<width>(p.x + at * width);
    Pack<float, width> residual = {}, y;
    if (p.residual) residual = load<width>(p.residual + at * width);
#pragma unroll
    for (int i = 0; i < width; ++i) {
        const float centred = p.mean ? x.at[i] - p.mean[c + i] : x.at[i];
        const float scale = p.inv_std ? p.scale[c + i] * p.inv_std[c + i] : p.scale[c + i];
        y.at[i] = activate(p.act, centred * scale + p.shift[c + i] + residual.at[i]);
    }
    *reinterpret_cast<Pack<float, width>*>(p.y + at * width) = y;
}

void run_apply(const char* what, const Norm& g, const Apply& p, cudaStream_t stream) {
    const bool four = g.C % 4 == 0 && aligned(p.x, 16) && aligned(p.y, 16) && aligned(p.residual, 16);
    const int64_t threads = g.M * g.C / (four ? 4 : 1);
    if (threads)
        start({what, dim3(unsigned(ceil_div(threads, 256))), 256, 0, stream}, four ? apply<4> : apply<1>,
              unsigned(threads), unsigned(g.C), p);
}

// ---- backward

// What all of the gradients are made of: g = gy where the activation lets it pass.
struct Gradient {
    const float *x, *gy, *y, *mean, *inv_std;
    const float *centre, *factor, *scale, *shift;  // z = (x - centre) factor scale + shift; centre and factor may be null
    Activation act;
    int C;
    float *gx, *gresidual;  // written while the sums are made; gx = g scale

    __device__ float gate(float g, float seen, bool from_y) const {
        if (act.kind == relu_activation) return seen <= 0 ? 0 : g;
        const bool passes = from_y ? seen > act.low && seen < act.high : seen >= act.low && seen <= act.high;
        return passes ? g : 0;
    }
    template <int width>
    __device__ Pack<float, width> passed(int64_t at, int channel, const Pack<float, width>& seen_x) const {
        auto g = load<width>(gy + at);
        if (act.kind == no_activation) return g;
        if (y) {
            const auto seen = load<width>(y + at);
#pragma unroll
            for (int i = 0; i < width; ++i) g.at[i] = gate(g.at[i], seen.at[i], true);
            return g;
        }
#pragma unroll
        for (int i = 0; i < width; ++i) {
            const int c = channel + i;
            const float slope = factor ? scale[c] * factor[c] : scale[c];
            const float centred = centre ? seen_x.at[i] - centre[c] : seen_x.at[i];
            g.at[i] = gate(g.at[i], centred * slope + shift[c], false);
        }
        return g;
    }
    template <int width>
    __device__ void at(int row, int channel, float (&sum)[width], float (&dot)[width]) const {
        const int64_t place = int64_t(row) * C + channel;
        const auto seen = load<width>(x + place);
        const auto g = passed(place, channel, seen);
        if (gresidual) *reinterpret_cast<Pack<float, width>*>(gresidual + place) = g;
        Pack<float, width> scaled;
#pragma unroll
        for (int i = 0; i < width; ++i) {
            sum[i] += g.at[i];
            dot[i] += g.at[i] * ((seen.at[i] - mean[channel + i]) * inv_std[channel + i]);
            scaled.at[i] = g.at[i] * scale[channel + i];
        }
        if (gx) *reinterpret_cast<Pack<float, width>*>(gx + place) = scaled;
    }
};

// gx = weight inv_std (g - gbias / M - xhat gweight / M)
template <int width>
__global__ void __launch_bounds__(256) training_gx(unsigned threads, float inverse_M, const Gradient p, const float* gweight,
                                                   const float* gbias, float* gx) {
    const unsigned at = blockIdx.x * 256 + threadIdx.x;
    const int channel = int(at % unsigned(p.C / width)) * width;
    if (at >= threads) return;
    const auto x = load<width>(p.x + at * width);
    // The sums have left g in gresidual, where somebody wants that: one array instead of gy and y.
    auto g = p.gresidual ? load<width>(p.gresidual + at * width) : p.passed(at * width, channel, x);
#pragma unroll
    for (int i = 0; i < width; ++i) {
        const int c = channel + i;
        const float normalised = (x.at[i] - p.mean[c]) * p.inv_std[c];
        g.at[i] = p.scale[c] * p.inv_std[c] * (g.at[i] - gbias[c] * inverse_M - normalised * (gweight[c] * inverse_M));
    }
    *reinterpret_cast<Pack<float, width>*>(gx + at * width) = g;
}

bool in_fours(const Gradient& p) {
    return p.C % 4 == 0 && aligned(p.x, 16) && aligned(p.gy, 16) && aligned(p.y, 16) && aligned(p.gx, 16) &&
           aligned(p.gresidual, 16);
}

struct ChannelSum {
    const float* x;
    int C;
    template <int width>
    __device__ void at(int row, int channel, float (&sum)[width], float (&)[width]) const {
        const auto seen = load<width>(x + int64_t(row) * C + channel);
#pragma unroll
        for (int i = 0; i < width; ++i) sum[i] += seen.at[i];
    }
};

}  // namespace

void batch_norm_training_forward(const Norm& g, double epsilon, const float* x, const float* weight, const float* bias,
                                 const float* residual, float* y, float* mean, float* inv_std, void* workspace,
                                 cudaStream_t stream) {
    const char* what = "batch_norm_training_forward";
    const Ranges ranges(g.M, g.C);
    float* partial = static_cast<float*>(workspace);
    const bool four = g.C % 4 == 0 && aligned(x, 16);
    start({what, dim3(unsigned(ceil_div(g.C, sum_channels)), unsigned(ranges.count)), sum_threads, 0, stream},
          four ? moments<4> : moments<1>, int(g.M), int(g.C), ranges.rows, x, partial);
    start({what, dim3(unsigned(ceil_div(g.C, 256))), 256, 0, stream}, finish_moments, int(g.M), int(g.C), ranges.count,
          ranges.rows, float(epsilon), partial, mean, inv_std);
    run_apply(what, g, {x, mean, inv_std, weight, bias, residual, g.act, y}, stream);
}

void batch_norm_training_backward(const Norm& g, const float* x, const float* gy, const float* y, const float* weight,
                                  const float* bias, const float* mean, const float* inv_std, float* gx, float* gweight,
                                  float* gbias, float* gresidual, void* workspace, cudaStream_t stream) {
    const char* what = "batch_norm_training_backward";
    const Gradient p = {x,     gy,      y,      mean, inv_std, mean,   inv_std,
                        weight, bias, g.act, int(g.C), nullptr, gresidual};
    const bool four = in_fours(p) && aligned(gx, 16);
    sum_down(what, g.M, g.C, four, p, gbias, gweight, workspace, stream);
    const int64_t threads = g.M * g.C / (four ? 4 : 1);
    if (gx && threads)
        start({what, dim3(unsigned(ceil_div(threads, 256))), 256, 0, stream}, four ? training_gx<4> : training_gx<1>,
              unsigned(threads), float(1.0 / double(g.M)), p, gweight, gbias, gx);
}

void batch_norm_inference_forward(const Norm& g, const float* x, const float* mean, const float* scale,
                                  const float* shift, const float* residual, float* y, cudaStream_t stream) {
    run_apply("batch_norm_inference_forward", g, {x, mean, nullptr, scale, shift, residual, g.act, y}, stream);
}

void batch_norm_inference_backward(const Norm& g, const float* x, const float* gy, const float* y, const float* scale,
                                   const float* shift, const float* mean, const float* inv_std, float* gx, float* gweight,
                                   float* gbias, float* gresidual, void* workspace, cudaStream_t stream) {
    const Gradient p = {x,     gy,    y,     mean,     inv_std, nullptr,  nullptr,
                        scale, shift, g.act, int(g.C), gx,      gresidual};
    sum_down("batch_norm_inference_backward", g.M, g.C, in_fours(p), p, gbias, gweight, workspace, stream);
}

void channel_sum(const Norm& g, const float* x, float* total, void* workspace, cudaStream_t stream) {
    const bool four = g.C % 4 == 0 && aligned(x, 16);
    sum_down("channel_sum", g.M, g.C, four, ChannelSum{x, int(g.C)}, total, nullptr, workspace, stream);
}

size_t norm_workspace(const Norm& g) { return channel_sums_workspace(g.M, g.C); }

}  // namespace cuda
}  // namespace nnlite
