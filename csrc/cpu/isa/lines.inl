// Rows [rows,C], each by itself: softmax, cross-entropy, layer normalisation. Two or three passes over a row, which
// is then in the first-level cache; sums run in two vectors, so that the order of their terms depends on C alone.

namespace nnlite {
namespace {

constexpr int line_vectors = 2;

// A vector's elements added in pairs.
NNLITE_INLINE float sum_of(vec v) {
    float part[VL];
    store(part, v);
    for (int step = VL / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) part[i] += part[i + step];
    return part[0];
}

alignas(64) const int32_t lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// v in the first n lanes, `rest` in the others.
NNLITE_INLINE vec first_lanes(vec v, int64_t n, vec rest) {
    return load(lane_numbers) < splat(static_cast<int32_t>(n)) ? v : rest;
}

// body(c, left, i) over the vectors of a row, i being the accumulator of the vector; `left` elements exist.
template <class Body>
NNLITE_INLINE void over_line(int64_t C, const Body& body) {
    int64_t c = 0;
    for (; c + line_vectors * VL <= C; c += line_vectors * VL) {
#pragma GCC unroll 2
        for (int i = 0; i < line_vectors; ++i) body(c + i * VL, VL, i);
    }
    for (; c < C; c += VL) body(c, C - c < VL ? C - c : VL, 0);
}

NNLITE_INLINE float line_maximum(int64_t C, const float* x) {
    const vec least = splat(-__builtin_inff());
    vec best[line_vectors] = {least, least};
    over_line(C, [&](int64_t c, int64_t left, int i) {
        const vec v = left < VL ? first_lanes(load(x + c, left), left, least) : load(x + c);
        best[i] = v > best[i] ? v : best[i];
    });
    float part[VL], largest = -__builtin_inff();
    store(part, best[0] > best[1] ? best[0] : best[1]);
    for (int i = 0; i < VL; ++i) largest = part[i] > largest ? part[i] : largest;
    return largest;
}

// e^d for d <= 0, and 0 where float32 has next to nothing: a weight of minus infinity is none. NaN stays NaN.
NNLITE_INLINE vec decayed(vec d) { return d < splat(-87.0f) ? vec{} : exponential(d); }

// The sum of e^(x - largest); the terms go to `terms` where that is not null.
NNLITE_INLINE float sum_of_exponentials(int64_t C, const float* x, float largest, float* terms) {
    vec sum[line_vectors] = {};
    over_line(C, [&](int64_t c, int64_t left, int i) {
        const vec e = decayed(load_upto(x + c, left) - splat(largest));
        if (terms) store_upto(terms + c, e, left);
        sum[i] += left < VL ? first_lanes(e, left, vec{}) : e;
    });
    return sum_of(sum[0] + sum[1]);
}

NNLITE_INLINE float logarithm(float x) { return static_cast<float>(__builtin_log(static_cast<double>(x))); }

void softmax_rows(const SoftmaxRows& k) {
    for (int64_t m = 0; m < k.rows; ++m) {
        const float* x = k.x + m * k.C;
        float* y = k.y + m * k.C;
        const float largest = line_maximum(k.C, x);
        const float sum = sum_of_exponentials(k.C, x, largest, k.logarithm ? nullptr : y);
        if (k.logarithm) {
            const vec most = splat(largest), log_sum = splat(logarithm(sum));
            over_line(k.C, [&](int64_t c, int64_t left, int) {
                store_upto(y + c, (load_upto(x + c, left) - most) - log_sum, left);
            });
        } else {
            const vec share = splat(1.0f / sum);
            over_line(k.C, [&](int64_t c, int64_t left, int) {
                store_upto(y + c, load_upto(y + c, left) * share, left);
            });
        }
    }
}

void softmax_grad(const SoftmaxGrad& k) {
    for (int64_t m = 0; m < k.rows; ++m) {
        const float *gy = k.gy + m * k.C, *y = k.y + m * k.C;
        float* gx = k.gx + m * k.C;
        vec sum[line_vectors] = {};
        over_line(k.C, [&](int64_t c, int64_t left, int i) {
            const vec g = load_upto(gy + c, left);
            sum[i] = k.logarithm ? sum[i] + g : fma(g, load_upto(y + c, left), sum[i]);
        });
        const vec total = splat(sum_of(sum[0] + sum[1]));
        over_line(k.C, [&](int64_t c, int64_t left, int) {
            const vec g = load_upto(gy + c, left), v = load_upto(y + c, left);
            store_upto(gx + c, k.logarithm ? fma(-decayed(v), total, g) : v * (g - total), left);
        });
    }
}

// ---- cross-entropy

NNLITE_INLINE float cross_entropy_row(const CrossEntropyRows& k, const float* x, int64_t label, float* gradient) {
    if (label < 0) {
        if (gradient)
            over_line(k.C, [&](int64_t c, int64_t left, int) { store_upto(gradient + c, vec{}, left); });
        return 0;
    }
    const float largest = line_maximum(k.C, x);
    const float sum = sum_of_exponentials(k.C, x, largest, gradient), log_sum = logarithm(sum);
    const float own = (1 - k.smoothing) * (k.weight ? k.weight[label] : 1.0f);
    const float share = k.smoothing / static_cast<float>(k.C);
    float loss = own * (log_sum - (x[label] - largest));
    if (k.smoothing != 0) {  // share · sum of weight (log_sum - (x - largest))
        vec terms[line_vectors] = {};
        over_line(k.C, [&](int64_t c, int64_t left, int i) {
            const vec lack = splat(log_sum) - (load_upto(x + c, left) - splat(largest));
            const vec term = k.weight ? lack * load_upto(k.weight + c, left) : lack;
            terms[i] += left < VL ? first_lanes(term, left, vec{}) : term;
        });
        loss += share * sum_of(terms[0] + terms[1]);
    }
    if (gradient) {
        const vec factor = splat(k.scale * (own + share * k.total_weight) / sum), less = splat(k.scale * share);
        over_line(k.C, [&](int64_t c, int64_t left, int) {
            vec g = load_upto(gradient + c, left) * factor;
            if (k.smoothing != 0) g -= k.weight ? less * load_upto(k.weight + c, left) : less;
            store_upto(gradient + c, g, left);
        });
        gradient[label] -= k.scale * own;
    }
    return loss;
}

void cross_entropy_rows(const CrossEntropyRows& k) {
    for (int64_t m = 0; m < k.rows; ++m)
        k.losses[m] = cross_entropy_row(k, k.logits + m * k.C, k.labels[m],
                                        k.gradient ? k.gradient + m * k.C : nullptr);
}

// ---- layer normalisation

void layer_norm_rows(const LayerNormRows& k) {
    const float inverse = 1.0f / static_cast<float>(k.C);
    for (int64_t m = 0; m < k.rows; ++m) {
        const float* x = k.x + m * k.C;
        vec sum[line_vectors] = {}, square[line_vectors] = {};
        over_line(k.C, [&](int64_t c, int64_t left, int i) { sum[i] += load_upto(x + c, left); });
        const float near = sum_of(sum[0] + sum[1]) * inverse;
        sum[0] = sum[1] = vec{};
        // The rounding of the mean shows in the sum of what is left, and is put right by it.
        over_line(k.C, [&](int64_t c, int64_t left, int i) {
            vec d = load_upto(x + c, left) - splat(near);
            if (left < VL) d = first_lanes(d, left, vec{});
            sum[i] += d;
            square[i] = fma(d, d, square[i]);
        });
        const float rest = sum_of(sum[0] + sum[1]) * inverse;
        float variance = sum_of(square[0] + square[1]) * inverse - rest * rest;
        if (variance < 0) variance = 0;
        const float mean = near + rest;
        const float inv_std = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(variance) + k.epsilon));
        k.mean[m] = mean;
        k.inv_std[m] = inv_std;
        float* y = k.y + m * k.C;
        const vec centre = splat(mean), factor = splat(inv_std);
        over_line(k.C, [&](int64_t c, int64_t left, int) {
            vec v = (load_upto(x + c, left) - centre) * factor;
            if (k.weight) v *= load_upto(k.weight + c, left);
            if (k.bias) v += load_upto(k.bias + c, left);
            store_upto(y + c, v, left);
        });
    }
}

