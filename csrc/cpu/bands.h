// Cutting maps into bands of rows, for kernels whose windows overlap from row to row.
#pragma once

#include <stdint.h>

#include "parallel.h"

namespace nnlite {

struct Bands {
    int64_t rows, per_image;  // rows per band

    // `rows_per_image` rows of the output, each of which takes `work` multiplications and touches `bytes`: as
    // many as half a second-level cache holds, fewer where there are fewer than 16 bands in all.
    Bands(int64_t N, int64_t rows_per_image, int64_t work, int64_t bytes) {
        constexpr int64_t cache = 1 << 19;
        rows = bytes > 0 && cache / bytes < rows_per_image ? cache / bytes : rows_per_image;
        const int64_t share = (N * rows_per_image + 15) / 16;
        if (rows > share) rows = share;
        const int64_t least = grain_for(work, 1 << 17);
        if (rows < least) rows = least;
        if (rows > rows_per_image) rows = rows_per_image;
        if (rows < 1) rows = 1;
        per_image = (rows_per_image + rows - 1) / rows;
        rows = per_image > 0 ? (rows_per_image + per_image - 1) / per_image : 1;
    }
};

// body(n, begin, end) for the bands of rows of each image.
template <class Body>
void for_each_band(int64_t N, int64_t rows_per_image, int64_t work, int64_t bytes, const Body& body) {
    const Bands bands(N, rows_per_image, work, bytes);
    parallel_for(N * bands.per_image, grain_for(bands.rows * work, 1 << 17), [&](int64_t begin, int64_t end) {
        for (int64_t band = begin; band < end; ++band) {
            const int64_t first = band % bands.per_image * bands.rows, last = first + bands.rows;
            body(band / bands.per_image, first, last < rows_per_image ? last : rows_per_image);
        }
    });
}

// Whether an output goes past the caches: it is so large that none would keep it until the next layer reads
// it. That halves the traffic, since a line that is written whole need not be read before. Only for whole
// lines of 64 bytes: an aligned output whose pixels are multiples of them.
inline bool streams(const void* output, int64_t elements, int64_t channels) {
    constexpr int64_t least = 1 << 21;  // 8 MB
    return elements >= least && channels % 16 == 0 && reinterpret_cast<uintptr_t>(output) % 64 == 0;
}

}  // namespace nnlite
