// Sums down rows [M,C]: per chunk of rows in float32, where each chunk fits the second-level cache, and over the
// chunks in float64. The cut depends on M and C alone.
#pragma once

#include <stdint.h>

#include "../include/params.h"
#include "parallel.h"

namespace nnlite {

struct RowChunks {
    int64_t rows, count;  // rows per chunk

    explicit RowChunks(const Norm& g) {
        rows = (int64_t{1} << 14) / (g.C > 0 ? g.C : 1);  // 64 KB of x
        if (rows < 16) rows = 16;
        if (rows > 256) rows = 256;  // float32 sums of more terms would lose digits
        count = (g.M + rows - 1) / rows;
    }
    // The i-th chunk to visit. Whoever wrote the rows wrote the last ones last, so they are still in the
    // cache; and the pass after this one, from the start, finds the first ones there.
    int64_t from_the_end(int64_t i) const { return count - 1 - i; }
    int64_t length(int64_t chunk, int64_t M) const { return (chunk + 1) * rows <= M ? rows : M - chunk * rows; }
};

constexpr int64_t channel_block = 64;

// Sums over the chunks in float64, block of channels by block: totals(c, sum over chunks of first, of second).
template <class Totals>
void merge_sums(int64_t C, int64_t chunks, const float* first, const float* second, const Totals& totals) {
    const int64_t blocks = (C + channel_block - 1) / channel_block;
    parallel_for(blocks, grain_for(chunks * channel_block), [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            const int64_t low = block * channel_block;
            const int64_t high = low + channel_block < C ? low + channel_block : C;
            double a[channel_block] = {}, b[channel_block] = {};
            for (int64_t chunk = 0; chunk < chunks; ++chunk)
                for (int64_t c = low; c < high; ++c) {
                    a[c - low] += first[chunk * C + c];
                    if (second) b[c - low] += second[chunk * C + c];
                }
            for (int64_t c = low; c < high; ++c) totals(c, a[c - low], b[c - low]);
        }
    });
}

}  // namespace nnlite
