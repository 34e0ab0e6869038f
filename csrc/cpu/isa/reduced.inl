// Convolution of reduced precision. Both types are read four bytes at a time, a *quad*: four integers of a row of x
// against four of w, or two numbers in bfloat16 against two, added to a sum of 32 bits. What follows a sum (scale,
// bias, residual, bounds) is float arithmetic in one order, without fused multiply-adds: the same bits everywhere.

namespace nnlite {
namespace {

#if defined(__AVX512VNNI__)
constexpr int quad_rows = 12;
#elif defined(__AVX512F__) || defined(__aarch64__)
constexpr int quad_rows = 8;
#else
constexpr int quad_rows = 4;
#endif
constexpr int quad_vectors = 2;

// ---- x from 0 to 255, w from -127 to 127, sums of 32 bits: exact

struct Int8 {
    typedef uint8_t Element;
    typedef ivec Sum;
#if defined(__AVX512VNNI__)
    typedef ivec X;
    typedef ivec W;
    static NNLITE_INLINE X x(ivec quads) { return quads; }
    static NNLITE_INLINE W w(ivec quads) { return quads; }
    static NNLITE_INLINE Sum add(Sum sum, X x, W w) {
        return reinterpret_cast<ivec>(_mm512_dpbusd_epi32(
            reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(w)));
    }
#else
    // Bytes 0 and 2, and 1 and 3, as integers of 16 bits: there a pair's products and their sum cannot overflow.
    typedef int16_t svec __attribute__((vector_size(VL * 4)));
    typedef uint16_t usvec __attribute__((vector_size(VL * 4)));
    struct X {
        svec even, odd;
    };
    typedef X W;
    static NNLITE_INLINE X x(ivec quads) {
        const usvec v = reinterpret_cast<usvec>(quads);
        return {reinterpret_cast<svec>(v & static_cast<uint16_t>(255)), reinterpret_cast<svec>(v >> 8)};
    }
    static NNLITE_INLINE W w(ivec quads) {
        const svec v = reinterpret_cast<svec>(quads);
        return {(v << 8) >> 8, v >> 8};
    }
    static NNLITE_INLINE ivec pairs(svec a, svec b) {
#if defined(__AVX512BW__)
        return reinterpret_cast<ivec>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
        return reinterpret_cast<ivec>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__x86_64__)
        return reinterpret_cast<ivec>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#elif defined(__aarch64__)
        const int16x8_t p = reinterpret_cast<int16x8_t>(a), q = reinterpret_cast<int16x8_t>(b);
        return reinterpret_cast<ivec>(
            vpaddq_s32(vmull_s16(vget_low_s16(p), vget_low_s16(q)), vmull_high_s16(p, q)));
#else
        const ivec p = reinterpret_cast<ivec>(a), q = reinterpret_cast<ivec>(b);
        return ((p << 16) >> 16) * ((q << 16) >> 16) + (p >> 16) * (q >> 16);
#endif
    }
    static NNLITE_INLINE Sum add(Sum sum, X x, W w) { return sum + pairs(x.even, w.even) + pairs(x.odd, w.odd); }
#endif
    static NNLITE_INLINE vec real(Sum sum) { return as_floats(sum); }
};

// ---- bfloat16: two products per quad by one instruction, or as floats, one fused multiply-add after the other

struct Bfloat16 {
    typedef uint16_t Element;
    typedef vec Sum;
#if defined(__AVX512BF16__)
    typedef ivec X;
    typedef ivec W;
    static NNLITE_INLINE X x(ivec quads) { return quads; }
    static NNLITE_INLINE W w(ivec quads) { return quads; }
    static NNLITE_INLINE Sum add(Sum sum, X x, W w) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
    }
#else
    struct X {
        vec first, second;
    };
    typedef X W;
    static NNLITE_INLINE X x(ivec quads) {
        return {reinterpret_cast<vec>(quads << 16), reinterpret_cast<vec>((quads >> 16) << 16)};
    }
    static NNLITE_INLINE W w(ivec quads) { return x(quads); }
    static NNLITE_INLINE Sum add(Sum sum, X x, W w) { return fma(x.second, w.second, fma(x.first, w.first, sum)); }
#endif
    static NNLITE_INLINE vec real(Sum sum) { return sum; }
};

// ---- what follows a sum

// The results at `at` of a row, whose columns start at c.
template <class Type, class Out>
NNLITE_INLINE void finish(const ReducedEnd& end, typename Type::Sum sum, int64_t at, int64_t c, int64_t left) {
    typedef typename Type::Element Element;
    vec v = Type::real(sum);
    if (end.scale) v = v * load_upto(end.scale + c, left);
    v = v + load_upto(end.bias + c, left);
    if (end.residual)
        v = v + load_real(static_cast<const Element*>(end.residual) + at, left) * splat(end.residual_scale);
    v = v < splat(end.low) ? splat(end.low) : v;
    v = v > splat(end.high) ? splat(end.high) : v;
    store_real(static_cast<Out*>(end.out) + at, v, left);
}

// ---- the matrix product: M rows x NV vectors of sums in registers

