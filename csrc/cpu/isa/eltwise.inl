// Elementwise work in one pass: sums, activations, their gradients, steps of optimisers.

namespace nnlite {
namespace {

// `v < low ? low : v` and not max(v, low): a NaN must stay one, whichever operand an instruction prefers.
template <int KIND>
NNLITE_INLINE vec activate(vec v, vec low, vec high) {
    if (KIND == no_activation) return v;
    v = v < low ? low : v;
    return KIND == clamp_activation ? (v > high ? high : v) : v;
}

// The gradient g of activate(z) where it passes, else 0. A NaN passes relu and not clamp, as in PyTorch.
template <int KIND>
NNLITE_INLINE vec gated(vec g, vec z, vec low, vec high) {
    if (KIND == no_activation) return g;
    if (KIND == relu_activation) return z <= vec{} ? vec{} : g;
    return ((z >= low) & (z <= high)) ? g : vec{};
}

// body.operator()<KIND>() for an activation known at run time.
template <class Body>
NNLITE_INLINE void with_kind(const Activation& act, const Body& body) {
    if (act.kind == no_activation) body.template run<no_activation>();
    else if (act.kind == relu_activation) body.template run<relu_activation>();
    else body.template run<clamp_activation>();
}

// ---- y = act(alpha a + beta b)

template <int KIND, bool PAIR, bool SCALED>
NNLITE_INLINE vec combined(const Combine& k, int64_t i, int64_t left) {
    vec v = load_upto(k.a + i, left);
    if (SCALED) v *= splat(k.alpha);
    if (PAIR) {
        const vec b = load_upto(k.b + i, left);
        v += SCALED ? splat(k.beta) * b : b;
    }
    return activate<KIND>(v, splat(k.act.low), splat(k.act.high));
}

template <bool PAIR, bool SCALED>
struct CombineLoop {
    const Combine& k;
    template <int KIND>
    NNLITE_INLINE void run() const {
        int64_t i = 0;
        for (; i + VL <= k.size; i += VL) store(k.y + i, combined<KIND, PAIR, SCALED>(k, i, VL));
        if (i < k.size) store(k.y + i, combined<KIND, PAIR, SCALED>(k, i, k.size - i), k.size - i);
    }
};

void combine(const Combine& k) {
    const bool scaled = k.alpha != 1.0f || (k.b && k.beta != 1.0f);
    if (k.b && scaled) with_kind(k.act, CombineLoop<true, true>{k});
    else if (k.b) with_kind(k.act, CombineLoop<true, false>{k});
    else if (scaled) with_kind(k.act, CombineLoop<false, true>{k});
    else with_kind(k.act, CombineLoop<false, false>{k});
}

void multiply(int64_t size, const float* a, const float* b, float* y) {
    for (int64_t i = 0; i < size; i += VL) {
        const int64_t left = size - i;
        store_upto(y + i, load_upto(a + i, left) * load_upto(b + i, left), left);
    }
}

void scale_channels(const ScaleChannels& k) {
    const float* x = k.x;
    float* y = k.y;
    for (int64_t row = 0; row < k.rows; ++row, x += k.channels, y += k.channels)
        for (int64_t c = 0; c < k.channels; c += VL) {
            const int64_t left = k.channels - c;
            store_upto(y + c, load_upto(x + c, left) * load_upto(k.scale + c, left), left);
        }
}

// ---- gx = gy where the activation of z lets it pass

struct GateLoop {
    const Gate& k;
    template <int KIND>
    NNLITE_INLINE void run() const {
        const vec low = splat(k.act.low), high = splat(k.act.high);
        for (int64_t i = 0; i < k.size; i += VL) {
            const int64_t left = k.size - i;
            store_upto(k.gx + i, gated<KIND>(load_upto(k.gy + i, left), load_upto(k.z + i, left), low, high), left);
        }
    }
};

void gate(const Gate& k) { with_kind(k.act, GateLoop{k}); }

// ---- optimisers

#if defined(__AVX512F__)
// maskz: GCC 12 warns of an uninitialised value inside its own _mm512_sqrt_ps
NNLITE_INLINE vec square_root(vec v) { return _mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), v); }
#elif defined(__AVX2__)
NNLITE_INLINE vec square_root(vec v) { return _mm256_sqrt_ps(v); }
#elif defined(__x86_64__)
NNLITE_INLINE vec square_root(vec v) { return _mm_sqrt_ps(v); }
#elif defined(__aarch64__)
NNLITE_INLINE vec square_root(vec v) { return vsqrtq_f32(v); }
#else
NNLITE_INLINE vec square_root(vec v) {
    for (int i = 0; i < VL; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
}
#endif

void sgd_step(const SgdStep& k) {
    const vec lr = splat(k.lr), decay = splat(k.decay), momentum = splat(k.momentum), keep = splat(k.keep);
    for (int64_t i = 0; i < k.size; i += VL) {
        const int64_t left = k.size - i;
        const vec w = load_upto(k.weight + i, left);
        const vec g = fma(w, decay, load_upto(k.gradient + i, left));
        vec v = g;
        if (k.velocity) v = fma(load_upto(k.velocity + i, left), momentum, keep * g);
        if (k.new_velocity) store_upto(k.new_velocity + i, v, left);
        const vec step = k.nesterov ? fma(momentum, v, g) : v;
        store_upto(k.new_weight + i, w - lr * step, left);
    }
}

void adam_step(const AdamStep& k) {
    const vec b1 = splat(k.b1), b2 = splat(k.b2), rest1 = splat(k.rest1), rest2 = splat(k.rest2);
    for (int64_t i = 0; i < k.size; i += VL) {
        const int64_t left = k.size - i;
        const vec w = load_upto(k.weight + i, left) * splat(k.shrink);
        const vec g = fma(w, splat(k.decay), load_upto(k.gradient + i, left));
        const vec m = fma(load_upto(k.mean + i, left), b1, rest1 * g);
        const vec v = fma(load_upto(k.square + i, left), b2, rest2 * (g * g));
        store_upto(k.new_mean + i, m, left);
        store_upto(k.new_square + i, v, left);
        const vec below = fma(square_root(v), splat(k.root_scale), splat(k.epsilon));
        store_upto(k.new_weight + i, w - splat(k.rate) * m / below, left);
    }
}

}  // namespace
}  // namespace nnlite
