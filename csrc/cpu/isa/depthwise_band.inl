// Depthwise convolution whose kernel rows lie on adjacent pixels (no horizontal dilation), stride 1 or 2.
//
// Along a row a window of Q pixels slides: each source vector is loaded once per kernel row and meets every pixel
// of the window that it belongs to, 9 loads of x for 21 multiply-adds of 3x3. Two orders:
//   channels first   a window is computed for all channels before the next: x is read as it lies in memory.
//   rows first       a band of rows is computed for two vectors of channels, from top to bottom: what the windows
//                    of adjacent rows share is then still in the first-level cache. For large maps at stride 1,
//                    where that is most.
// Either walk takes one line in every few, which no prefetcher of the processor follows: what comes next is
// fetched meanwhile where maps are so large that they come from memory.

namespace nnlite {
namespace {

constexpr int band_vectors = 2;  // of channels: with AVX2 a whole line of 64 bytes

// Pixels per window. With 32 registers 7, since maps of common networks are multiples of 7 wide; at stride 2 the
// source vectors of more than 4 are too many at once for the buffers that wait for memory (measured).
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int band_pixels(int T) { return T == 1 ? 7 : 4; }
constexpr bool few_registers = false;
#else
constexpr int band_pixels(int) { return 4; }
constexpr bool few_registers = true;  // the weights of more than 3 taps and the sums: one vector after the other
#endif

// The kernel rows inside the source for one output row.
struct BandRow {
    const float* source;  // the pixel that tap b = 0 of the first kernel row meets at j = 0
    int64_t first, count, pitch;
};

NNLITE_INLINE BandRow band_row(const Windows& t, int64_t i, int64_t c) {
    const int64_t y = i * t.step_h + t.offset_h, row = t.width * t.channels;
    int64_t first = 0, end = t.R;
    while (first < end && y + first * t.tap_h < 0) ++first;
    while (end > first && y + (end - 1) * t.tap_h >= t.height) --end;
    return {t.source + (y + first * t.tap_h) * row + t.offset_w * t.channels + c, first, end - first, t.tap_h * row};
}

// The columns for which all S taps lie inside the source: [begin, end).
template <int S, int T>
NNLITE_INLINE void band_inside(const Windows& t, int64_t& begin, int64_t& end) {
    const int64_t last = t.width - S - t.offset_w;
    begin = t.offset_w < 0 ? (-t.offset_w + T - 1) / T : 0;
    end = last < 0 ? 0 : last / T + 1;
}

// Whole vectors, or the first `left` elements of one.
template <bool Part>
NNLITE_INLINE vec band_load(const float* p, int64_t left) {
    return Part ? load(p, left) : load(p);
}

template <bool Part>
NNLITE_INLINE void band_store(float* p, vec v, int64_t left) {
    Part ? store(p, v, left) : store(p, v);
}

// Which of the `count` source columns from `first` on, seen from offset_w, exist.
template <int count>
struct BandColumns {
    int begin, end;

    NNLITE_INLINE BandColumns(const Windows& t, int64_t first) {
        const int64_t leftmost = first + t.offset_w;
        begin = leftmost < 0 ? (-leftmost < count ? static_cast<int>(-leftmost) : count) : 0;
        end = t.width - leftmost < count ? static_cast<int>(t.width - leftmost) : count;
    }
    NNLITE_INLINE bool inside(int column) const { return column >= begin && column < end; }
};

// body(whole, Q, j) over the columns in windows of Q pixels; `whole` where no tap is outside the source.
template <int S, int T, int Q, class Body>
NNLITE_INLINE void band_columns(const Windows& t, const Body& body) {
    int64_t begin, end, j = 0;
    band_inside<S, T>(t, begin, end);
    for (; j + Q <= t.columns; j += Q) {
        if (j >= begin && j + Q <= end)
            body.template window<Q, false>(j);
        else
            body.template window<Q, true>(j);
    }
    for (; j + 3 <= t.columns; j += 3) body.template window<3, true>(j);
    for (; j < t.columns; ++j) body.template window<1, true>(j);
}

// Fetches columns [j·T, (j + Q)·T) of the `fresh` last kernel rows, `ahead` of where they are now.
template <int T, int Q, int NV>
NNLITE_INLINE void band_fetch(const Windows& t, const BandRow& rows, int64_t fresh, int64_t ahead, int64_t j) {
    for (int64_t a = rows.count - fresh; a < rows.count; ++a) {
        const float* x = rows.source + a * rows.pitch + j * T * t.channels + ahead;
#pragma GCC unroll 16
        for (int column = 0; column < Q * T; ++column)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) __builtin_prefetch(x + column * t.channels + v * VL);
    }
}

// From channels c of a band to what is computed after them: the next channels or, from the last ones, the next band.
NNLITE_INLINE int64_t band_ahead(const Windows& t, int64_t c, int64_t channels) {
    if (c + channels < t.channels) return channels;
    return (t.end - t.begin) * t.step_h * t.width * t.channels - c;
}

// Kernel rows that output row i meets and the one above did not.
NNLITE_INLINE int64_t band_fresh(const Windows& t, const BandRow& rows, int64_t i) {
    return i == t.begin || t.step_h > rows.count ? rows.count : t.step_h;
}

// ---- forward, and the input gradient

template <int S, int T, int NV, bool Part>
struct BandForward {
    const DepthwiseBand& t;
    const BandRow rows;
    float* out;
    int64_t c, left, fresh, ahead;

