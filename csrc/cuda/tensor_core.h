// The inner product on tensor cores: mma.sync, 16 x 8 sums for a depth of 32 bytes at a time, sums in float32.
//
// Eight warps as 2 x 4 share the tile; with 128 x 128 each has 64 x 32 sums, 64 registers of a thread. For 32 bytes of
// the depth a warp loads four matrices of 16 rows and two of 16 columns (ldmatrix) and multiplies 16 times, so that
// arithmetic hides the loads. To the loads a fragment of 32-bit and one of 16-bit numbers are the same bytes: TF32,
// float16 and bfloat16 differ in one instruction. Limited by the tensor cores, as far as mma.sync can feed them: on an
// H100 about 60 % of the 990 TFLOP/s in 16 bits and 495 in TF32 that only its own wgmma reaches.
//
// Fragment layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k8".
#pragma once

#include "tiles.h"

namespace nnlite {
namespace cuda {

// What is multiplied: how elements are stored, how a fragment is made ready, and the instruction.

struct Tf32 {  // float32, rounded to 10 bits of fraction on the way: its range, and errors of 2^-11 in each factor
    using Element = float;
    template <int count>
    __device__ static void ready(unsigned (&fragment)[count]) {
#pragma unroll
        for (int i = 0; i < count; ++i) fragment[i] = ptx::round_to_tf32(fragment[i]);
    }
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        ptx::multiply_tf32(d, a, b);
    }
};

struct Float16 {
    using Element = Half;
    template <int count>
    __device__ static void ready(unsigned (&)[count]) {}
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        ptx::multiply_half(d, a, b);
    }
};

struct Brain16 {
    using Element = BFloat16;
    template <int count>
    __device__ static void ready(unsigned (&)[count]) {}
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        ptx::multiply_bfloat16(d, a, b);
    }
};

// The sums of a warp and where they lie.
template <class Number, int rows, int columns>
struct WarpSums {
    static constexpr int high = rows / 32, wide = columns / 32;  // products of 16 x 8
    float sums[high][wide][4] = {};
    int row, column, lane;

    __device__ WarpSums() {
        const int warp = int(threadIdx.x) / 32;
        row = warp / 4 * (rows / 2);
        column = warp % 4 * (columns / 4);
        lane = int(threadIdx.x) % 32;
    }

    __device__ void multiply(unsigned (&left)[high][4], unsigned (&right)[wide][2]) {
#pragma unroll
        for (int i = 0; i < high; ++i) Number::ready(left[i]);
#pragma unroll
        for (int j = 0; j < wide; ++j) Number::ready(right[j]);
#pragma unroll
        for (int i = 0; i < high; ++i)
#pragma unroll
            for (int j = 0; j < wide; ++j) Number::multiply(sums[i][j], left[i], right[j]);
    }

    // One half of the rows to shared memory, [rows / 2][step].
    __device__ void put(int half, float* to, int step) const {
        if (row / (rows / 2) != half) return;
#pragma unroll
        for (int i = 0; i < high; ++i)
#pragma unroll
            for (int j = 0; j < wide; ++j) {
                float* at = to + (16 * i + lane / 4) * step + column + 8 * j + lane % 4 * 2;
                *reinterpret_cast<float2*>(at) = {sums[i][j][0], sums[i][j][1]};
                *reinterpret_cast<float2*>(at + 8 * step) = {sums[i][j][2], sums[i][j][3]};
            }
    }
};

// For tiles whose rows are runs of the depth: see product_rows.h.
template <class Number, int rows_, int columns_>
struct TensorRows : WarpSums<Number, rows_, columns_> {
    using Element = typename Number::Element;
    using Base = WarpSums<Number, rows_, columns_>;
    static constexpr int rows = rows_, columns = columns_, stages = 4;

