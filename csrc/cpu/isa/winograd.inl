// Winograd's transforms for 3x3 and 2x2 kernels: Lavin & Gray 2015, "Fast Algorithms for Convolutional Neural
// Networks", https://arxiv.org/abs/1509.09308.
//
// m outputs of a row, with r = 3 weights, come from m + 2 products of polynomials' values at the points
// 0, ±a, (±b,) ∞:   y = A^T [ (G w) · (B^T x) ].   Applied to rows and columns, m·m outputs cost (m + 2)^2
// multiplications instead of 9·m·m; with r = 2 weights (m + 1)^2 instead of 4·m·m. A point p gives A^T the column (1, p, p², ...), B^T the coefficients of
// the product of (x - q) over the other points q, and G the row (1, p, p²) / product of (p - q).
//
// The weight gradient is the same bilinear form seen from w: gw = G^T [ (B^T x) · (A gy) ].
//
// Vectors run along channels, so that a transform is a few vector additions and no shuffles. Limited by
// stores: 36 for the result, as many for the half-transformed square, which does not fit the registers.

namespace nnlite {
namespace {

#if defined(__clang__)
#define NNLITE_UNROLL _Pragma("unroll")
#else
#define NNLITE_UNROLL _Pragma("GCC unroll 6")
#endif

template <int m, int r>
struct WinogradPoints;

template <>
struct WinogradPoints<2, 3> {
    // x[4] -> v[4]
    static NNLITE_INLINE void data(const vec* x, vec* v) {
        v[0] = x[0] - x[2];
        v[1] = x[2] + x[1];
        v[2] = x[2] - x[1];
        v[3] = x[3] - x[1];
    }
    // v[4] -> y[2]
    static NNLITE_INLINE void output(const vec* v, vec* y) {
        y[0] = v[0] + v[1] + v[2];
        y[1] = v[1] - v[2] + v[3];
    }
    // gy[2] -> v[4]
    static NNLITE_INLINE void output_adjoint(const vec* gy, vec* v) {
        v[0] = gy[0];
        v[1] = gy[0] + gy[1];
        v[2] = gy[0] - gy[1];
        v[3] = gy[1];
    }
    // w[3] -> u[4]
    static NNLITE_INLINE void weight(const vec* w, vec* u) {
        const vec half = splat(0.5f), even = half * (w[0] + w[2]), odd = half * w[1];
        u[0] = w[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = w[2];
    }
    // v[4] -> gw[3]
    static NNLITE_INLINE void weight_adjoint(const vec* v, vec* gw) {
        const vec half = splat(0.5f), sum = half * (v[1] + v[2]);
        gw[0] = v[0] + sum;
        gw[1] = half * (v[1] - v[2]);
        gw[2] = sum + v[3];
    }
};

template <>
struct WinogradPoints<4, 3> {
    // 1 and 2 give smaller numbers on paper and four times the error: these keep the powers near 1. Barabasz et
    // al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution", https://arxiv.org/abs/1803.10986.
    static constexpr float a = 0.625f, b = 1.5f;
    static constexpr float aa = a * a, bb = b * b;
    static constexpr float at_0 = 1 / (aa * bb), at_a = 1 / (2 * aa * (aa - bb)), at_b = 1 / (2 * bb * (bb - aa));

