// Rows of a resized picture: each pixel is a weighted sum of a few source pixels, vectors run along channels.

namespace nnlite {
namespace {

struct ResizePixel {
    const ResizeRow& t;
    int64_t begin, end;  // of the taps along the row
    float* y;

    template <int NV>
    NNLITE_INLINE void run(int64_t c, int64_t left) const {
        vec sum[NV] = {};
        for (int64_t a = 0; a < t.row_taps; ++a) {
            const float* row = t.x + t.rows[a] * t.width * t.channels + c;
            for (int64_t b = begin; b < end; ++b) {
                const vec weight = splat(t.row_weights[a] * t.column_weights[b]);
                const float* x = row + t.columns[b] * t.channels;
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) sum[v] = fma(load_upto(x + v * VL, left), weight, sum[v]);
            }
        }
        pool_store<NV>(y + c, sum, left, t.stream);
    }
};

void resize_row(const ResizeRow& t) {
    for (int64_t q = 0; q < t.out_columns; ++q)
        pool_channels(t.channels, ResizePixel{t, t.column_start[q], t.column_start[q + 1], t.y + q * t.channels});
    if (t.stream) done_streaming();
}

}  // namespace
}  // namespace nnlite
