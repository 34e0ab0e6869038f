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

template <bool CENTRED, bool RESIDUAL>
struct ScaleLoop {
    const ScaleRows& k;

    template <int KIND>
    NNLITE_INLINE void vector(int64_t at, int64_t c, int64_t left) const {
        vec value = load_upto(k.x + at, left);
        if (CENTRED) value -= load_upto(k.mean + c, left);
        value = fma(value, load_upto(k.scale + c, left), load_upto(k.shift + c, left));
        if (RESIDUAL) value += load_upto(k.residual + at, left);
        value = activate<KIND>(value, splat(k.act.low), splat(k.act.high));
        k.stream ? stream(k.y + at, value) : store_upto(k.y + at, value, left);
    }
    template <int KIND>
    NNLITE_INLINE void run() const {
        for (int64_t m = 0; m < k.rows; ++m) {
            int64_t c = 0;
            for (; c + VL <= k.C; c += VL) vector<KIND>(m * k.C + c, c, VL);
            if (c < k.C) vector<KIND>(m * k.C + c, c, k.C - c);
        }
    }
};

void scale_rows(const ScaleRows& k) {
    if (k.mean && k.residual) with_kind(k.act, ScaleLoop<true, true>{k});
    else if (k.mean) with_kind(k.act, ScaleLoop<true, false>{k});
    else if (k.residual) with_kind(k.act, ScaleLoop<false, true>{k});
    else with_kind(k.act, ScaleLoop<false, false>{k});
    if (k.stream) done_streaming();
}

// gy where the activation lets it pass. Seen from the output an activation passes strictly within its
// bounds; z is computed as the forward pass computed it, to the last bit.
template <int KIND>
NNLITE_INLINE vec passed(const NormGrad& k, vec x, int64_t at, int64_t c, int64_t left) {
    const vec g = load_upto(k.gy + at, left), low = splat(k.act.low), high = splat(k.act.high);
    if (KIND == no_activation) return g;
    if (k.y) {
        const vec y = load_upto(k.y + at, left);
        return KIND == relu_activation ? gated<KIND>(g, y, low, high) : ((y > low) & (y < high)) ? g : vec{};
    }
    if (k.centre) x -= load_upto(k.centre + c, left);
    return gated<KIND>(g, fma(x, load_upto(k.scale + c, left), load_upto(k.shift + c, left)), low, high);
}

template <int KIND, int NV, bool STORE>
NNLITE_INLINE void grad_sums_block(const NormGrad& k, int64_t c, int64_t left, float* sum, float* dot) {
    vec mean[NV], total[NV], product[NV];
    for (int v = 0; v < NV; ++v) {
        mean[v] = load_upto(k.mean + c + v * VL, left - v * VL);
        total[v] = product[v] = vec{};
    }
    for (int64_t m = 0; m < k.rows; ++m)
        for (int v = 0; v < NV; ++v) {
            const int64_t at = m * k.C + c + v * VL;
            const vec x = load_upto(k.x + at, left - v * VL);
            const vec g = passed<KIND>(k, x, at, c + v * VL, left - v * VL);
            if (STORE) store_upto(k.gresidual + at, g, left - v * VL);
            total[v] += g;
            product[v] = fma(g, x - mean[v], product[v]);
        }
    for (int v = 0; v < NV; ++v) {
        store_upto(sum + c + v * VL, total[v], left - v * VL);
        store_upto(dot + c + v * VL, product[v] * load_upto(k.inv_std + c + v * VL, left - v * VL), left - v * VL);
    }
}

template <bool STORE>
struct GradSumsLoop {
    const NormGrad& k;
    float *sum, *dot;

    template <int KIND>
    NNLITE_INLINE void run() const {
        constexpr int64_t wide = norm_vectors * VL;
        int64_t c = 0;
        for (; c + wide <= k.C; c += wide) grad_sums_block<KIND, norm_vectors, STORE>(k, c, wide, sum, dot);
        for (; c + VL <= k.C; c += VL) grad_sums_block<KIND, 1, STORE>(k, c, VL, sum, dot);
        if (c < k.C) grad_sums_block<KIND, 1, STORE>(k, c, k.C - c, sum, dot);
    }
};

void grad_sums(const NormGrad& k, float* sum, float* dot) {
    if (k.gresidual) with_kind(k.act, GradSumsLoop<true>{k, sum, dot});
    else with_kind(k.act, GradSumsLoop<false>{k, sum, dot});
}

template <bool CENTRED>
struct GradRowsLoop {
    const NormGrad& k;

    template <int KIND>
    NNLITE_INLINE void vector(int64_t at, int64_t c, int64_t left) const {
        const bool needs_x = CENTRED || (KIND != no_activation && !k.y);
        const vec x = needs_x ? load_upto(k.x + at, left) : vec{};
        vec value = passed<KIND>(k, x, at, c, left) * load_upto(k.a + c, left);
        if (CENTRED) {
            const vec centred = x - load_upto(k.mean + c, left);
            value += fma(centred, load_upto(k.b + c, left), load_upto(k.d + c, left));
        }
        k.stream ? stream(k.gx + at, value) : store_upto(k.gx + at, value, left);
    }
    template <int KIND>
    NNLITE_INLINE void run() const {
        for (int64_t m = 0; m < k.rows; ++m) {
            int64_t c = 0;
            for (; c + VL <= k.C; c += VL) vector<KIND>(m * k.C + c, c, VL);
            if (c < k.C) vector<KIND>(m * k.C + c, c, k.C - c);
        }
    }
};

void grad_rows(const NormGrad& k) {
    if (k.b) with_kind(k.act, GradRowsLoop<true>{k});
    else with_kind(k.act, GradRowsLoop<false>{k});
    if (k.stream) done_streaming();
}

template <int NV>
NNLITE_INLINE void sum_block(int64_t rows, int64_t C, const float* x, int64_t left, float* sum) {
    vec total[NV];
    for (int v = 0; v < NV; ++v) total[v] = vec{};
    for (int64_t m = 0; m < rows; ++m)
        for (int v = 0; v < NV; ++v) total[v] += load_upto(x + m * C + v * VL, left - v * VL);
    for (int v = 0; v < NV; ++v) store_upto(sum + v * VL, total[v], left - v * VL);
}

void sum_rows(int64_t rows, int64_t C, const float* x, float* sum) {
    constexpr int64_t wide = norm_vectors * VL;
    int64_t c = 0;
    for (; c + wide <= C; c += wide) sum_block<norm_vectors>(rows, C, x + c, wide, sum + c);
    for (; c < C; c += VL) sum_block<1>(rows, C, x + c, C - c, sum + c);
}

}  // namespace
}  // namespace nnlite
