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

// What is multiplied: how elements are stored, how many loads of 32 bytes of the depth one instruction takes, how the
// loaded words become fragments, and the instruction.

struct Tf32 {  // float32, rounded to 10 bits of fraction on the way: its range, and errors of 2^-11 in each factor
    using Element = float;
    static constexpr int loads = 1;
    template <int count>
    __device__ static void fragment(const unsigned (&loaded)[loads][count], unsigned (&out)[count]) {
#pragma unroll
        for (int i = 0; i < count; ++i) out[i] = ptx::round_to_tf32(loaded[0][i]);
    }
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        ptx::multiply_tf32(d, a, b);
    }
};

// float32, rounded to bfloat16 on the way: errors of 2^-9 in each factor, half of the instructions. A fragment of 16
// bits wants two neighbours of the depth in a word, and a lane holds elements t and t + 4 of each 32 bytes: these become
// the neighbours. Which step of the depth is which does not matter, as long as it is the same for both operands.
struct Rounded16 {
    using Element = float;
    static constexpr int loads = 2;
    template <int count>
    __device__ static void fragment(const unsigned (&loaded)[loads][count], unsigned (&out)[count]) {
        constexpr int half = count / 2;  // words of one half of the depth: of two rows of A, of one column of B
#pragma unroll
        for (int i = 0; i < count; ++i)
            out[i] = ptx::pack_bfloat16(loaded[i / half][i % half], loaded[i / half][i % half + half]);
    }
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        ptx::multiply_bfloat16(d, a, b);
    }
};

struct Stored16 {  // numbers of 16 bits as they are
    static constexpr int loads = 1;
    template <int count>
    __device__ static void fragment(const unsigned (&loaded)[loads][count], unsigned (&out)[count]) {
#pragma unroll
        for (int i = 0; i < count; ++i) out[i] = loaded[0][i];
    }
};

struct Float16 : Stored16 {
    using Element = Half;
    __device__ static void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        ptx::multiply_half(d, a, b);
    }
};

struct Brain16 : Stored16 {
    using Element = BFloat16;
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

    __device__ void multiply(const unsigned (&left)[high][Number::loads][4],
                             const unsigned (&right)[wide][Number::loads][2]) {
        unsigned a[high][4], b[wide][2];
#pragma unroll
        for (int i = 0; i < high; ++i) Number::fragment(left[i], a[i]);
#pragma unroll
        for (int j = 0; j < wide; ++j) Number::fragment(right[j], b[j]);
#pragma unroll
        for (int i = 0; i < high; ++i)
#pragma unroll
            for (int j = 0; j < wide; ++j) Number::multiply(sums[i][j], a[i], b[j]);
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
    static constexpr int rows = rows_, columns = columns_;
    static constexpr bool has_large = true;
    static constexpr int stages = rows > 128 ? 3 : 4;  // what 99 KB of shared memory hold

    __device__ void multiply(const char* a, const char* b) {
        const int lane = this->lane;
        a += (this->row + lane % 16) * tile_row_step + lane / 16 * 16;
        b += (this->column + lane / 16 * 8 + lane % 8) * tile_row_step + lane / 8 % 2 * 16;
#pragma unroll
        for (int first = 0; first < tile_row_bytes; first += 32 * Number::loads) {
            unsigned left[Base::high][Number::loads][4], right[Base::wide][Number::loads][2];
#pragma unroll
            for (int load = 0; load < Number::loads; ++load) {
                const int at = first + 32 * load;
#pragma unroll
                for (int i = 0; i < Base::high; ++i)
                    ptx::load_matrices(left[i][load], a + 16 * i * tile_row_step + at);
#pragma unroll
                for (int j = 0; j < Base::wide; j += 2) {
                    unsigned both[4];
                    ptx::load_matrices(both, b + 8 * j * tile_row_step + at);
                    right[j][load][0] = both[0], right[j][load][1] = both[1];
                    right[j + 1][load][0] = both[2], right[j + 1][load][1] = both[3];
                }
            }
            Base::multiply(left, right);
        }
    }
};

// For tiles whose depth runs down: see product_columns.h. Numbers of 16 bits are turned while they are loaded.
template <class Number, int rows_, int columns_, int element_bytes = sizeof(typename Number::Element)>
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
            unsigned left[Base::high][1][4], right[Base::wide][1][2];
#pragma unroll
            for (int i = 0; i < Base::high; ++i) ptx::load_matrices_transposed(left[i][0], a + at * row_bytes + 32 * i);
#pragma unroll
            for (int j = 0; j < Base::wide; j += 2) {
                unsigned both[4];
                ptx::load_matrices_transposed(both, b + at * column_bytes + 16 * j);
                right[j][0][0] = both[0], right[j][0][1] = both[1];
                right[j + 1][0][0] = both[2], right[j + 1][0][1] = both[3];
            }
            Base::multiply(left, right);
        }
    }
};

// The same for 32 bits, which ldmatrix cannot turn: lane l reads its own elements, of step l % 4 of the depth and row
// l / 4. Rows are 8 floats longer than their channels, so that these 32 lie in different banks.
template <class Number, int rows_, int columns_>
struct TensorColumns<Number, rows_, columns_, 4> : WarpSums<Number, rows_, columns_> {
    using Element = float;
    using Base = WarpSums<Number, rows_, columns_>;
    static constexpr int rows = rows_, columns = columns_, stages = 4, depth = 16;
    static constexpr int row_bytes = rows * 4 + 32, column_bytes = columns * 4 + 32;

    __device__ void multiply(const char* a, const char* b) {
        const int lane = this->lane;
        a += lane % 4 * row_bytes + (this->row + lane / 4) * 4;
        b += lane % 4 * column_bytes + (this->column + lane / 4) * 4;
        const auto word = [](const char* at) { return *reinterpret_cast<const unsigned*>(at); };
#pragma unroll
        for (int first = 0; first < depth; first += 8 * Number::loads) {
            unsigned left[Base::high][Number::loads][4], right[Base::wide][Number::loads][2];
#pragma unroll
            for (int load = 0; load < Number::loads; ++load) {
                const int at = first + 8 * load;
#pragma unroll
                for (int i = 0; i < Base::high; ++i)
#pragma unroll
                    for (int part = 0; part < 4; ++part)
                        left[i][load][part] = word(a + (at + part / 2 * 4) * row_bytes + (16 * i + part % 2 * 8) * 4);
#pragma unroll
                for (int j = 0; j < Base::wide; ++j)
#pragma unroll
                    for (int part = 0; part < 2; ++part)
                        right[j][load][part] = word(b + (at + part * 4) * column_bytes + 8 * j * 4);
            }
            Base::multiply(left, right);
        }
    }
};

}  // namespace cuda
}  // namespace nnlite
