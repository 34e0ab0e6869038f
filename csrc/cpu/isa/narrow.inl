// Numbers of one or two bytes as vectors of floats, and back: integers from 0 to 255, and bfloat16, which is
// the upper half of a float.

namespace nnlite {
namespace {

typedef uint32_t uvec __attribute__((vector_size(VL * 4)));

NNLITE_INLINE vec as_floats(ivec v) { return __builtin_convertvector(v, vec); }

// ---- the first n <= VL elements (maskz: GCC 12 warns of uninitialised values inside its own plain conversions)

template <class T>
NNLITE_INLINE ivec load_narrow(const T* p, int64_t n) {
#if defined(__AVX512F__)
    const __mmask16 some = n >= VL ? static_cast<__mmask16>(-1) : first(n);
    if (sizeof(T) == 1) return reinterpret_cast<ivec>(_mm512_maskz_cvtepu8_epi32(some, _mm_maskz_loadu_epi8(some, p)));
    return reinterpret_cast<ivec>(_mm512_maskz_cvtepu16_epi32(some, _mm256_maskz_loadu_epi16(some, p)));
#else
    T all[VL] = {};
    __builtin_memcpy(all, p, static_cast<size_t>(n >= VL ? VL : n) * sizeof(T));
#if defined(__AVX2__)
    if (sizeof(T) == 1)
        return reinterpret_cast<ivec>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(all))));
    return reinterpret_cast<ivec>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(all))));
#else
    ivec v = {};
    for (int i = 0; i < VL; ++i) v[i] = all[i];
    return v;
#endif
#endif
}

template <class T>
NNLITE_INLINE void store_narrow(T* p, ivec v, int64_t n) {
#if defined(__AVX512F__)
    const __mmask16 some = n >= VL ? static_cast<__mmask16>(-1) : first(n);
    if (sizeof(T) == 1)
        _mm_mask_storeu_epi8(p, some, _mm512_maskz_cvtepi32_epi8(some, reinterpret_cast<__m512i>(v)));
    else
        _mm256_mask_storeu_epi16(p, some, _mm512_maskz_cvtepi32_epi16(some, reinterpret_cast<__m512i>(v)));
#else
    T all[VL];
    for (int i = 0; i < VL; ++i) all[i] = static_cast<T>(v[i]);
    __builtin_memcpy(p, all, static_cast<size_t>(n >= VL ? VL : n) * sizeof(T));
#endif
}

// ---- bytes and bfloat16 as floats

NNLITE_INLINE vec load_real(const uint8_t* p, int64_t n) { return as_floats(load_narrow(p, n)); }
NNLITE_INLINE vec load_real(const uint16_t* p, int64_t n) { return reinterpret_cast<vec>(load_narrow(p, n) << 16); }
NNLITE_INLINE vec load_real(const float* p, int64_t n) { return load_upto(p, n); }

// v lies between 0 and 255. To the nearest, halves to the even one: next to 1.5·2^23 floats are whole numbers.
NNLITE_INLINE ivec nearest_byte(vec v) { return reinterpret_cast<ivec>(v + splat(12582912.0f)) & splat(255); }

// To the nearest, halves to the one whose last bit is 0; a NaN stays one.
NNLITE_INLINE ivec nearest_bfloat16(vec v) {
    const uvec bits = reinterpret_cast<uvec>(v);
    const uvec rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return select(v == v, reinterpret_cast<ivec>(rounded), reinterpret_cast<ivec>((bits >> 16) | 0x40u));
}

NNLITE_INLINE void store_real(uint8_t* p, vec v, int64_t n) { store_narrow(p, nearest_byte(v), n); }
NNLITE_INLINE void store_real(uint16_t* p, vec v, int64_t n) {
#if defined(__AVX512BF16__)
    const __mmask16 some = n >= VL ? static_cast<__mmask16>(-1) : first(n);
    _mm256_mask_storeu_epi16(p, some, reinterpret_cast<__m256i>(_mm512_maskz_cvtneps_pbh(some, v)));
#else
    store_narrow(p, nearest_bfloat16(v), n);
#endif
}
NNLITE_INLINE void store_real(float* p, vec v, int64_t n) { store_upto(p, v, n); }

// ---- runs of numbers

void quantise(const Quantise& t) {
    const vec scale = splat(t.scale), zero = splat(t.zero), last = splat(255.0f);
    const vec half = splat(12582912.0f);
    for (int64_t i = 0; i < t.size; i += VL) {
        vec v = load_upto(t.x + i, t.size - i) / scale;
        // Before it is rounded: beyond these bounds floats are not whole numbers next to 1.5·2^23.
        v = v < splat(-4096.0f) ? splat(-4096.0f) : v;
        v = v > splat(4096.0f) ? splat(4096.0f) : v;
        v = (v + half) - half + zero;
        v = v < vec{} ? vec{} : v;
        store_narrow(t.y + i, nearest_byte(v > last ? last : v), t.size - i);
    }
}

void round_bfloat16(const RoundBfloat16& t) {
    for (int64_t i = 0; i < t.size; i += VL) store_real(t.y + i, load_upto(t.x + i, t.size - i), t.size - i);
}

}  // namespace
}  // namespace nnlite
