// The matrix product in registers: M rows x NV vectors of the output stay in accumulators while the
// reduction runs; per step one row of the packed panel is loaded and one element per row broadcast.
// 12 x 2 accumulators with 32 registers, 6 x 2 with 16: one more row or vector and they spill.
//
// On the way it asks for the rows of a tile to come, one cache line of each in 16 steps: asked for all at once they
// would fill the processor's list of outstanding misses, and the loads of this tile would wait behind them.

namespace nnlite {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_rows = 12;
#else
constexpr int tile_rows = 6;
#endif
constexpr int tile_vectors = 2;

// Left alone, GCC 12 for AArch64 loads the elements of all twelve rows ahead of their products and shares
// registers with the many paths of the partial stores: eight accumulators spilled in every step of the loop
// (tests/csrc/inspect_objects.py looks). So elements are loaded four rows ahead at most, and the sums leave
// their registers before they are stored. x86 takes an element as an operand from memory and has no such trouble.
#if defined(__aarch64__)
NNLITE_INLINE void load_no_further_ahead() { asm volatile("" : : : "memory"); }
NNLITE_INLINE void leave_registers(const void* sums) { asm volatile("" : : "r"(sums) : "memory"); }
#else
NNLITE_INLINE void load_no_further_ahead() {}
NNLITE_INLINE void leave_registers(const void*) {}
#endif

// The products of steps [d, end) of one tap: b moves on with them.
template <int M, int NV>
NNLITE_INLINE void gemm_steps(const float* const* a, int64_t step, int64_t d, int64_t end, const float*& b,
                              vec (*acc)[NV]) {
    int64_t at = d * step;
    // The pointers of so many rows do not fit the registers: with one vector of columns a step would load as many
    // pointers as it has products (192 channels to 16: a tenth slower). Four steps of a row share one.
    if (NV == 1 && M > 6)
        for (; d + 4 <= end; d += 4, at += 4 * step, b += 4 * VL) {
            vec rows[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) rows[k] = load(b + k * VL);
            __builtin_prefetch(b + 16 * VL);
            __builtin_prefetch(b + 18 * VL);
#pragma GCC unroll 16
            for (int i = 0; i < M; ++i) {
                const float* from = a[i] + at;
#pragma GCC unroll 4
                for (int k = 0; k < 4; ++k) acc[i][0] = fma(splat(from[k * step]), rows[k], acc[i][0]);
            }
        }
    for (; d < end; ++d, at += step, b += NV * VL) {
        vec row[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) row[v] = load(b + v * VL);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) __builtin_prefetch(b + (16 * NV + v) * VL);
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) {
            const vec element = splat(a[i][at]);
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) acc[i][v] = fma(element, row[v], acc[i][v]);
            if (i % 4 == 3) load_no_further_ahead();
        }
    }
}

// What follows the products: of whole vectors, or of anything.

template <int M, int NV>
NNLITE_INLINE void finish_whole(const GemmTile& t, const vec (*sums)[NV]) {
    const Bounds bounds(t.act);
    // Read once: for all that the compiler knows, a store of results might change them.
    float* const* const outs = t.out;
    const float* const* const residuals = t.residual;
    const int64_t offset = t.out_offset;
    const bool accumulate = t.accumulate, streams = t.stream;
    vec bias[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) bias[v] = t.bias ? load(t.bias + v * VL) : vec{};
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
        float* out = outs[i] + offset;
        vec sum[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[v] = sums[i][v] + bias[v];
        if (accumulate)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) sum[v] += load(out + v * VL);
        if (residuals)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) sum[v] += load(residuals[i] + offset + v * VL);
        if (streams)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) stream(out + v * VL, bounds.within(sum[v]));
        else
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) store(out + v * VL, bounds.within(sum[v]));
    }
}

template <int M, int NV>
NNLITE_INLINE void finish_part(const GemmTile& t, const vec (*sums)[NV]) {
    const Bounds bounds(t.act);
    for (int v = 0; v < NV; ++v) {
        const int64_t left = t.columns - v * VL;
        if (left <= 0) break;
        const vec bias = t.bias ? load_upto(t.bias + v * VL, left) : vec{};
        for (int i = 0; i < M; ++i) {
            float* out = t.out[i] + t.out_offset + v * VL;
            vec sum = sums[i][v] + bias;
            if (t.accumulate) sum += load_upto(out, left);
            if (t.residual) sum += load_upto(t.residual[i] + t.out_offset + v * VL, left);
            sum = bounds.within(sum);
            if (t.stream && left >= VL)
                stream(out, sum);
            else
                store_upto(out, sum, left);
        }
    }
}

template <int M, int NV>
void gemm_tile(const GemmTile& t) {
    vec acc[M][NV];
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) acc[i][v] = vec{};

    const float* b = t.b;
    for (int64_t tap = 0; tap < t.taps; ++tap) {
        const float* a[M];
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) a[i] = t.a[tap * tile_rows + i] + t.a_offset;
        int64_t d = 0;
        if (M + 2 >= tile_rows && tap == 0 && t.next)
            while (d < t.depth) {
                const int64_t begin = d;
                d = d + 16 < t.depth ? d + 16 : t.depth;
                for (int i = 0; i < M; ++i) __builtin_prefetch(t.next[i] + t.a_offset + begin);
                gemm_steps<M, NV>(a, t.a_step, begin, d, b, acc);
            }
        gemm_steps<M, NV>(a, t.a_step, d, t.depth, b, acc);
    }

    vec sums[M][NV];
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[i][v] = acc[i][v];
    leave_registers(sums);
    if (t.columns == NV * VL)
        finish_whole<M, NV>(t, sums);
    else
        finish_part<M, NV>(t, sums);
}

// to[r][c] = from[c · stride + r], zeros in the columns from `columns` to `width`, a multiple of VL. Through
// registers, VL x VL at a time: one by one, the `columns` cache lines of a row often fall into the same sets.
void pack_transposed(int64_t rows, int64_t columns, int64_t width, const float* from, int64_t stride, float* to) {
    for (int64_t r = 0; r < rows; r += VL) {
        const int64_t row_count = rows - r < VL ? rows - r : VL;
        for (int64_t c = 0; c < width; c += VL) {
            const float* corner = from + c * stride + r;
            vec v[VL];
            if (row_count == VL && columns - c >= VL) {
#pragma GCC unroll 16
                for (int i = 0; i < VL; ++i) v[i] = load(corner + i * stride);
                for (int i = 0; i < VL; ++i) __builtin_prefetch(corner + i * stride + VL);
            } else {
                for (int i = 0; i < VL; ++i) v[i] = c + i < columns ? load_upto(corner + i * stride, row_count) : vec{};
            }
            transpose(v);
            for (int i = 0; i < row_count; ++i) store(to + (r + i) * width + c, v[i]);
        }
    }
}

// to[r][c] = from[r · stride + c], rows to_stride apart.
void copy_strip(int64_t rows, int64_t columns, const float* from, int64_t stride, float* to, int64_t to_stride) {
    const int64_t whole = columns / VL * VL, left = columns - whole;
    for (int64_t r = 0; r < rows; ++r, from += stride, to += to_stride) {
        for (int64_t c = 0; c < whole; c += VL) store(to + c, load(from + c));
        if (left) store(to + whole, load(from + whole, left), left);
    }
}

}  // namespace
}  // namespace nnlite
