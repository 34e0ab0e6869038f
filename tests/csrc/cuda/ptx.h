// csrc/cuda/ptx.h for the CPU: the same functions with the same meaning, written out from the fragment layouts
// in NVIDIA's PTX ISA (sections on ldmatrix, mma and cp.async). Included before any source, under its guard.
#pragma once
#define NNLITE_CUDA_PTX_H

#include <cuda_runtime.h>

namespace nnlite {
namespace ptx {

inline char* dynamic_shared() {
    const auto start = reinterpret_cast<uintptr_t>(emulation::shared.data());
    return reinterpret_cast<char*>((start + 15) / 16 * 16);
}

// ---- asynchronous copies: nothing arrives before it is waited for
template <int bytes>
void copy_async(void* to, const void* from, bool valid) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "what cp.async takes");
    if (reinterpret_cast<uintptr_t>(to) % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes))
        emulation::fail("an asynchronous copy is not aligned");
    emulation::running->groups.back().push_back({to, from, bytes, valid ? size_t(bytes) : 0});
}
inline void commit_copies() { emulation::running->groups.emplace_back(); }
template <int still_open>
void wait_for_copies() {
    auto& groups = emulation::running->groups;
    while (groups.size() > still_open + 1) {
        for (const emulation::Copy& copy : groups.front()) {
            std::memset(copy.to, 0, copy.bytes);
            std::memcpy(copy.to, copy.from, copy.valid);
        }
        groups.pop_front();
    }
}

// ---- matrices of 8 rows of 16 bytes: lane l gets word l % 4 of row l / 4 of each, lanes 8 i.. say where rows lie
inline const unsigned char* checked_row(const emulation::Warp::Slots& slots, int matrix, int row) {
    return slots.of<const unsigned char*>(8 * matrix + row);
}
inline void no_conflicts(const emulation::Warp::Slots& slots, int matrix) {
    unsigned banks = 0;
    for (int row = 0; row < 8; ++row) banks |= 1u << (reinterpret_cast<uintptr_t>(checked_row(slots, matrix, row)) / 16 % 8);
    if (banks != 0xFF) emulation::fail("rows of a matrix lie in the same banks of shared memory");
}
inline void load_matrices(unsigned (&out)[4], const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16) emulation::fail("a matrix row is not aligned");
    const auto& slots = emulation::exchange(row);
    const int l = emulation::lane();
    for (int i = 0; i < 4; ++i) {
        no_conflicts(slots, i);
        std::memcpy(&out[i], checked_row(slots, i, l / 4) + l % 4 * 4, 4);
    }
}
inline void load_matrices_transposed(unsigned (&out)[4], const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16) emulation::fail("a matrix row is not aligned");
    const auto& slots = emulation::exchange(row);
    const int l = emulation::lane();
    for (int i = 0; i < 4; ++i) {
        no_conflicts(slots, i);
        uint16_t pair[2];
        for (int half = 0; half < 2; ++half)
            std::memcpy(&pair[half], checked_row(slots, i, 2 * (l % 4) + half) + l / 4 * 2, 2);
        out[i] = pair[0] | unsigned(pair[1]) << 16;
    }
}

// ---- numbers of 16 bits
inline float from_half(uint16_t bits) {
    const unsigned size = bits & 0x7FFF;
    // As a float32 the same bits are 2^-112 of it, subnormal numbers included.
    float value = __uint_as_float(size << 13) * 0x1p112f;
    if (size >= 0x7C00) value = size > 0x7C00 ? NAN : INFINITY;
    return bits >> 15 ? -value : value;
}
inline uint16_t to_half(float x) {
    const uint16_t sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
    const float size = std::fabs(x);
    if (std::isnan(x)) return 0x7FFF;
    if (size >= 65520) return static_cast<uint16_t>(sign | 0x7C00);
    int exponent = 0;
    std::frexp(size, &exponent);
    const int step = std::max(exponent - 11, -24);  // of the last bit
    const auto units = static_cast<unsigned>(std::nearbyint(std::ldexp(size, -step)));
    // A fraction that rounds up to 2048 carries into the exponent by itself.
    return static_cast<uint16_t>(sign | (units < 1024 ? units : units + (unsigned(step + 24) << 10)));
}
inline float from_bfloat16(uint16_t bits) { return __uint_as_float(unsigned(bits) << 16); }
inline uint16_t to_bfloat16(float x) {
    if (std::isnan(x)) return 0x7FFF;
    const unsigned bits = __float_as_uint(x);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline unsigned pack_bfloat16(unsigned low, unsigned high) {
    return to_bfloat16(__uint_as_float(low)) | unsigned(to_bfloat16(__uint_as_float(high))) << 16;
}
inline unsigned round_to_tf32(unsigned bits) {
    return std::isfinite(__uint_as_float(bits)) ? (bits + 0x1000) & ~0x1FFFu : bits;
}

// ---- products of a warp: D[16 x 8] += A[16 x depth] B[depth x 8]
struct Fragments {
    unsigned a[4], b[2];
};
template <class Decode>
void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int per_word, const Decode& decode) {
    Fragments mine;
    std::memcpy(mine.a, a, sizeof mine.a);
    std::memcpy(mine.b, b, sizeof mine.b);
    const auto& slots = emulation::exchange(mine);
    const int l = emulation::lane();
    for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
        for (int half = 0; half < 2; ++half)      // of the depth
            for (int word = 0; word < 4; ++word)  // held by lane `word` of four
                for (int part = 0; part < per_word; ++part) {
                    const auto left = slots.of<Fragments>(row % 8 * 4 + word), right = slots.of<Fragments>(column * 4 + word);
                    d[i] += decode(left.a[row / 8 + 2 * half], part) * decode(right.b[half], part);
                }
    }
}
inline void multiply_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    multiply(d, a, b, 1, [](unsigned word, int) { return __uint_as_float(word & ~0x1FFFu); });
}
inline void multiply_half(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    multiply(d, a, b, 2, [](unsigned word, int part) { return from_half(uint16_t(word >> 16 * part)); });
}
inline void multiply_bfloat16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    multiply(d, a, b, 2, [](unsigned word, int part) { return from_bfloat16(uint16_t(word >> 16 * part)); });
}

}  // namespace ptx
}  // namespace nnlite
