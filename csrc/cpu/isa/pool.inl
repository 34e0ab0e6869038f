// Pooling of bands of rows: vectors run along channels, several at a time for each window.

namespace nnlite {
namespace {

constexpr int pool_vectors = 4;  // of channels

// The integers t in [0, taps) with low <= start + t·step < high.
struct TapSpan {
    int64_t begin, end;

    NNLITE_INLINE TapSpan(int64_t start, int64_t step, int64_t taps, int64_t low, int64_t high) {
        begin = start < low ? up(low - start, step) : 0;
        end = start < high ? up(high - start, step) : 0;
        if (end > taps) end = taps;
        if (begin > end) begin = end;
    }
    NNLITE_INLINE int64_t count() const { return end - begin; }

   private:
    static NNLITE_INLINE int64_t up(int64_t distance, int64_t step) {
        return step == 1 ? distance : (distance + step - 1) / step;
    }
};

// body.run<NV>(c, left) over the channels: NV whole vectors from c on, or one of `left` elements.
template <class Body>
NNLITE_INLINE void pool_channels(int64_t channels, const Body& body) {
    int64_t c = 0;
    for (; c + pool_vectors * VL <= channels; c += pool_vectors * VL) body.template run<pool_vectors>(c, VL);
    for (; c < channels; c += VL) body.template run<1>(c, channels - c);
}

template <int NV>
NNLITE_INLINE void pool_store(float* to, const vec* v, int64_t left, bool past_caches) {
    if (past_caches) {
#pragma GCC unroll 4
        for (int i = 0; i < NV; ++i) stream(to + i * VL, v[i]);
    } else {
#pragma GCC unroll 4
        for (int i = 0; i < NV; ++i) store_upto(to + i * VL, v[i], left);
    }
}

// ---- forward

// One window: its taps inside the source, the first of which is at `corner`.
struct PoolWindow {
    const float* corner;
    int64_t rows, columns, row_pitch, column_pitch;
};

template <bool Indexed>
struct MaxWindow {
    PoolWindow w;
    int64_t first, row_step, column_step;  // where the corner is, h·width + w, and from tap to tap
    float* y;
    int32_t* index;
    bool past_caches;

    template <int NV>
    NNLITE_INLINE void run(int64_t c, int64_t left) const {
        vec best[NV];
        ivec where[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) best[v] = splat(-__builtin_inff()), where[v] = splat(static_cast<int32_t>(first));
        for (int64_t a = 0; a < w.rows; ++a) {
            const float* x = w.corner + a * w.row_pitch + c;
            int64_t position = first + a * row_step;
            for (int64_t b = 0; b < w.columns; ++b, x += w.column_pitch, position += column_step) {
                const ivec at = splat(static_cast<int32_t>(position));
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) keep_larger(load_upto(x + v * VL, left), at, best[v], where[v]);
            }
        }
        pool_store<NV>(y + c, best, left, past_caches);
        if (!Indexed) return;
        if (past_caches) {
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v)
                stream(reinterpret_cast<float*>(index + c + v * VL), reinterpret_cast<vec>(where[v]));
        } else {
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) store_upto(index + c + v * VL, where[v], left);
        }
    }
};

struct AverageWindow {
    PoolWindow w;
    float share;
    float* y;
    bool past_caches;

    template <int NV>
    NNLITE_INLINE void run(int64_t c, int64_t left) const {
        vec sum[NV] = {};
        for (int64_t a = 0; a < w.rows; ++a) {
            const float* x = w.corner + a * w.row_pitch + c;
            for (int64_t b = 0; b < w.columns; ++b, x += w.column_pitch)
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) sum[v] += load_upto(x + v * VL, left);
        }
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[v] *= splat(share);
        pool_store<NV>(y + c, sum, left, past_caches);
    }
};

// The part of the source that the window below (i,j) will be the first to see: step_h rows, step_w pixels of each.
NNLITE_INLINE void pool_fetch(const Windows& t, int64_t below, int64_t x) {
    const int64_t end = below + t.step_h < t.height ? below + t.step_h : t.height;
    for (int64_t h = below; h < end; ++h) {
        const float* pixels = t.source + (h * t.width + x) * t.channels;
        for (int64_t i = 0; i < t.step_w * t.channels; i += 16) __builtin_prefetch(pixels + i);
    }
}

// body(window, i, j, first row, first column) over the windows of the band.
template <class Body>
NNLITE_INLINE void for_each_window(const Windows& t, const Body& body) {
    const int64_t row = t.width * t.channels;
    for (int64_t i = t.begin; i < t.end; ++i) {
        const int64_t y = i * t.step_h + t.offset_h;
        const TapSpan rows(y, t.tap_h, t.R, 0, t.height);
        for (int64_t j = 0; j < t.columns; ++j) {
            const int64_t x = j * t.step_w + t.offset_w;
            const TapSpan columns(x, t.tap_w, t.S, 0, t.width);
            const int64_t h = y + rows.begin * t.tap_h, w = x + columns.begin * t.tap_w;
            body({t.source + h * row + w * t.channels, rows.count(), columns.count(), t.tap_h * row, t.tap_w * t.channels},
                 i, j, h, w);
            pool_fetch(t, y + (t.R - 1) * t.tap_h + 1, x);
        }
    }
}

