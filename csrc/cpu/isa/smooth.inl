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
        case hardswish_function: return smooth_loop<hardswish_function>(k);
        default: return smooth_loop<leaky_relu_function>(k);
    }
}

}  // namespace
}  // namespace nnlite
