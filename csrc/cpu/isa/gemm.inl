// The matrix product in registers: M rows x NV vectors of the output stay in accumulators while the
// reduction runs; per step one row of the packed panel is loaded and one element per row broadcast.
// 12 x 2 accumulators with 32 registers, 6 x 2 with 16: one more row or vector and they spill.

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

template <int M, int NV>
void gemm_tile(const GemmTile& t) {
    vec acc[M][NV];
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) acc[i][v] = vec{};

    const float* b = t.b;
    const int64_t depth = t.depth, step = t.a_step;
    for (int64_t tap = 0; tap < t.taps; ++tap) {
        const float* a[M];
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) a[i] = t.a[tap * tile_rows + i] + t.a_offset;
        int64_t at = 0;
        for (int64_t d = 0; d < depth; ++d, at += step, b += NV * VL) {
            vec row[NV];
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) row[v] = load(b + v * VL);
#pragma GCC unroll 16
            for (int i = 0; i < M; ++i) {
                const vec element = splat(a[i][at]);
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) acc[i][v] = fma(element, row[v], acc[i][v]);
                if (i % 4 == 3) load_no_further_ahead();
            }
        }
    }

    vec sums[M][NV];
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sums[i][v] = acc[i][v];
    leave_registers(sums);

#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
        const int64_t left = t.columns - v * VL;
        if (left <= 0) break;
        const vec bias = t.bias ? load_upto(t.bias + v * VL, left) : vec{};
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) {
            float* out = t.out[i] + t.out_offset + v * VL;
            vec sum = sums[i][v] + bias;
            if (t.accumulate) sum += load_upto(out, left);
            store_upto(out, sum, left);
        }
    }
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

}  // namespace
}  // namespace nnlite
