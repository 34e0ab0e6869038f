// Batch normalisation on rows [M,C]: sums run down the rows with accumulators in registers.

namespace nnlite {
namespace {

constexpr int norm_vectors = 4;  // 4 vectors of channels at a time: enough chains to hide the latency of +

template <int NV>
NNLITE_INLINE void moments_block(int64_t rows, int64_t C, const float* x, int64_t left, float* centre, float* sum,
                                 float* square) {
    vec first[NV], total[NV], squares[NV];
    for (int v = 0; v < NV; ++v) first[v] = load_upto(x + v * VL, left - v * VL), total[v] = vec{};
    // Differences from the first row: where the mean is large against the deviation, x itself would
    // lose the deviation's digits in the sum.
    for (int64_t m = 1; m < rows; ++m)
        for (int v = 0; v < NV; ++v) total[v] += load_upto(x + m * C + v * VL, left - v * VL) - first[v];
    const vec inverse = splat(1.0f / static_cast<float>(rows));
    for (int v = 0; v < NV; ++v) {
        first[v] += total[v] * inverse;
        total[v] = squares[v] = vec{};
    }
    for (int64_t m = 0; m < rows; ++m)
        for (int v = 0; v < NV; ++v) {
            const vec d = load_upto(x + m * C + v * VL, left - v * VL) - first[v];
            total[v] += d;
            squares[v] = fma(d, d, squares[v]);
        }
    for (int v = 0; v < NV; ++v) {
        store_upto(centre + v * VL, first[v], left - v * VL);
        store_upto(sum + v * VL, total[v], left - v * VL);
        store_upto(square + v * VL, squares[v], left - v * VL);
    }
}

void moments(int64_t rows, int64_t C, const float* x, float* centre, float* sum, float* square) {
    constexpr int64_t wide = norm_vectors * VL;
    int64_t c = 0;
    for (; c + wide <= C; c += wide)
        moments_block<norm_vectors>(rows, C, x + c, wide, centre + c, sum + c, square + c);
    for (; c + VL <= C; c += VL) moments_block<1>(rows, C, x + c, VL, centre + c, sum + c, square + c);
    if (c < C) moments_block<1>(rows, C, x + c, C - c, centre + c, sum + c, square + c);
}

void scale_rows(int64_t rows, int64_t C, const float* x, const float* mean, const float* scale, const float* shift,
                float* y) {
    for (int64_t m = 0; m < rows; ++m, x += C, y += C) {
        for (int64_t c = 0; c < C; c += VL) {
            const int64_t left = C - c;
            vec value = load_upto(x + c, left);
            if (mean) value -= load_upto(mean + c, left);
            store_upto(y + c, fma(value, load_upto(scale + c, left), load_upto(shift + c, left)), left);
        }
    }
}

template <int NV>
NNLITE_INLINE void grad_sums_block(int64_t rows, int64_t C, const float* x, const float* gy, int64_t left,
                                   const float* mean, const float* inv_std, float* sum, float* dot) {
    vec centre[NV], total[NV], product[NV];
    for (int v = 0; v < NV; ++v) {
        centre[v] = load_upto(mean + v * VL, left - v * VL);
        total[v] = product[v] = vec{};
    }
    for (int64_t m = 0; m < rows; ++m)
        for (int v = 0; v < NV; ++v) {
            const vec g = load_upto(gy + m * C + v * VL, left - v * VL);
            total[v] += g;
            product[v] = fma(g, load_upto(x + m * C + v * VL, left - v * VL) - centre[v], product[v]);
        }
    for (int v = 0; v < NV; ++v) {
        store_upto(sum + v * VL, total[v], left - v * VL);
        store_upto(dot + v * VL, product[v] * load_upto(inv_std + v * VL, left - v * VL), left - v * VL);
    }
}

void grad_sums(int64_t rows, int64_t C, const float* x, const float* gy, const float* mean, const float* inv_std,
               float* sum, float* dot) {
    constexpr int64_t wide = norm_vectors * VL;
    int64_t c = 0;
    for (; c + wide <= C; c += wide)
        grad_sums_block<norm_vectors>(rows, C, x + c, gy + c, wide, mean + c, inv_std + c, sum + c, dot + c);
    for (; c < C; c += VL)
        grad_sums_block<1>(rows, C, x + c, gy + c, C - c, mean + c, inv_std + c, sum + c, dot + c);
}

void grad_rows(int64_t rows, int64_t C, const float* x, const float* gy, const float* mean, const float* a,
               const float* b, const float* d, float* gx) {
    for (int64_t m = 0; m < rows; ++m, x += C, gy += C, gx += C) {
        for (int64_t c = 0; c < C; c += VL) {
            const int64_t left = C - c;
            vec value = load_upto(gy + c, left) * load_upto(a + c, left);
            if (b) {
                const vec centred = load_upto(x + c, left) - load_upto(mean + c, left);
                value += fma(centred, load_upto(b + c, left), load_upto(d + c, left));
            }
            store_upto(gx + c, value, left);
        }
    }
}

}  // namespace
}  // namespace nnlite