    // What follows the sums of Q pixels from column j on.
    template <int Q>
    NNLITE_INLINE void finish(int64_t j, vec (*sum)[NV]) const {
        if (t.residual) {
            const float* residual = t.residual + (out - t.out) + j * t.out_pixel;
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q, residual += t.out_pixel)
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) sum[q][v] += band_load<Part>(residual + v * VL, left);
        }
        const Bounds bounds(t.act);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) sum[q][v] = bounds.within(sum[q][v]);
    }

    template <int Q, bool Edge>
    NNLITE_INLINE void window(int64_t j) const {
        vec sum[Q][NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
            const vec bias = t.bias ? band_load<Part>(t.bias + c + v * VL, left) : vec{};
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q) sum[q][v] = bias;
        }
        const int64_t channels = t.windows.channels;
        const BandColumns<(Q - 1) * T + S> columns(t.windows, j * T);
        constexpr int together = few_registers && S > 3 ? 1 : NV;
#pragma GCC unroll 2
        for (int first = 0; first < NV; first += together)
            for (int64_t a = 0; a < rows.count; ++a) {
                const float* x = rows.source + a * rows.pitch + j * T * channels + first * VL;
                const float* w_tap = t.w + (rows.first + a) * t.w_row + c + first * VL;
                vec w[S][together];
#pragma GCC unroll 8
                for (int s = 0; s < S; ++s, w_tap += t.w_step)
#pragma GCC unroll 2
                    for (int v = 0; v < together; ++v) w[s][v] = load(w_tap + v * VL);
#pragma GCC unroll 16
                for (int column = 0; column < (Q - 1) * T + S; ++column, x += channels)
                    if (!Edge || columns.inside(column))
#pragma GCC unroll 2
                        for (int v = 0; v < together; ++v) {
                            const vec value = band_load<Part>(x + v * VL, left);
#pragma GCC unroll 8
                            for (int q = 0; q < Q; ++q)
                                if (column - q * T >= 0 && column - q * T < S)
                                    sum[q][first + v] = fma(value, w[column - q * T][v], sum[q][first + v]);
                        }
            }
        if (!Part) band_fetch<T, Q, NV>(t.windows, rows, fresh, ahead, j);
        finish<Q>(j, sum);
        float* to = out + j * t.out_pixel;
        if (!Part && NV * VL >= 16 && t.stream) {  // whole lines only
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q, to += t.out_pixel)
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) stream(to + v * VL, sum[q][v]);
        } else {
#pragma GCC unroll 8
            for (int q = 0; q < Q; ++q, to += t.out_pixel)
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) band_store<Part>(to + v * VL, sum[q][v], left);
        }
    }
};

// Rows first: all rows of channels [c, c + NV·VL).
template <int S, int T, int NV>
void depthwise_strip(const DepthwiseBand& t, int64_t c) {
    const int64_t ahead = band_ahead(t.windows, c, NV * VL);
    for (int64_t i = t.windows.begin; i < t.windows.end; ++i) {
        const BandRow rows = band_row(t.windows, i, c);
        const BandForward<S, T, NV, false> body = {
            t, rows, t.out + i * t.out_row + c, c, NV * VL, band_fresh(t.windows, rows, i), ahead};
        band_columns<S, T, band_pixels(T)>(t.windows, body);
    }
}

// Channels first: one row.
template <int S, int T>
struct DepthwiseRowForward {
    const DepthwiseBand& t;
    const BandRow rows;  // at channel 0
    float* out;
    int64_t fresh;

    template <int NV, bool Part, int Q, bool Edge>
    NNLITE_INLINE void strip(int64_t c, int64_t j) const {
        const BandRow at_channel = {rows.source + c, rows.first, rows.count, rows.pitch};
        const int64_t next_window = Q * T * t.windows.channels;
        BandForward<S, T, NV, Part>{t, at_channel, out + c, c, t.windows.channels - c, fresh, next_window}
            .template window<Q, Edge>(j);
    }

    template <int Q, bool Edge>
    NNLITE_INLINE void window(int64_t j) const {
        const int64_t C = t.windows.channels;
        int64_t c = 0;
        for (; c + band_vectors * VL <= C; c += band_vectors * VL) strip<band_vectors, false, Q, Edge>(c, j);
        for (; c + VL <= C; c += VL) strip<1, false, Q, Edge>(c, j);
        if (c < C) strip<1, true, Q, Edge>(c, j);
    }
};