template <class Type, int M, int NV>
void quad_tile(const QuadTile& t) {
    typedef typename Type::Sum Sum;
    Sum sums[M][NV];
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[i][v] = Sum{};

    const int32_t* b = t.b;
    const int64_t whole = t.depth / 4 * 4;
    for (int64_t tap = 0; tap < t.taps; ++tap) {
        const unsigned char* a[M];
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) a[i] = t.a[tap * quad_rows + i] + t.a_offset;
        int64_t left = whole;
        unsigned char rest[M][4];
        for (bool last = whole == t.depth;; last = true) {
            for (int64_t d = 0; d < left; d += 4, b += NV * VL) {
                typename Type::W w[NV];
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) w[v] = Type::w(load(b + v * VL));
#pragma GCC unroll 16
                for (int i = 0; i < M; ++i) {
                    int32_t quad;
                    __builtin_memcpy(&quad, a[i] + d, 4);
                    const typename Type::X x = Type::x(splat(quad));
#pragma GCC unroll 2
                    for (int v = 0; v < NV; ++v) sums[i][v] = Type::add(sums[i][v], x, w[v]);
                }
            }
            if (last) break;
            // Once more over the last, partial quads: nothing beyond a row is read.
            for (int i = 0; i < M; ++i) {
                for (int k = 0; k < 4; ++k) rest[i][k] = whole + k < t.depth ? a[i][whole + k] : static_cast<uint8_t>(0);
                a[i] = rest[i];
            }
            left = 4;
        }
    }

    Sum results[M * NV];
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) results[i * NV + v] = sums[i][v];
    t.finish(t, results, M, NV);
}

template <class Type, class Out>
void finish_tile(const QuadTile& t, const void* results, int rows, int vectors) {
    const typename Type::Sum* sums = static_cast<const typename Type::Sum*>(results);
    const ReducedEnd end = t.end;  // a copy, which results of bytes cannot lie upon
    for (int v = 0; v < vectors; ++v) {
        const int64_t left = t.columns - v * VL;
        for (int i = 0; i < rows; ++i)
            finish<Type, Out>(end, sums[i * vectors + v], t.at + i * t.step + v * VL, t.column + v * VL, left);
    }
}

// ---- depthwise: the rows of a window that a column meets are interleaved to quads, once for all its windows

constexpr int64_t column_vectors = 2;

// to[g][j][c] = the bytes of rows 4g .. 4g+3 (or elements of rows 2g, 2g+1) at column j, channel c
template <class Element>
NNLITE_INLINE void interleave(const DepthwiseQuads& t, int64_t c, ivec* to) {
    constexpr int per_quad = 4 / sizeof(Element), bits = 8 * sizeof(Element);
    const Element* around = static_cast<const Element*>(t.around);
    for (int64_t g = 0; g < t.groups; ++g)
        for (int64_t j = 0; j < t.columns; ++j) {
            const int64_t column = t.first_column + j;
            const bool inside = column >= 0 && column < t.width;
#pragma GCC unroll 2
            for (int64_t v = 0; v < column_vectors; ++v) {
                const int64_t at = c + v * VL, left = t.channels - at;
                ivec quads = {};
                if (left > 0)
#pragma GCC unroll 4
                    for (int i = 0; i < per_quad; ++i) {
                        const Element* row = static_cast<const Element*>(t.rows[g * per_quad + i]);
                        const Element* from = row && inside ? row + column * t.channels : around;
                        quads |= load_narrow(from + at, left) << (i * bits);
                    }
                to[(g * t.columns + j) * column_vectors + v] = quads;
            }
        }
}

// Q output pixels from pixel q on, whose windows start at column q·step of the interleaved ones.
template <class Type, class Out, int Q>
NNLITE_INLINE void depthwise_pixels(const DepthwiseQuads& t, const ivec* from, int64_t c, int64_t q) {
    typedef typename Type::Sum Sum;
    Sum sums[Q][column_vectors];
#pragma GCC unroll 4
    for (int i = 0; i < Q; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < column_vectors; ++v) sums[i][v] = Sum{};
    for (int64_t g = 0; g < t.groups; ++g)
        for (int64_t s = 0; s < t.S; ++s) {
            typename Type::W w[column_vectors];
#pragma GCC unroll 2
            for (int v = 0; v < column_vectors; ++v)
                w[v] = Type::w(load(t.w + (g * t.S + s) * t.w_step + c + v * VL));
#pragma GCC unroll 4
            for (int i = 0; i < Q; ++i) {
                const ivec* x = from + (g * t.columns + (q + i) * t.step + s * t.tap_step) * column_vectors;
#pragma GCC unroll 2
                for (int v = 0; v < column_vectors; ++v) sums[i][v] = Type::add(sums[i][v], Type::x(x[v]), w[v]);
            }
        }
#pragma GCC unroll 2
    for (int v = 0; v < column_vectors; ++v) {
        const int64_t at = c + v * VL, left = t.channels - at;
        if (left <= 0) break;
#pragma GCC unroll 4
        for (int i = 0; i < Q; ++i)
            finish<Type, Out>(t.end, sums[i][v], t.at + (q + i) * t.channels + at, at, left);
    }
}

template <class Type, class Out>
void depthwise_quads(const DepthwiseQuads& t) {
    ivec columns[max_interleaved * column_vectors];
    for (int64_t c = 0; c < t.channels; c += column_vectors * VL) {
        interleave<typename Type::Element>(t, c, columns);
        int64_t q = 0;
        for (; q + 4 <= t.pixels; q += 4) depthwise_pixels<Type, Out, 4>(t, columns, c, q);
        for (; q < t.pixels; ++q) depthwise_pixels<Type, Out, 1>(t, columns, c, q);
    }
}

}  // namespace
}  // namespace nnlite
