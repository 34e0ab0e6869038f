// The functions of tiles.inl without AMX, operation by operation as Intel's manual has them (Software Developer's
// Manual, volume 2, TDPBUSD and TDPBF16PS): the kernel around them can be tested on processors without tiles.
//
// What the processor refuses ends the program. Denormals are zeros because they are in every thread that computes
// (FlushDenormals in dispatch.h); the processor takes them so in any mode.

namespace nnlite {
namespace {

struct Tile {
    unsigned char rows[tile_rows][tile_bytes];
};

struct Tiles {
    TileShapes shapes;
    Tile tile[8];

    int rows(int t) const { return shapes.rows[t]; }
    int bytes(int t) const { return shapes.row_bytes[t]; }
};
thread_local Tiles tiles;

NNLITE_INLINE void must(bool holds) {
    if (!holds) __builtin_trap();
}

NNLITE_INLINE void configure_tiles(const TileShapes& shapes) {
    must(shapes.palette == 1);
    tiles = Tiles{};
    tiles.shapes = shapes;
}
NNLITE_INLINE void release_tiles() { tiles = Tiles{}; }

template <int t>
NNLITE_INLINE void clear_tile() {
    must(tiles.rows(t));
    tiles.tile[t] = Tile{};
}

template <int t>
NNLITE_INLINE void load_tile(const void* from, int64_t step) {
    clear_tile<t>();
    for (int m = 0; m < tiles.rows(t); ++m)
        __builtin_memcpy(tiles.tile[t].rows[m], static_cast<const char*>(from) + m * step,
                         static_cast<size_t>(tiles.bytes(t)));
}
template <int t>
NNLITE_INLINE void store_tile(void* to, int64_t step) {
    must(tiles.rows(t));
    for (int m = 0; m < tiles.rows(t); ++m)
        __builtin_memcpy(static_cast<char*>(to) + m * step, tiles.tile[t].rows[m],
                         static_cast<size_t>(tiles.bytes(t)));
}

template <int sum, int x, int w>
NNLITE_INLINE void must_fit() {
    must(sum != x && sum != w && x != w && tiles.rows(sum) && tiles.rows(x) == tiles.rows(sum));
    must(tiles.bytes(x) == 4 * tiles.rows(w) && tiles.bytes(w) == tiles.bytes(sum));
}

template <int sum, int x, int w>
void multiply_bytes() {
    must_fit<sum, x, w>();
    for (int m = 0; m < tiles.rows(sum); ++m) {
        uint32_t sums[tile_bytes / 4];
        __builtin_memcpy(sums, tiles.tile[sum].rows[m], tile_bytes);
        for (int k = 0; k < tiles.rows(w); ++k) {
            const unsigned char* quad = tiles.tile[x].rows[m] + 4 * k;
            const unsigned char* row = tiles.tile[w].rows[k];
            for (int n = 0; n < tiles.bytes(sum) / 4; ++n)
                for (int i = 0; i < 4; ++i)
                    sums[n] += static_cast<uint32_t>(quad[i] * static_cast<signed char>(row[4 * n + i]));
        }
        __builtin_memcpy(tiles.tile[sum].rows[m], sums, tile_bytes);
    }
}

NNLITE_INLINE float upper_half(const unsigned char* at) {
    uint16_t half;
    __builtin_memcpy(&half, at, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float number;
    __builtin_memcpy(&number, &bits, 4);
    return number;
}

// First and second numbers of the pairs have sums of their own, which meet at the end.
template <int sum, int x, int w>
void multiply_bfloat16() {
    must_fit<sum, x, w>();
    for (int m = 0; m < tiles.rows(sum); ++m) {
        float first[tile_bytes / 4] = {}, second[tile_bytes / 4] = {}, sums[tile_bytes / 4];
        for (int k = 0; k < tiles.rows(w); ++k) {
            const unsigned char* pair = tiles.tile[x].rows[m] + 4 * k;
            const unsigned char* row = tiles.tile[w].rows[k];
            for (int n = 0; n < tiles.bytes(sum) / 4; ++n) {
                first[n] = __builtin_fmaf(upper_half(pair), upper_half(row + 4 * n), first[n]);
                second[n] = __builtin_fmaf(upper_half(pair + 2), upper_half(row + 4 * n + 2), second[n]);
            }
        }
        __builtin_memcpy(sums, tiles.tile[sum].rows[m], tile_bytes);
        for (int n = 0; n < tiles.bytes(sum) / 4; ++n) sums[n] += first[n] + second[n];
        __builtin_memcpy(tiles.tile[sum].rows[m], sums, tile_bytes);
    }
}

}  // namespace
}  // namespace nnlite