    // x[6] -> v[6]
    static NNLITE_INLINE void data(const vec* x, vec* v) {
        const vec even_a = fma(splat(-bb), x[2], x[4]), odd_a = fma(splat(-bb), x[1], x[3]);
        const vec even_b = fma(splat(-aa), x[2], x[4]), odd_b = fma(splat(-aa), x[1], x[3]);
        v[0] = fma(splat(-bb), fma(splat(-aa), x[0], x[2]), even_b);
        v[1] = fma(splat(a), odd_a, even_a);
        v[2] = fma(splat(-a), odd_a, even_a);
        v[3] = fma(splat(b), odd_b, even_b);
        v[4] = fma(splat(-b), odd_b, even_b);
        v[5] = fma(splat(-bb), odd_b, fma(splat(-aa), x[3], x[5]));
    }
    // v[6] -> y[4]
    static NNLITE_INLINE void output(const vec* v, vec* y) {
        const vec even_a = v[1] + v[2], odd_a = v[1] - v[2], even_b = v[3] + v[4], odd_b = v[3] - v[4];
        y[0] = v[0] + even_a + even_b;
        y[1] = fma(splat(a), odd_a, splat(b) * odd_b);
        y[2] = fma(splat(aa), even_a, splat(bb) * even_b);
        y[3] = fma(splat(a * aa), odd_a, fma(splat(b * bb), odd_b, v[5]));
    }
    // gy[4] -> v[6]
    static NNLITE_INLINE void output_adjoint(const vec* gy, vec* v) {
        const vec even_a = fma(splat(aa), gy[2], gy[0]), odd_a = fma(splat(aa), gy[3], gy[1]);
        const vec even_b = fma(splat(bb), gy[2], gy[0]), odd_b = fma(splat(bb), gy[3], gy[1]);
        v[0] = gy[0];
        v[1] = fma(splat(a), odd_a, even_a);
        v[2] = fma(splat(-a), odd_a, even_a);
        v[3] = fma(splat(b), odd_b, even_b);
        v[4] = fma(splat(-b), odd_b, even_b);
        v[5] = gy[3];
    }
    // w[3] -> u[6]
    static NNLITE_INLINE void weight(const vec* w, vec* u) {
        const vec even_a = splat(at_a) * fma(splat(aa), w[2], w[0]), odd_a = splat(at_a * a) * w[1];
        const vec even_b = splat(at_b) * fma(splat(bb), w[2], w[0]), odd_b = splat(at_b * b) * w[1];
        u[0] = splat(at_0) * w[0];
        u[1] = even_a + odd_a;
        u[2] = even_a - odd_a;
        u[3] = even_b + odd_b;
        u[4] = even_b - odd_b;
        u[5] = w[2];
    }
    // v[6] -> gw[3]
    static NNLITE_INLINE void weight_adjoint(const vec* v, vec* gw) {
        const vec even_a = splat(at_a) * (v[1] + v[2]), even_b = splat(at_b) * (v[3] + v[4]);
        gw[0] = fma(splat(at_0), v[0], even_a + even_b);
        gw[1] = fma(splat(at_a * a), v[1] - v[2], splat(at_b * b) * (v[3] - v[4]));
        gw[2] = fma(splat(aa), even_a, fma(splat(bb), even_b, v[5]));
    }
};

// The points 0, ±a, b, ∞: the sums x[i+1] - b x[i] are the polynomial's without b.
template <>
struct WinogradPoints<4, 2> {
    static constexpr float a = 0.625f, b = 1.5f;
    static constexpr float aa = a * a, bb = b * b;
    static constexpr float at_0 = 1 / (aa * b), at_a = 1 / (2 * aa * (a - b)), at_minus_a = -1 / (2 * aa * (a + b));
    static constexpr float at_b = 1 / (b * (bb - aa));

