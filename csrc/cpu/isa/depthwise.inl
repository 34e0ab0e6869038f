// Depthwise convolution of any shape: vectors run along channels, a run of pixels shares each weight that is
// loaded. What networks use most has its own kernels in depthwise_band.inl.

namespace nnlite {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int depthwise_run = 8;  // pixels
#else
constexpr int depthwise_run = 4;
#endif

// Q pixels from pixel 0 on, NV vectors of channels from c on, of which `left` elements exist.
template <int Q, int NV>
NNLITE_INLINE void depthwise_block(const DepthwiseRow& t, int64_t pixel, int64_t c, int64_t left) {
    vec acc[Q][NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
        const vec bias = t.bias ? load_upto(t.bias + c + v * VL, left - v * VL) : vec{};
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) acc[q][v] = bias;
    }
    for (int64_t tap = 0; tap < t.taps; ++tap) {
        const float* x = t.source[tap] + pixel * t.step + c;
        const float* w = t.w[tap] + c;
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            const vec weight = load_upto(w + v * VL, left - v * VL);
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q)
                acc[q][v] = fma(load_upto(x + q * t.step + v * VL, left - v * VL), weight, acc[q][v]);
        }
    }
    const Bounds bounds(t.act);
    const int64_t out = pixel * t.out_step + c;
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            const int64_t at = out + q * t.out_step + v * VL;
            vec sum = acc[q][v];
            if (t.residual) sum += load_upto(t.residual + at, left - v * VL);
            store_upto(t.out + at, bounds.within(sum), left - v * VL);
        }
}

template <int Q>
NNLITE_INLINE void depthwise_channels(const DepthwiseRow& t, int64_t pixel) {
    constexpr int NV = depthwise_run / Q < 4 ? depthwise_run / Q : 4;
    int64_t c = 0;
    for (; c + NV * VL <= t.channels; c += NV * VL) depthwise_block<Q, NV>(t, pixel, c, NV * VL);
    for (; c < t.channels; c += VL) depthwise_block<Q, 1>(t, pixel, c, t.channels - c < VL ? t.channels - c : VL);
}

// The outputs of one channel lie side by side, those of one multiplier index do not: store one by one.
void depthwise_multiplied(const DepthwiseRow& t) {
    const Bounds bounds(t.act);
    for (int64_t q = 0; q < t.pixels; ++q)
        for (int64_t c = 0; c < t.channels; c += VL) {
            const int64_t left = t.channels - c < VL ? t.channels - c : VL;
            for (int64_t m = 0; m < t.multiplier; ++m) {
                vec sum = {};
                for (int64_t tap = 0; tap < t.taps; ++tap) {
                    const vec x = load_upto(t.source[tap] + q * t.step + c, left);
                    sum = fma(x, load_upto(t.w[tap] + m * t.multiplier_step + c, left), sum);
                }
                const int64_t k = c * t.multiplier + m, out = q * t.out_step + k;
                for (int i = 0; i < left; ++i) {
                    if (t.bias) sum[i] += t.bias[k + i * t.multiplier];
                    if (t.residual) sum[i] += t.residual[out + i * t.multiplier];
                }
                sum = bounds.within(sum);
                for (int i = 0; i < left; ++i) t.out[out + i * t.multiplier] = sum[i];
            }
        }
}

void depthwise_row(const DepthwiseRow& t) {
    if (t.multiplier > 1) return depthwise_multiplied(t);
    int64_t pixel = 0;
    for (; pixel + depthwise_run <= t.pixels; pixel += depthwise_run) depthwise_channels<depthwise_run>(t, pixel);
    for (; pixel < t.pixels; ++pixel) depthwise_channels<1>(t, pixel);
}

// ---- weight gradient: the same runs of pixels, with the products summed over them

template <int Q>
NNLITE_INLINE void depthwise_grad_block(const DepthwiseGradRow& t, int64_t pixel, int64_t c, int64_t left) {
    vec gy[Q];
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) gy[q] = load_upto(t.gy + (pixel + q) * t.channels + c, left);
    for (int64_t tap = 0; tap < t.taps; ++tap) {
        const float* x = t.source[tap] + pixel * t.step + c;
        vec sum = load_upto(t.sums[tap] + c, left);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) sum = fma(load_upto(x + q * t.step, left), gy[q], sum);
        store_upto(t.sums[tap] + c, sum, left);
    }
}

template <int Q>
NNLITE_INLINE void depthwise_grad_channels(const DepthwiseGradRow& t, int64_t pixel) {
    for (int64_t c = 0; c < t.channels; c += VL) {
        const int64_t left = t.channels - c;
        if (left >= VL)
            depthwise_grad_block<Q>(t, pixel, c, VL);
        else
            depthwise_grad_block<Q>(t, pixel, c, left);
    }
}

void depthwise_grad_row(const DepthwiseGradRow& t) {
    int64_t pixel = 0;
    for (; pixel + depthwise_run <= t.pixels; pixel += depthwise_run) depthwise_grad_channels<depthwise_run>(t, pixel);
    for (; pixel < t.pixels; ++pixel) depthwise_grad_channels<1>(t, pixel);
}

}  // namespace
}  // namespace nnlite