template <int S, int T>
struct DepthwiseForward {
    static void run(const DepthwiseBand& t) {
        const Windows& windows = t.windows;
        if (T == 1 && t.stream) {
            const int64_t C = windows.channels;  // a multiple of 16 where outputs are streamed
            int64_t c = 0;
            for (; c + band_vectors * VL <= C; c += band_vectors * VL)
                depthwise_strip<S, T, band_vectors>(t, c);
            for (; c < C; c += VL) depthwise_strip<S, T, 1>(t, c);
            return;
        }
        for (int64_t i = windows.begin; i < windows.end; ++i) {
            const BandRow rows = band_row(windows, i, 0);
            const int64_t fresh = t.stream ? band_fresh(windows, rows, i) : 0;
            band_columns<S, T, band_pixels(T)>(windows,
                                               DepthwiseRowForward<S, T>{t, rows, t.out + i * t.out_row, fresh});
        }
    }
};

// ---- weight gradient: the sums of a kernel row stay in registers along the row

template <int S, int T, int NV, bool Part>
struct BandGrad {
    const DepthwiseGradBand& t;
    const float* x;    // one kernel row's
    const float* gy;   // [columns][channels]
    vec (&sum)[S][NV];
    int64_t left;

    template <int Q, bool Edge>
    NNLITE_INLINE void window(int64_t j) const {
        const int64_t channels = t.windows.channels;
        const BandColumns<(Q - 1) * T + S> columns(t.windows, j * T);
        const float* gy_pixel = gy + j * channels;
        const float* x_pixel = x + j * T * channels;
        vec g[Q][NV];
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q, gy_pixel += channels)
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) g[q][v] = band_load<Part>(gy_pixel + v * VL, left);
#pragma GCC unroll 16
        for (int column = 0; column < (Q - 1) * T + S; ++column, x_pixel += channels)
            if (!Edge || columns.inside(column))
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) {
                    const vec value = band_load<Part>(x_pixel + v * VL, left);
#pragma GCC unroll 8
                    for (int q = 0; q < Q; ++q)
                        if (column - q * T >= 0 && column - q * T < S)
                            sum[column - q * T][v] = fma(value, g[q][v], sum[column - q * T][v]);
                }
    }
};

template <int S, int T, int NV, bool Part>
void depthwise_grad_channels(const DepthwiseGradBand& t, int64_t c, int64_t left) {
    constexpr int Q = Part ? 3 : band_pixels(T);
    const Windows& windows = t.windows;
    const int64_t ahead = band_ahead(windows, c, NV * VL);
    const bool last = c + NV * VL >= windows.channels;
    const int64_t gy_ahead = last ? (windows.end - windows.begin) * windows.columns * windows.channels - c : NV * VL;
    for (int64_t i = windows.begin; i < windows.end; ++i) {
        const BandRow rows = band_row(windows, i, c);
        const float* gy = t.gy + i * windows.columns * windows.channels + c;
        for (int64_t a = 0; a < rows.count; ++a) {
            float* sums = t.sums + (rows.first + a) * S * t.sums_step + c;
            vec sum[S][NV];
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s)
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) sum[s][v] = load(sums + s * t.sums_step + v * VL);
            const BandGrad<S, T, NV, Part> body = {t, rows.source + a * rows.pitch, gy, sum, left};
            band_columns<S, T, Q>(windows, body);
#pragma GCC unroll 8
            for (int s = 0; s < S; ++s)
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) store(sums + s * t.sums_step + v * VL, sum[s][v]);
        }
        if (Part) continue;
        const int64_t fresh = band_fresh(windows, rows, i);
        for (int64_t j = 0; j < windows.columns; ++j) {
            band_fetch<T, 1, NV>(windows, rows, fresh, ahead, j);
            const float* next = gy + j * windows.channels + gy_ahead;
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) __builtin_prefetch(next + v * VL);
        }
    }
}

template <int S, int T>
struct DepthwiseGrad {
    static void run(const DepthwiseGradBand& t) {
        const int64_t C = t.windows.channels;
        int64_t c = 0;
        for (; c + band_vectors * VL <= C; c += band_vectors * VL)
            depthwise_grad_channels<S, T, band_vectors, false>(t, c, VL);
        for (; c + VL <= C; c += VL) depthwise_grad_channels<S, T, 1, false>(t, c, VL);
        if (c < C) depthwise_grad_channels<S, T, 1, true>(t, c, C - c);
    }
};

// ---- which kernel serves: those that has_depthwise_band() knows

template <template <int, int> class Kernel, class Task>
NNLITE_INLINE void serve_band(const Task& t) {
    if (t.windows.step_w == 1) switch (t.windows.S) {
            case 1: return Kernel<1, 1>::run(t);
            case 2: return Kernel<2, 1>::run(t);
            case 3: return Kernel<3, 1>::run(t);
            case 5: return Kernel<5, 1>::run(t);
            case 7: return Kernel<7, 1>::run(t);
        }
    switch (t.windows.S) {
        case 3: return Kernel<3, 2>::run(t);
        case 5: return Kernel<5, 2>::run(t);
        case 7: return Kernel<7, 2>::run(t);
    }
}

void depthwise_band(const DepthwiseBand& t) {
    serve_band<DepthwiseForward>(t);
    if (t.stream) done_streaming();
}

void depthwise_grad_band(const DepthwiseGradBand& t) { serve_band<DepthwiseGrad>(t); }

}  // namespace
}  // namespace nnlite
