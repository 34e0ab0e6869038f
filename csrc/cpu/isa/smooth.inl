// Activations that are not piecewise linear, and their gradients, in one pass.
//
// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2 and a polynomial for e^r; ln 2 in two parts, so that
// r is exact (Cody and Waite 1980). Errors are one or two units in the last place; NaN stays NaN.

namespace nnlite {
namespace {

NNLITE_INLINE vec exponential(vec x) {
    const vec bounded = x < splat(-87.0f) ? splat(-87.0f) : (x > splat(88.0f) ? splat(88.0f) : x);
    // Adding 1.5 · 2^23 leaves the rounded number in the last bits.
    const vec magic = splat(12582912.0f);
    const vec shifted = fma(bounded, splat(1.44269504f), magic);
    const vec n = shifted - magic;
    vec r = fma(n, splat(-0.693359375f), bounded);
    r = fma(n, splat(2.12194440e-4f), r);
    vec p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p * r, r, r) + splat(1.0f);
    const ivec exponent = reinterpret_cast<ivec>(shifted) - reinterpret_cast<ivec>(magic) + splat(int32_t{127});
    const vec result = p * reinterpret_cast<vec>(exponent << 23);
    return x == x ? result : x;
}

NNLITE_INLINE vec sigmoid(vec x) { return splat(1.0f) / (splat(1.0f) + exponential(-x)); }

NNLITE_INLINE vec hyperbolic_tangent(vec x) {
    const vec size = x < vec{} ? -x : x;
    // Near 0 one minus nearly one would lose what matters: there an odd polynomial.
    const vec square = x * x;
    vec p = splat(-5.70498872745e-3f);
    p = fma(p, square, splat(2.06390887954e-2f));
    p = fma(p, square, splat(-5.37397155531e-2f));
    p = fma(p, square, splat(1.33314422036e-1f));
    p = fma(p, square, splat(-3.33332819422e-1f));
    const vec small = fma(p * square, x, x);
    const vec large = splat(1.0f) - splat(2.0f) / (exponential(size + size) + splat(1.0f));
    return size < splat(0.625f) ? small : (x < vec{} ? -large : large);
}

// The error function, given e^(-x^2): an odd polynomial up to 1, then 1 - e^(-x^2) q(1 / (x + 2)). Both polynomials
// are minimax fits, with errors of 1e-9 and less; from 4 on erf is 1.
NNLITE_INLINE vec error_function(vec x, vec decay) {
    vec size = x < vec{} ? -x : x;
    size = size > splat(4.0f) ? splat(4.0f) : size;
    const vec square = x * x;
    vec p = splat(7.8538609491e-05f);
    p = fma(p, square, splat(-8.0101935029e-04f));
    p = fma(p, square, splat(5.1883276718e-03f));
    p = fma(p, square, splat(-2.6853811928e-02f));
    p = fma(p, square, splat(1.1283585148e-01f));
    p = fma(p, square, splat(-3.7612625824e-01f));
    p = fma(p, square, splat(1.1283791657f));
    const vec u = splat(1.0f) / (size + splat(2.0f));
    vec q = splat(-7.3856514399f);
    q = fma(q, u, splat(1.0186877406e+01f));
    q = fma(q, u, splat(-5.1568326640e-01f));
    q = fma(q, u, splat(1.5872077837f));
    q = fma(q, u, splat(5.1940130143e-01f));
    q = fma(q, u, splat(1.8224774829e-03f));
    const vec large = splat(1.0f) - decay * q;
    const vec result = size < splat(1.0f) ? x * p : (x < vec{} ? -large : large);
    return x == x ? result : x;
}
NNLITE_INLINE vec error_function(vec x) { return error_function(x, exponential(-x * x)); }

constexpr float two_over_root_pi = 1.12837917f, root_half = 0.707106781f, root_two_over_pi = 0.797884561f, gelu_cubic = 0.044715f;

// 1 + tanh of the cubic that GELU's approximation has.
NNLITE_INLINE vec gelu_curve(vec x) {
    return splat(1.0f) + hyperbolic_tangent(splat(root_two_over_pi) * fma(splat(gelu_cubic) * x * x, x, x));
}

NNLITE_INLINE vec ramp(vec x, vec a, vec b) {
    const vec y = fma(x, a, b), one = splat(1.0f);
    return y < vec{} ? vec{} : (y > one ? one : y);
}

template <int FUNCTION>
NNLITE_INLINE vec smooth_value(vec x, vec a, vec b) {
    if (FUNCTION == sigmoid_function) return sigmoid(x);
    if (FUNCTION == tanh_function) return hyperbolic_tangent(x);
    if (FUNCTION == silu_function) return x * sigmoid(x);
    if (FUNCTION == hardsigmoid_function) return ramp(x, a, b);
    if (FUNCTION == hardswish_function) return x * ramp(x, a, b);
    const vec half = splat(0.5f);
    if (FUNCTION == gelu_function) return half * x * (splat(1.0f) + error_function(x * splat(root_half)));
    if (FUNCTION == gelu_tanh_function) return half * x * gelu_curve(x);
    if (FUNCTION == erf_function) return error_function(x);
    return x > vec{} ? x : x * a;  // leaky relu
}

// f'(z): z is f's output for sigmoid and tanh, its input for the others.
template <int FUNCTION>
NNLITE_INLINE vec smooth_slope(vec z, vec a, vec b) {
    const vec one = splat(1.0f);
    if (FUNCTION == sigmoid_function) return z * (one - z);
    if (FUNCTION == tanh_function) return one - z * z;
    if (FUNCTION == silu_function) {
        const vec s = sigmoid(z);
        return s * fma(z, one - s, one);
    }
    if (FUNCTION == leaky_relu_function) return z > vec{} ? one : a;
    const vec half = splat(0.5f);
    if (FUNCTION == gelu_function) {  // distribution + z density
        const vec decay = exponential(-half * z * z);
        const vec distribution = fma(half, error_function(z * splat(root_half), decay), half);
        return fma(z * splat(0.5f * root_half * two_over_root_pi), decay, distribution);
    }
    if (FUNCTION == gelu_tanh_function) {
        const vec curve = gelu_curve(z), t = curve - one;
        const vec inner = splat(root_two_over_pi) * fma(splat(3 * gelu_cubic) * z, z, one);
        return half * fma(z * (one - t * t), inner, curve);
    }
    if (FUNCTION == erf_function) return splat(two_over_root_pi) * exponential(-z * z);
    const vec y = fma(z, a, b);
    const vec inside = FUNCTION == hardsigmoid_function ? a : fma(z, a, y);
    const vec above = FUNCTION == hardsigmoid_function ? vec{} : one;
    return y <= vec{} ? vec{} : (y >= one ? above : inside);
}

template <int FUNCTION>
void smooth_loop(const Smooth& k) {
    const vec a = splat(k.a), b = splat(k.b);
    for (int64_t i = 0; i < k.size; i += VL) {
        const int64_t left = k.size - i;
        const vec z = load_upto(k.z + i, left);
        store_upto(k.out + i,
                   k.gy ? load_upto(k.gy + i, left) * smooth_slope<FUNCTION>(z, a, b) : smooth_value<FUNCTION>(z, a, b),
                   left);
    }
}

void smooth(const Smooth& k) {
    switch (k.function) {
        case sigmoid_function: return smooth_loop<sigmoid_function>(k);
        case tanh_function: return smooth_loop<tanh_function>(k);
        case silu_function: return smooth_loop<silu_function>(k);
        case hardsigmoid_function: return smooth_loop<hardsigmoid_function>(k);
        case gelu_function: return smooth_loop<gelu_function>(k);
        case gelu_tanh_function: return smooth_loop<gelu_tanh_function>(k);
        case erf_function: return smooth_loop<erf_function>(k);
        case hardswish_function: return smooth_loop<hardswish_function>(k);
        default: return smooth_loop<leaky_relu_function>(k);
    }
}

void channel_slopes(const ChannelSlopes& k) {
    float* y = k.y;
    for (int64_t row = 0; row < k.rows; ++row, y += k.channels)
        for (int64_t c = 0; c < k.channels; c += VL) {
            const int64_t left = k.channels - c;
            const vec z = load_upto(y + c, left), slope = k.slope ? load_upto(k.slope + c, left) : vec{};
            store_upto(y + c, z > vec{} ? z : z * slope, left);
        }
}

}  // namespace
}  // namespace nnlite
