// Depthwise convolution: vectors run along channels, a few pixels share each weight that is loaded.

namespace nnlite {
namespace {

// NV vectors of channels from c on, of which only `left` elements of the last exist.
template <int Q, int NV>
NNLITE_INLINE void depthwise_block(const DepthwiseTile& t, int64_t c, int64_t left) {
    vec acc[Q][NV];
    for (int v = 0; v < NV; ++v) {
        const vec bias = t.bias ? load_upto(t.bias + c + v * VL, left - v * VL) : vec{};
        for (int q = 0; q < Q; ++q) acc[q][v] = bias;
    }
    for (int64_t tap = 0; tap < t.taps; ++tap) {
        vec w[NV];
        for (int v = 0; v < NV; ++v) w[v] = load_upto(t.w + tap * t.channels + c + v * VL, left - v * VL);
        for (int q = 0; q < Q; ++q) {
            const float* x = t.rows[tap * depthwise_pixels + q] + c;
            for (int v = 0; v < NV; ++v) acc[q][v] = fma(load_upto(x + v * VL, left - v * VL), w[v], acc[q][v]);
        }
    }
    for (int q = 0; q < Q; ++q)
        for (int v = 0; v < NV; ++v) store_upto(t.out[q] + c + v * VL, acc[q][v], left - v * VL);
}

template <int Q>
void depthwise_pixels_of(const DepthwiseTile& t) {
    int64_t c = 0;
    for (; c + 2 * VL <= t.channels; c += 2 * VL) depthwise_block<Q, 2>(t, c, 2 * VL);
    for (; c + VL <= t.channels; c += VL) depthwise_block<Q, 1>(t, c, VL);
    if (c < t.channels) depthwise_block<Q, 1>(t, c, t.channels - c);
}

// The outputs of one channel lie side by side, those of one multiplier index do not: store one by one.
void depthwise_multiplied(const DepthwiseTile& t) {
    for (int q = 0; q < t.pixels; ++q)
        for (int64_t c = 0; c < t.channels; c += VL) {
            const int64_t left = t.channels - c < VL ? t.channels - c : VL;
            for (int64_t m = 0; m < t.multiplier; ++m) {
                const float* w = t.w + m * t.taps * t.channels + c;
                vec sum = {};
                for (int64_t tap = 0; tap < t.taps; ++tap) {
                    const float* x = t.rows[tap * depthwise_pixels + q] + c;
                    sum = fma(load_upto(x, left), load_upto(w + tap * t.channels, left), sum);
                }
                for (int i = 0; i < left; ++i) {
                    const int64_t k = (c + i) * t.multiplier + m;
                    t.out[q][k] = t.bias ? sum[i] + t.bias[k] : sum[i];
                }
            }
        }
}

void depthwise_tile(const DepthwiseTile& t) {
    if (t.multiplier > 1) return depthwise_multiplied(t);
    switch (t.pixels) {
        case 1: return depthwise_pixels_of<1>(t);
        case 2: return depthwise_pixels_of<2>(t);
        case 3: return depthwise_pixels_of<3>(t);
        default: return depthwise_pixels_of<depthwise_pixels>(t);
    }
}

// ---- weight gradient: one accumulator per tap, down a row of pixels

template <int T>
NNLITE_INLINE void depthwise_grad_block(const DepthwiseGradWeight& t, int64_t c, int64_t left) {
    vec acc[T];
    for (int i = 0; i < T; ++i) acc[i] = load_upto(t.sums + i * t.channels + c, left);
    for (int64_t q = 0; q < t.pixels; ++q) {
        const vec gy = load_upto(t.gy + q * t.channels + c, left);
        for (int i = 0; i < T; ++i) acc[i] = fma(load_upto(t.rows[q * T + i] + c, left), gy, acc[i]);
    }
    for (int i = 0; i < T; ++i) store_upto(t.sums + i * t.channels + c, acc[i], left);
}

template <int T>
void depthwise_grad_taps(const DepthwiseGradWeight& t) {
    int64_t c = 0;
    for (; c + VL <= t.channels; c += VL) depthwise_grad_block<T>(t, c, VL);
    if (c < t.channels) depthwise_grad_block<T>(t, c, t.channels - c);
}

void depthwise_grad_weight(const DepthwiseGradWeight& t) {
    switch (t.taps) {
        case 1: return depthwise_grad_taps<1>(t);
        case 2: return depthwise_grad_taps<2>(t);
        case 3: return depthwise_grad_taps<3>(t);
        case 4: return depthwise_grad_taps<4>(t);
        case 5: return depthwise_grad_taps<5>(t);
        case 6: return depthwise_grad_taps<6>(t);
        case 7: return depthwise_grad_taps<7>(t);
        case 8: return depthwise_grad_taps<8>(t);
        default: return depthwise_grad_taps<depthwise_taps>(t);
    }
}

}  // namespace
}  // namespace nnlite
