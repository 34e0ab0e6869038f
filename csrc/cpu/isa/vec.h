// One vector type per instruction set, written with the vector extensions of GCC and Clang.
//
// Included by one file per instruction set, so that everything here has internal linkage. Arithmetic
// is `+ - * /` on the types; only what the extensions cannot say portably is an intrinsic: fused
// multiply-add, broadcast and partial access. Sources are compiled with -ffp-contract=off, so that a
// multiplication and an addition fuse only where fma() stands.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace nnlite {
namespace {

#if defined(__AVX512F__)
#define NNLITE_VL 16
#elif defined(__AVX2__)
#define NNLITE_VL 8
#else
#define NNLITE_VL 4
#endif
constexpr int VL = NNLITE_VL;

typedef float vec __attribute__((vector_size(VL * 4)));
typedef int32_t ivec __attribute__((vector_size(VL * 4)));
typedef float vec_anywhere __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec_anywhere __attribute__((vector_size(VL * 4), aligned(4), may_alias));

#define NNLITE_INLINE inline __attribute__((always_inline))

NNLITE_INLINE vec load(const float* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
NNLITE_INLINE ivec load(const int32_t* p) { return *reinterpret_cast<const ivec_anywhere*>(p); }
NNLITE_INLINE void store(float* p, vec v) { *reinterpret_cast<vec_anywhere*>(p) = v; }
NNLITE_INLINE void store(int32_t* p, ivec v) { *reinterpret_cast<ivec_anywhere*>(p) = v; }

// ---- broadcast and a·b + c

#if defined(__AVX512F__)
NNLITE_INLINE vec splat(float s) { return _mm512_set1_ps(s); }
NNLITE_INLINE vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__AVX2__)
NNLITE_INLINE vec splat(float s) { return _mm256_set1_ps(s); }
NNLITE_INLINE vec fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
#elif defined(__aarch64__)
NNLITE_INLINE vec splat(float s) { return vdupq_n_f32(s); }
NNLITE_INLINE vec fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
#else
NNLITE_INLINE vec splat(float s) { return vec{s, s, s, s}; }
NNLITE_INLINE vec fma(vec a, vec b, vec c) { return a * b + c; }
#endif

NNLITE_INLINE ivec splat(int32_t s) { return ivec{} + s; }

// ---- stores past the caches, to aligned memory; done_streaming() before anyone else reads it

#if defined(__AVX512F__)
NNLITE_INLINE void stream(float* p, vec v) { _mm512_stream_ps(p, v); }
#elif defined(__AVX2__)
NNLITE_INLINE void stream(float* p, vec v) { _mm256_stream_ps(p, v); }
#elif defined(__x86_64__)
NNLITE_INLINE void stream(float* p, vec v) { _mm_stream_ps(p, v); }
#else
NNLITE_INLINE void stream(float* p, vec v) { store(p, v); }
#endif
#if defined(__x86_64__)
NNLITE_INLINE void done_streaming() { _mm_sfence(); }
#else
NNLITE_INLINE void done_streaming() {}
#endif

// ---- the first n < VL elements: never a byte beyond them is read or written

#if defined(__AVX512F__)
NNLITE_INLINE __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
NNLITE_INLINE vec load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
NNLITE_INLINE void store(float* p, vec v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
#elif defined(__AVX2__)
alignas(32) const int32_t window[2 * VL] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
NNLITE_INLINE __m256i first(int64_t n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(window + VL - n));
}
NNLITE_INLINE vec load(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
NNLITE_INLINE void store(float* p, vec v, int64_t n) { _mm256_maskstore_ps(p, first(n), v); }
#else
NNLITE_INLINE vec load(const float* p, int64_t n) {
    vec v = {};
    for (int i = 0; i < n; ++i) v[i] = p[i];
    return v;
}
NNLITE_INLINE void store(float* p, vec v, int64_t n) {
    for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

NNLITE_INLINE ivec load(const int32_t* p, int64_t n) {
    ivec v = {};
    for (int i = 0; i < n; ++i) v[i] = p[i];
    return v;
}
NNLITE_INLINE void store(int32_t* p, ivec v, int64_t n) {
    for (int i = 0; i < n; ++i) p[i] = v[i];
}

// Whole vectors where n == VL, else a part: for loops whose last step is partial.
NNLITE_INLINE vec load_upto(const float* p, int64_t n) { return n >= VL ? load(p) : load(p, n); }
NNLITE_INLINE void store_upto(float* p, vec v, int64_t n) { n >= VL ? store(p, v) : store(p, v, n); }
NNLITE_INLINE ivec load_upto(const int32_t* p, int64_t n) { return n >= VL ? load(p) : load(p, n); }
NNLITE_INLINE void store_upto(int32_t* p, ivec v, int64_t n) { n >= VL ? store(p, v) : store(p, v, n); }

NNLITE_INLINE vec select(ivec mask, vec yes, vec no) {
    return reinterpret_cast<vec>((mask & reinterpret_cast<ivec>(yes)) | (~mask & reinterpret_cast<ivec>(no)));
}
NNLITE_INLINE ivec select(ivec mask, ivec yes, ivec no) { return (mask & yes) | (~mask & no); }

// ---- comparisons

// Where value is larger than best, or the first NaN, both take its place.
NNLITE_INLINE void keep_larger(vec value, ivec at, vec& best, ivec& where) {
#if defined(__AVX512F__)
    const __mmask16 number = _mm512_cmp_ps_mask(best, best, _CMP_ORD_Q);
    const __mmask16 wins = _mm512_mask_cmp_ps_mask(number, value, best, _CMP_NLE_UQ);
    best = _mm512_mask_mov_ps(best, wins, value);
    where = reinterpret_cast<ivec>(_mm512_mask_mov_epi32(reinterpret_cast<__m512i>(where), wins,
                                                         reinterpret_cast<__m512i>(at)));
#else
    const ivec wins = (value > best) | ((value != value) & (best == best));
    best = select(wins, value, best);
    where = select(wins, at, where);
#endif
}

// sum + value where a equals b
NNLITE_INLINE vec add_where_equal(ivec a, ivec b, vec value, vec sum) {
#if defined(__AVX512F__)
    const __mmask16 equal = _mm512_cmpeq_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
    return _mm512_mask_add_ps(sum, equal, sum, value);
#else
    return sum + select(a == b, value, vec{});
#endif
}

// ---- transposition of VL vectors

// Elements 0 0 1 1 2 2 ... of the lower (or upper) halves of a and b in turn.
#if NNLITE_VL == 16
#define NNLITE_LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define NNLITE_UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif NNLITE_VL == 8
#define NNLITE_LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define NNLITE_UPPER 4, 12, 5, 13, 6, 14, 7, 15
#else
#define NNLITE_LOWER 0, 4, 1, 5
#define NNLITE_UPPER 2, 6, 3, 7
#endif
#if defined(__clang__)
NNLITE_INLINE vec interleave_lower(vec a, vec b) { return __builtin_shufflevector(a, b, NNLITE_LOWER); }
NNLITE_INLINE vec interleave_upper(vec a, vec b) { return __builtin_shufflevector(a, b, NNLITE_UPPER); }
#else
NNLITE_INLINE vec interleave_lower(vec a, vec b) { return __builtin_shuffle(a, b, ivec{NNLITE_LOWER}); }
NNLITE_INLINE vec interleave_upper(vec a, vec b) { return __builtin_shuffle(a, b, ivec{NNLITE_UPPER}); }
#endif

// Each round interleaves vector i with vector i + VL/2; after log2(VL) rounds rows have become columns.
NNLITE_INLINE void transpose(vec* v) {
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2) {
        vec mixed[VL];
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; ++i) {
            mixed[2 * i] = interleave_lower(v[i], v[i + VL / 2]);
            mixed[2 * i + 1] = interleave_upper(v[i], v[i + VL / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; ++i) v[i] = mixed[i];
    }
}

}  // namespace
}  // namespace nnlite
