// Pooling: vectors run along channels; the caller lists the window's elements that lie in the input.

namespace nnlite {
namespace {

void max_rows(int64_t count, const float* const* rows, const int32_t* at, int64_t C, bool more, float* y,
              int32_t* index) {
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t left = C - c;
        vec best = load_upto(more ? y + c : rows[0] + c, left);
        ivec where = splat(at[0]);
        if (more && index) where = load_upto(index + c, left);
        for (int64_t i = more ? 0 : 1; i < count; ++i) {
            const vec value = load_upto(rows[i] + c, left);
            // Larger wins; a NaN (unequal to itself) wins over anything but an earlier NaN.
            const ivec wins = (value > best) | ((value != value) & (best == best));
            best = select(wins, value, best);
            where = select(wins, splat(at[i]), where);
        }
        store_upto(y + c, best, left);
        if (index) store_upto(index + c, where, left);
    }
}

void sum_where(int64_t count, const float* const* gy, const int32_t* const* index, int32_t at, int64_t C, bool more,
               float* gx) {
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t left = C - c;
        vec sum = more ? load_upto(gx + c, left) : vec{};
        for (int64_t i = 0; i < count; ++i) {
            const ivec here = load_upto(index[i] + c, left) == splat(at);
            sum += select(here, load_upto(gy[i] + c, left), vec{});
        }
        store_upto(gx + c, sum, left);
    }
}

void weighted_sum(int64_t count, const float* const* rows, const float* weights, int64_t C, bool more, float* y) {
    for (int64_t c = 0; c < C; c += VL) {
        const int64_t left = C - c;
        vec sum = more ? load_upto(y + c, left) : vec{};
        for (int64_t i = 0; i < count; ++i) sum = fma(load_upto(rows[i] + c, left), splat(weights[i]), sum);
        store_upto(y + c, sum, left);
    }
}

}  // namespace
}  // namespace nnlite
