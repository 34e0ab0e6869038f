// The matrix product of reduced precision by tiles: 32 rows of x times 32 columns of packed weights, whose quads lie as
// a tile of weights has them. NNLITE_PRODUCTS is the table's name, NNLITE_TILES the file with the instructions.
//
// All taps of a row of x make one row, each filled up to whole quads as in the weights; 64 bytes of it are a *line*.
// Lines are copied to where a tile can be loaded from, one ahead of the products; where 16 rows of x lie at even
// distances, as in a 1x1 convolution, a tile is loaded from them.

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "../../include/reduced_kernels.h"

#define NNLITE_INLINE inline __attribute__((always_inline))

namespace nnlite {
namespace {

constexpr int tile_rows = 16, tile_bytes = 64, tile_quads = 16;

// What configures the processor's tiles; `palette` 1 is eight tiles of 1 KB.
struct TileShapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(TileShapes) == 64, "as LDTILECFG reads it");

}  // namespace
}  // namespace nnlite

#include NNLITE_TILES

namespace nnlite {
namespace {

void begin_tiles() {
    TileShapes shapes = {};
    shapes.palette = 1;
    for (int t = 0; t < 8; ++t) shapes.rows[t] = tile_rows, shapes.row_bytes[t] = tile_bytes;
    configure_tiles(shapes);
}

void end_tiles() { release_tiles(); }

struct Bytes {
    template <int sum, int x, int w>
    static NNLITE_INLINE void multiply() {
        multiply_bytes<sum, x, w>();
    }
};

struct Pairs {
    template <int sum, int x, int w>
    static NNLITE_INLINE void multiply() {
        multiply_bfloat16<sum, x, w>();
    }
};

// The first n bytes of 64.
NNLITE_INLINE __mmask64 first_bytes(int64_t n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

// Where a tile of x lies.
struct Lines {
    const unsigned char* from;
    int64_t step;
};

// Walks along the rows of x, line by line.
template <int Tiles>
struct Walk {
    const QuadTile& t;
    const int64_t filled_depth;  // of a tap, in whole quads
    int64_t tap = 0, at = 0;     // the next byte
    int64_t even_step[Tiles] = {};
    bool even[Tiles] = {};

    explicit Walk(const QuadTile& tile) : t(tile), filled_depth((tile.depth + 3) / 4 * 4) {}

    // Whether the rows of each tile lie at even distances in this tap.
    void enter_tap() {
        const unsigned char* const* a = t.a + tap * t.a_step;
        for (int tile = 0; tile < Tiles; ++tile, a += tile_rows) {
            even[tile] = (tile + 1) * tile_rows <= t.rows;
            if (!even[tile]) break;
            even_step[tile] = a[1] - a[0];
            for (int i = 2; i < tile_rows; ++i) even[tile] &= a[i] - a[i - 1] == even_step[tile];
        }
    }

    // `count` bytes of each row, zeros from the `real`-th on.
    void copy(const unsigned char* const* a, int64_t rows, int64_t real, int64_t count,
              unsigned char (*to)[tile_bytes], int64_t place) const {
        const __mmask64 read = first_bytes(real), written = first_bytes(count);
        const int64_t offset = t.a_offset + at;
        if (rows > tile_rows) rows = tile_rows;
        for (int64_t i = 0; i < rows; ++i)
            _mm512_mask_storeu_epi8(to[i] + place, written,
                                    real ? _mm512_maskz_loadu_epi8(read, a[i] + offset) : __m512i{});
    }

    NNLITE_INLINE void copy_whole(const unsigned char* const* a, int64_t rows, unsigned char (*to)[tile_bytes]) const {
        const int64_t offset = t.a_offset + at;
        if (rows < tile_rows) return copy(a, rows, tile_bytes, tile_bytes, to, 0);
#pragma GCC unroll 16
        for (int i = 0; i < tile_rows; ++i) _mm512_store_si512(to[i], _mm512_loadu_si512(a[i] + offset));
    }

    // The next line of every row: `lines` says where, in `copied` or in x.
    void next(Lines (&lines)[Tiles], unsigned char (&copied)[Tiles * tile_rows][tile_bytes]) {
        for (int tile = 0; tile < Tiles; ++tile) lines[tile] = {copied[tile * tile_rows], tile_bytes};
        for (int64_t done = 0; done < tile_bytes;) {
            int64_t count = tile_bytes - done, real = 0;  // beyond the last tap: zeros
            if (tap < t.taps) {
                if (at == 0) enter_tap();
                if (count > filled_depth - at) count = filled_depth - at;
                real = t.depth - at < count ? t.depth - at : count;
            }
            const unsigned char* const* a = t.a + tap * t.a_step;
            for (int tile = 0; tile < Tiles; ++tile, a += tile_rows) {
                unsigned char(*to)[tile_bytes] = copied + tile * tile_rows;
                if (real < tile_bytes)
                    copy(a, t.rows - tile * tile_rows, real, count, to, done);
                else if (even[tile])
                    lines[tile] = {a[0] + t.a_offset + at, even_step[tile]};
                else
                    copy_whole(a, t.rows - tile * tile_rows, to);
            }
            done += count, at += count;
            if (at == filled_depth) ++tap, at = 0;
        }
    }
};

// Tiles 0 to 3 hold sums, 4 and 5 x, 6 and 7 weights.
template <class Type, int Rows, int Columns>
void product(const QuadTile& t) {
    constexpr int64_t width = Columns * tile_quads, step = width * 4;
    alignas(64) unsigned char copied[2][Rows * tile_rows][tile_bytes];
    if (t.rows < Rows * tile_rows) __builtin_memset(copied, 0, sizeof copied);  // what nobody asked for
    clear_tile<0>();
    if (Columns == 2) clear_tile<1>();
    if (Rows == 2) clear_tile<2>();
    if (Rows == 2 && Columns == 2) clear_tile<3>();

    Walk<Rows> walk(t);
    Lines lines[2][Rows];
    walk.next(lines[0], copied[0]);
    const int64_t quads = t.taps * (walk.filled_depth / 4);
    alignas(64) int32_t rest[tile_quads][width];
    for (int64_t q = 0, turn = 0; q < quads; q += tile_quads, turn ^= 1) {
        if (q + tile_quads < quads) walk.next(lines[turn ^ 1], copied[turn ^ 1]);
        const int32_t* w = t.b + q * width;
        if (quads - q < tile_quads) {  // nothing beyond the weights is read
            __builtin_memset(rest, 0, sizeof rest);
            __builtin_memcpy(rest, w, static_cast<size_t>((quads - q) * step));
            w = rest[0];
        }
        load_tile<4>(lines[turn][0].from, lines[turn][0].step);
        load_tile<6>(w, step);
        Type::template multiply<0, 4, 6>();
        if (Columns == 2) {
            load_tile<7>(w + tile_quads, step);
            Type::template multiply<1, 4, 7>();
        }
        if (Rows == 2) {
            load_tile<5>(lines[turn][Rows - 1].from, lines[turn][Rows - 1].step);
            Type::template multiply<2, 5, 6>();
            if (Columns == 2) Type::template multiply<3, 5, 7>();
        }
    }

    alignas(64) int32_t sums[Rows * tile_rows][width];
    store_tile<0>(sums[0], step);
    if (Columns == 2) store_tile<1>(sums[0] + tile_quads, step);
    if (Rows == 2) store_tile<2>(sums[(Rows - 1) * tile_rows], step);
    if (Rows == 2 && Columns == 2) store_tile<3>(sums[(Rows - 1) * tile_rows] + tile_quads, step);
    t.finish(t, sums, static_cast<int>(t.rows), Columns);
}

}  // namespace

#define NNLITE_4(f) f, f, f, f
#define NNLITE_16(f) NNLITE_4(f), NNLITE_4(f), NNLITE_4(f), NNLITE_4(f)
#define NNLITE_PRODUCT(Type, Columns) {NNLITE_16((product<Type, 1, Columns>)), NNLITE_16((product<Type, 2, Columns>))}
extern const QuadProducts NNLITE_PRODUCTS = {
    2 * tile_rows,
    {NNLITE_PRODUCT(Bytes, 1), NNLITE_PRODUCT(Bytes, 2)},
    {NNLITE_PRODUCT(Pairs, 1), NNLITE_PRODUCT(Pairs, 2)},
    begin_tiles,
    end_tiles,
};

}  // namespace nnlite
