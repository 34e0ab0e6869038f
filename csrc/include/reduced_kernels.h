// What inner kernels of reduced precision take, integers of 8 bits or bfloat16 (isa/reduced.inl), for kernels.h.
#pragma once

#include <stdint.h>

namespace nnlite {

// y = clamp(sum scale + bias + residual residual_scale, low, high), rounded to y's type
struct ReducedEnd {
    const float *scale, *bias;  // scale null: 1
    const void* residual;       // like x, or null
    float residual_scale, low, high;
    void* out;
};

// Rows of the output, each the sum over taps of a row of x times packed weights.
struct QuadTile {
    int64_t taps, depth;               // depth in bytes
    const unsigned char* const* a;     // [taps][a_step] row pointers
    int64_t rows, a_step;              // a_step: the rows of a whole tile
    int64_t a_offset;                  // in bytes: the channels of a group
    const int32_t* b;                  // packed panel [taps·quads][width]
    int64_t at, step, column, columns;  // the first row's first element, from row to row, first column, how many
    ReducedEnd end;
    void (*finish)(const QuadTile&, const void* sums, int rows, int vectors);
};

// Depthwise: a row of output pixels. Columns of interleaved x are held on the stack, 32 KB at most.
constexpr int64_t max_interleaved = 256;
struct DepthwiseQuads {
    int64_t channels, pixels, S, groups;  // groups of window rows: 4 rows of bytes, or 2 in bfloat16
    const void* const* rows;              // [groups·rows of a group] of x; null beyond the window or the picture
    const void* around;                   // a pixel of what surrounds the picture
    int64_t width;                        // columns of x
    int64_t first_column, columns;        // what the windows see: may lie outside
    int64_t step, tap_step;               // columns from pixel to pixel, from tap to tap
    const int32_t* w;                     // [groups][S][w_step]
    int64_t w_step;
    int64_t at;  // the first pixel's first element of the output
    ReducedEnd end;
};

// y = clamp(round(x / scale) + zero, 0, 255)
struct Quantise {
    int64_t size;
    const float* x;
    float scale, zero;
    uint8_t* y;
};

struct RoundBfloat16 {
    int64_t size;
    const float* x;
    uint16_t* y;
};

constexpr int max_quad_rows = 32;  // over all instruction sets

// The matrix product.
struct QuadProducts {
    int rows;  // of the largest tile
    void (*int8[2][max_quad_rows])(const QuadTile&);  // [vectors - 1][rows - 1]
    void (*bfloat16[2][max_quad_rows])(const QuadTile&);
    void (*begin)();  // what a thread calls before its tiles and after them, or null
    void (*end)();
};

// Of one type of x; results [0] of the same type and [1] in float.
struct ReducedKernels {
    void (*finish[2])(const QuadTile&, const void* sums, int rows, int vectors);
    void (*depthwise[2])(const DepthwiseQuads&);
};

struct Reduced {
    QuadProducts products;
    ReducedKernels int8, bfloat16;
    void (*quantise)(const Quantise&);
    void (*round_bfloat16)(const RoundBfloat16&);
};

// Instruction sets that differ from another in reduced precision alone, or in its matrix product.
extern const Reduced reduced_avx512_vnni;  // products of bytes
extern const Reduced reduced_avx512_bf16;  // and of bfloat16
extern const QuadProducts products_amx;    // by tiles
extern const QuadProducts products_amx_emulated;

}  // namespace nnlite
