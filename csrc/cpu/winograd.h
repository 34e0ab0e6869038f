// What Winograd's kernels share: where tiles lie, and arrays of planes.
#pragma once

#include "gather.h"

namespace nnlite {

// So that planes and rows do not all fall into the same cache set: an odd number of cache lines. With
// 36 stores 8 KB apart the weights' transform took two to four times as long.
inline int64_t odd_lines(int64_t floats) { return (floats + 15) / 16 / 2 * 32 + 16; }

// The tiles of m x m that a map is cut into, and where each lies.
struct Tiles {
    int64_t m, height, width, count;

    Tiles(int64_t m_, const Gather& g)
        : m(m_), height((g.h.out + m - 1) / m), width((g.w.out + m - 1) / m), count(g.N * height * width) {}

    struct Place {
        int64_t n, i, j;  // image, first output row and column
    };
    Place place(int64_t tile) const { return {tile / width / height, tile / width % height * m, tile % width * m}; }
};

// Asks for the pixels of a tile to come: rows [0, rows), columns [first, columns). A tile is a dozen short runs
// of memory, too many for the hardware to foresee; asking halves the time of the transforms.
template <int write>
void prefetch_pixels(const float* from, const Grid& grid, int64_t rows, int64_t first, int64_t columns,
                     int64_t channels) {
    for (int64_t a = 0; a < rows; ++a)
        for (int64_t b = first; b < columns; ++b)
            for (int64_t c = 0; c < channels; c += 16)
                __builtin_prefetch(from + a * grid.row + b * grid.pixel + c, write);
}

}  // namespace nnlite