void layer_norm_grad(const LayerNormGrad& k) {
    const float inverse = 1.0f / static_cast<float>(k.C);
    for (int64_t m = 0; m < k.rows; ++m) {
        const float *x = k.x + m * k.C, *gy = k.gy + m * k.C;
        const vec centre = splat(k.mean[m]), factor = splat(k.inv_std[m]);
        vec sum[line_vectors] = {}, dot[line_vectors] = {};
        over_line(k.C, [&](int64_t c, int64_t left, int i) {
            const vec normal = (load_upto(x + c, left) - centre) * factor;
            vec g = load_upto(gy + c, left);
            if (k.weight_sums) {
                store_upto(k.bias_sums + c, load_upto(k.bias_sums + c, left) + g, left);
                store_upto(k.weight_sums + c, fma(g, normal, load_upto(k.weight_sums + c, left)), left);
            }
            if (k.weight) g *= load_upto(k.weight + c, left);
            sum[i] += g;
            dot[i] = fma(g, normal, dot[i]);  // g is 0 beyond the row
        });
        if (!k.gx) continue;
        float* gx = k.gx + m * k.C;
        const vec mean_g = splat(sum_of(sum[0] + sum[1]) * inverse), mean_dot = splat(sum_of(dot[0] + dot[1]) * inverse);
        over_line(k.C, [&](int64_t c, int64_t left, int) {
            const vec normal = (load_upto(x + c, left) - centre) * factor;
            vec g = load_upto(gy + c, left);
            if (k.weight) g *= load_upto(k.weight + c, left);
            store_upto(gx + c, factor * fma(-normal, mean_dot, g - mean_g), left);
        });
    }
}

}  // namespace
}  // namespace nnlite
