// Depthwise convolution: vectors run along channels, a run of pixels shares each weight that is loaded.
//
// Where the taps of a kernel row lie on adjacent pixels and so do the runs (stride 1, no dilation), each
// source vector is loaded once and meets every pixel of the run that it belongs to: 3x3 on eight pixels
// takes 30 loads of x for 72 multiply-adds instead of 72.

namespace nnlite {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int depthwise_run = 8;  // pixels; with as many accumulators and S weights, in 32 registers
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
    float* out = t.out + pixel * t.out_step + c;
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) store_upto(out + q * t.out_step + v * VL, acc[q][v], left - v * VL);
}

// The same for taps that are kernel rows of S adjacent pixels.
template <int Q, int S>
NNLITE_INLINE void depthwise_sliding_block(const DepthwiseRow& t, int64_t pixel, int64_t c, int64_t left) {
    vec acc[Q];
    const vec bias = t.bias ? load_upto(t.bias + c, left) : vec{};
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) acc[q] = bias;
    for (int64_t tap = 0; tap < t.taps; tap += S) {
        const float* x = t.source[tap] + pixel * t.step + c;
        vec w[S];
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) w[s] = load_upto(t.w[tap + s] + c, left);
#pragma GCC unroll 16
        for (int column = 0; column < Q + S - 1; ++column) {
            const vec value = load_upto(x + column * t.step, left);
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s)
                if (column - s >= 0 && column - s < Q) acc[column - s] = fma(value, w[s], acc[column - s]);
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) store_upto(t.out + (pixel + q) * t.out_step + c, acc[q], left);
}

template <int Q, int S>
NNLITE_INLINE void depthwise_channels(const DepthwiseRow& t, int64_t pixel) {
    int64_t c = 0;
    if constexpr (S > 0) {
        for (; c + VL <= t.channels; c += VL) depthwise_sliding_block<Q, S>(t, pixel, c, VL);
        if (c < t.channels) depthwise_sliding_block<Q, S>(t, pixel, c, t.channels - c);
    } else {
        constexpr int NV = depthwise_run / Q < 4 ? depthwise_run / Q : 4;
        for (; c + NV * VL <= t.channels; c += NV * VL) depthwise_block<Q, NV>(t, pixel, c, NV * VL);
        for (; c < t.channels; c += VL) depthwise_block<Q, 1>(t, pixel, c, t.channels - c < VL ? t.channels - c : VL);
    }
}

template <int S>
void depthwise_pixels(const DepthwiseRow& t) {
    int64_t pixel = 0;
    for (; pixel + depthwise_run <= t.pixels; pixel += depthwise_run) depthwise_channels<depthwise_run, S>(t, pixel);
    for (; pixel + 4 <= t.pixels; pixel += 4) depthwise_channels<4, S>(t, pixel);
    for (; pixel + 2 <= t.pixels; pixel += 2) depthwise_channels<2, S>(t, pixel);
    for (; pixel < t.pixels; ++pixel) depthwise_channels<1, 0>(t, pixel);
}

// The outputs of one channel lie side by side, those of one multiplier index do not: store one by one.
void depthwise_multiplied(const DepthwiseRow& t) {
    for (int64_t q = 0; q < t.pixels; ++q)
        for (int64_t c = 0; c < t.channels; c += VL) {
            const int64_t left = t.channels - c < VL ? t.channels - c : VL;
            for (int64_t m = 0; m < t.multiplier; ++m) {
                vec sum = {};
                for (int64_t tap = 0; tap < t.taps; ++tap) {
                    const vec x = load_upto(t.source[tap] + q * t.step + c, left);
                    sum = fma(x, load_upto(t.w[tap] + m * t.multiplier_step + c, left), sum);
                }
                for (int i = 0; i < left; ++i) {
                    const int64_t k = (c + i) * t.multiplier + m;
                    t.out[q * t.out_step + k] = t.bias ? sum[i] + t.bias[k] : sum[i];
                }
            }
        }
}

void depthwise_row(const DepthwiseRow& t) {
    if (t.multiplier > 1) return depthwise_multiplied(t);
    switch (t.adjacent) {
        case 3: return depthwise_pixels<3>(t);
        case 5: return depthwise_pixels<5>(t);
        default: return depthwise_pixels<0>(t);
    }
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

template <int Q, int S>
NNLITE_INLINE void depthwise_grad_sliding_block(const DepthwiseGradRow& t, int64_t pixel, int64_t c, int64_t left) {
    vec gy[Q];
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) gy[q] = load_upto(t.gy + (pixel + q) * t.channels + c, left);
    for (int64_t tap = 0; tap < t.taps; tap += S) {
        const float* x = t.source[tap] + pixel * t.step + c;
        vec sum[S];
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) sum[s] = load_upto(t.sums[tap + s] + c, left);
#pragma GCC unroll 16
        for (int column = 0; column < Q + S - 1; ++column) {
            const vec value = load_upto(x + column * t.step, left);
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s)
                if (column - s >= 0 && column - s < Q) sum[s] = fma(value, gy[column - s], sum[s]);
        }
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) store_upto(t.sums[tap + s] + c, sum[s], left);
    }
}

template <int Q, int S>
NNLITE_INLINE void depthwise_grad_channels(const DepthwiseGradRow& t, int64_t pixel) {
    for (int64_t c = 0; c < t.channels; c += VL) {
        const int64_t left = t.channels - c;
        if constexpr (S > 0) {
            if (left >= VL)
                depthwise_grad_sliding_block<Q, S>(t, pixel, c, VL);
            else
                depthwise_grad_sliding_block<Q, S>(t, pixel, c, left);
        } else {
            if (left >= VL)
                depthwise_grad_block<Q>(t, pixel, c, VL);
            else
                depthwise_grad_block<Q>(t, pixel, c, left);
        }
    }
}

template <int S>
void depthwise_grad_pixels(const DepthwiseGradRow& t) {
    int64_t pixel = 0;
    for (; pixel + depthwise_run <= t.pixels; pixel += depthwise_run)
        depthwise_grad_channels<depthwise_run, S>(t, pixel);
    for (; pixel + 4 <= t.pixels; pixel += 4) depthwise_grad_channels<4, S>(t, pixel);
    for (; pixel < t.pixels; ++pixel) depthwise_grad_channels<1, 0>(t, pixel);
}

void depthwise_grad_row(const DepthwiseGradRow& t) {
    switch (t.adjacent) {
        case 3: return depthwise_grad_pixels<3>(t);
        case 5: return depthwise_grad_pixels<5>(t);
        default: return depthwise_grad_pixels<0>(t);
    }
}

}  // namespace
}  // namespace nnlite