template <bool Indexed>
void max_pool_windows(const MaxPoolBand& t) {
    for_each_window(t.windows, [&](const PoolWindow& taps, int64_t i, int64_t j, int64_t h, int64_t w) {
        const int64_t out = (i * t.windows.columns + j) * t.windows.channels;
        pool_channels(t.windows.channels,
                      MaxWindow<Indexed>{taps, h * t.windows.width + w, t.windows.tap_h * t.windows.width,
                                         t.windows.tap_w, t.y + out, Indexed ? t.index + out : nullptr, t.stream});
    });
}

void max_pool_band(const MaxPoolBand& t) {
    t.index ? max_pool_windows<true>(t) : max_pool_windows<false>(t);
    if (t.stream) done_streaming();
}

void average_pool_band(const AveragePoolBand& t) {
    const Windows& g = t.windows;
    for_each_window(g, [&](const PoolWindow& taps, int64_t i, int64_t j, int64_t, int64_t) {
        const TapSpan rows(i * g.step_h + g.offset_h, g.tap_h, g.R, t.top, t.bottom);
        const TapSpan columns(j * g.step_w + g.offset_w, g.tap_w, g.S, t.left, t.right);
        const float share = 1.0f / static_cast<float>(rows.count() * columns.count());
        pool_channels(g.channels, AverageWindow{taps, share, t.y + (i * g.columns + j) * g.channels, t.stream});
    });
    if (t.stream) done_streaming();
}

// ---- gradients: each source pixel gathers from the windows that span it

// The output positions whose windows span source position `at`, with dilation whether they hold it or not.
struct Holders {
    int64_t begin = 0, end = 0;

    // For positions in ascending order: each call moves on from the one before.
    NNLITE_INLINE void move_to(int64_t at, int64_t step, int64_t offset, int64_t extent, int64_t positions) {
        while (end < positions && end * step + offset <= at) ++end;
        while (begin < end && begin * step + offset + extent <= at) ++begin;
    }
};

struct MaxGradPixel {
    const PoolGrad& t;
    Holders rows, columns;
    ivec at;
    float* gx;

    template <int NV>
    NNLITE_INLINE void run(int64_t c, int64_t left) const {
        vec sum[NV] = {};
        for (int64_t i = rows.begin; i < rows.end; ++i)
            for (int64_t j = columns.begin; j < columns.end; ++j) {
                const int64_t from = (i * t.windows.columns + j) * t.windows.channels + c;
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v)
                    sum[v] = add_where_equal(load_upto(t.index + from + v * VL, left), at,
                                             load_upto(t.gy + from + v * VL, left), sum[v]);
            }
        pool_store<NV>(gx + c, sum, left, t.stream);
    }
};

struct AverageGradPixel {
    const PoolGrad& t;
    Holders rows, columns;
    int64_t h, w;
    float* gx;

    static NNLITE_INLINE bool holds(int64_t distance, int64_t tap) { return tap == 1 || distance % tap == 0; }

    template <int NV>
    NNLITE_INLINE void run(int64_t c, int64_t left) const {
        const Windows& g = t.windows;
        vec sum[NV] = {};
        for (int64_t i = rows.begin; i < rows.end; ++i) {
            const int64_t y = i * g.step_h + g.offset_h;
            if (!holds(h - y, g.tap_h)) continue;
            const int64_t counted = TapSpan(y, g.tap_h, g.R, t.top, t.bottom).count();
            for (int64_t j = columns.begin; j < columns.end; ++j) {
                const int64_t x = j * g.step_w + g.offset_w;
                if (!holds(w - x, g.tap_w)) continue;
                const int64_t count = counted * TapSpan(x, g.tap_w, g.S, t.left, t.right).count();
                const vec share = splat(1.0f / static_cast<float>(count));
                const float* gy = t.gy + (i * g.columns + j) * g.channels + c;
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) sum[v] = fma(load_upto(gy + v * VL, left), share, sum[v]);
            }
        }
        pool_store<NV>(gx + c, sum, left, t.stream);
    }
};

// body(rows, columns, h, w, gx) over the source pixels of the band.
template <class Body>
NNLITE_INLINE void for_each_source(const PoolGrad& t, const Body& body) {
    const Windows& g = t.windows;
    Holders rows;
    for (int64_t h = g.begin; h < g.end; ++h) {
        rows.move_to(h, g.step_h, g.offset_h, (g.R - 1) * g.tap_h + 1, t.rows);
        Holders columns;
        for (int64_t w = 0; w < g.width; ++w) {
            columns.move_to(w, g.step_w, g.offset_w, (g.S - 1) * g.tap_w + 1, g.columns);
            body(rows, columns, h, w, t.gx + (h * g.width + w) * g.channels);
        }
    }
    if (t.stream) done_streaming();
}

void max_pool_grad(const PoolGrad& t) {
    for_each_source(t, [&](const Holders& rows, const Holders& columns, int64_t h, int64_t w, float* gx) {
        const ivec at = splat(static_cast<int32_t>(h * t.windows.width + w));
        pool_channels(t.windows.channels, MaxGradPixel{t, rows, columns, at, gx});
    });
}

void average_pool_grad(const PoolGrad& t) {
    for_each_source(t, [&](const Holders& rows, const Holders& columns, int64_t h, int64_t w, float* gx) {
        pool_channels(t.windows.channels, AverageGradPixel{t, rows, columns, h, w, gx});
    });
}

}  // namespace
}  // namespace nnlite