    __device__ void multiply(const char* a, const char* b) {
        const int lane = this->lane;
        a += (this->row + lane % 16) * tile_row_step + lane / 16 * 16;
        b += (this->column + lane / 16 * 8 + lane % 8) * tile_row_step + lane / 8 % 2 * 16;
#pragma unroll
        for (int at = 0; at < tile_row_bytes; at += 32) {
            unsigned left[Base::high][4], right[Base::wide][2];
#pragma unroll
            for (int i = 0; i < Base::high; ++i) ptx::load_matrices(left[i], a + 16 * i * tile_row_step + at);
#pragma unroll
            for (int j = 0; j < Base::wide; j += 2) {
                unsigned both[4];
                ptx::load_matrices(both, b + 8 * j * tile_row_step + at);
                right[j][0] = both[0], right[j][1] = both[1];
                right[j + 1][0] = both[2], right[j + 1][1] = both[3];
            }
            Base::multiply(left, right);
        }
    }
};

// For tiles whose depth runs down: see product_columns.h. Numbers of 16 bits are turned while they are loaded.
template <class Number, int rows_, int columns_>
struct TensorColumns : WarpSums<Number, rows_, columns_> {
    using Element = typename Number::Element;
    using Base = WarpSums<Number, rows_, columns_>;
    static constexpr int rows = rows_, columns = columns_, stages = 4, depth = 32;
    static constexpr int row_bytes = rows * 2 + 16, column_bytes = columns * 2 + 16;

    __device__ void multiply(const char* a, const char* b) {
        const int lane = this->lane;
        a += (lane / 16 * 8 + lane % 8) * row_bytes + (this->row + lane / 8 % 2 * 8) * 2;
        b += (lane / 8 % 2 * 8 + lane % 8) * column_bytes + (this->column + lane / 16 * 8) * 2;
#pragma unroll
        for (int at = 0; at < depth; at += 16) {
            unsigned left[Base::high][4], right[Base::wide][2];
#pragma unroll
            for (int i = 0; i < Base::high; ++i) ptx::load_matrices_transposed(left[i], a + at * row_bytes + 32 * i);
#pragma unroll
            for (int j = 0; j < Base::wide; j += 2) {
                unsigned both[4];
                ptx::load_matrices_transposed(both, b + at * column_bytes + 16 * j);
                right[j][0] = both[0], right[j][1] = both[1];
                right[j + 1][0] = both[2], right[j + 1][1] = both[3];
            }
            Base::multiply(left, right);
        }
    }
};

// The same for 32 bits, which ldmatrix cannot turn: lane l reads its own elements, of step l % 4 of the depth and row
// l / 4. Rows are 8 floats longer than their channels, so that these 32 lie in different banks.
template <int rows_, int columns_>
struct TensorColumns<Tf32, rows_, columns_> : WarpSums<Tf32, rows_, columns_> {
    using Element = float;
    using Base = WarpSums<Tf32, rows_, columns_>;
    static constexpr int rows = rows_, columns = columns_, stages = 4, depth = 16;
    static constexpr int row_bytes = rows * 4 + 32, column_bytes = columns * 4 + 32;

    __device__ void multiply(const char* a, const char* b) {
        const int lane = this->lane;
        a += lane % 4 * row_bytes + (this->row + lane / 4) * 4;
        b += lane % 4 * column_bytes + (this->column + lane / 4) * 4;
        const auto word = [](const char* at) { return *reinterpret_cast<const unsigned*>(at); };
#pragma unroll
        for (int at = 0; at < depth; at += 8) {
            unsigned left[Base::high][4], right[Base::wide][2];
#pragma unroll
            for (int i = 0; i < Base::high; ++i)
#pragma unroll
                for (int part = 0; part < 4; ++part)
                    left[i][part] = word(a + (at + part / 2 * 4) * row_bytes + (16 * i + part % 2 * 8) * 4);
#pragma unroll
            for (int j = 0; j < Base::wide; ++j)
#pragma unroll
                for (int part = 0; part < 2; ++part)
                    right[j][part] = word(b + (at + part * 4) * column_bytes + 8 * j * 4);
            Base::multiply(left, right);
        }
    }
};

}  // namespace cuda
}  // namespace nnlite