    // x[5] -> v[5]
    static NNLITE_INLINE void data(const vec* x, vec* v) {
        const vec low = fma(splat(-b), x[0], x[1]), odd = fma(splat(-b), x[1], x[2]);
        const vec even = fma(splat(-b), x[2], x[3]), high = fma(splat(-b), x[3], x[4]);
        v[0] = fma(splat(-aa), low, even);
        v[1] = fma(splat(a), odd, even);
        v[2] = fma(splat(-a), odd, even);
        v[3] = fma(splat(-aa), x[1], x[3]);
        v[4] = fma(splat(-aa), odd, high);
    }
    // v[5] -> y[4]
    static NNLITE_INLINE void output(const vec* v, vec* y) {
        const vec even = v[1] + v[2], odd = v[1] - v[2];
        y[0] = v[0] + even + v[3];
        y[1] = fma(splat(a), odd, splat(b) * v[3]);
        y[2] = fma(splat(aa), even, splat(bb) * v[3]);
        y[3] = fma(splat(a * aa), odd, fma(splat(b * bb), v[3], v[4]));
    }
    // gy[4] -> v[5]
    static NNLITE_INLINE void output_adjoint(const vec* gy, vec* v) {
        const vec even = fma(splat(aa), gy[2], gy[0]), odd = fma(splat(aa), gy[3], gy[1]);
        v[0] = gy[0];
        v[1] = fma(splat(a), odd, even);
        v[2] = fma(splat(-a), odd, even);
        v[3] = fma(splat(b), fma(splat(b), fma(splat(b), gy[3], gy[2]), gy[1]), gy[0]);
        v[4] = gy[3];
    }
    // w[2] -> u[5]
    static NNLITE_INLINE void weight(const vec* w, vec* u) {
        u[0] = splat(at_0) * w[0];
        u[1] = splat(at_a) * fma(splat(a), w[1], w[0]);
        u[2] = splat(at_minus_a) * fma(splat(-a), w[1], w[0]);
        u[3] = splat(at_b) * fma(splat(b), w[1], w[0]);
        u[4] = w[1];
    }
    // v[5] -> gw[2]
    static NNLITE_INLINE void weight_adjoint(const vec* v, vec* gw) {
        const vec at = splat(at_a) * v[1], minus = splat(at_minus_a) * v[2], last = splat(at_b) * v[3];
        gw[0] = fma(splat(at_0), v[0], at + minus + last);
        gw[1] = fma(splat(a), at - minus, fma(splat(b), last, v[4]));
    }
};

enum class Limited { none, from, to };  // which square may overhang the image

// to[out][out] = L from[in][in] L^T for each of VL channels, of which `left` exist; then, if so, the epilogue
template <int in, int out, Limited limited, bool epilogue, void (*L)(const vec*, vec*)>
NNLITE_INLINE void winograd_square(const WinogradMap& t, int64_t c, int64_t left) {
    const auto exists = [&t](int i, int j) { return i >= t.top && i < t.bottom && j >= t.left && j < t.right; };
    vec half[out][in];
    NNLITE_UNROLL
    for (int j = 0; j < in; ++j) {
        const float* from = t.from + j * t.from_column + c;
        vec column[in], mapped[out];
        NNLITE_UNROLL
        for (int i = 0; i < in; ++i)
            column[i] = limited != Limited::from || exists(i, j) ? load_upto(from + i * t.from_row, left) : vec{};
        L(column, mapped);
        NNLITE_UNROLL
        for (int i = 0; i < out; ++i) half[i][j] = mapped[i];
    }
    const Bounds bounds(t.act);
    const vec bias = epilogue && t.bias ? load_upto(t.bias + c, left) : vec{};
    NNLITE_UNROLL
    for (int i = 0; i < out; ++i) {
        const int64_t to = i * t.to_row + c;
        vec mapped[out];
        L(half[i], mapped);
        NNLITE_UNROLL
        for (int j = 0; j < out; ++j) {
            if (limited == Limited::to && !exists(i, j)) continue;
            vec value = mapped[j];
            if (epilogue) {
                value += bias;
                if (t.residual) value += load_upto(t.residual + to + j * t.to_column, left);
                value = bounds.within(value);
            }
            store_upto(t.to + to + j * t.to_column, value, left);
        }
    }
}

template <int in, int out, Limited limited, bool epilogue, void (*L)(const vec*, vec*)>
NNLITE_INLINE void winograd_channels(const WinogradMap& t) {
    const WinogradMap own = t;  // which no store can change: nothing is loaded twice
    int64_t c = 0;
    for (; c + VL <= own.channels; c += VL) winograd_square<in, out, limited, epilogue, L>(own, c, VL);
    if (c < own.channels) winograd_square<in, out, limited, epilogue, L>(own, c, own.channels - c);
}

template <int in, int out, Limited limited, bool epilogue, void (*L)(const vec*, vec*)>
void winograd_map(const WinogradMap& t) {
    constexpr int size = limited == Limited::to ? out : in;
    if (limited == Limited::none || (t.top <= 0 && t.left <= 0 && t.bottom >= size && t.right >= size))
        winograd_channels<in, out, Limited::none, epilogue, L>(t);
    else
        winograd_channels<in, out, limited, epilogue, L>(t);
}

}  // namespace
}  // namespace nnlite
