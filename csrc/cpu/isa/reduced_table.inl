// What an instruction set has for reduced precision: a part of its table (table.inl), or, where NNLITE_REDUCED_TABLE is
// a name, a table of its own, for an instruction set that differs from another in nothing else.

#include "../../include/reduced_kernels.h"
#include "vec.h"

#include "narrow.inl"
#include "reduced.inl"

#define NNLITE_QUAD_4(T, NV) quad_tile<T, 1, NV>, quad_tile<T, 2, NV>, quad_tile<T, 3, NV>, quad_tile<T, 4, NV>
#define NNLITE_QUAD_8(T, NV) quad_tile<T, 5, NV>, quad_tile<T, 6, NV>, quad_tile<T, 7, NV>, quad_tile<T, 8, NV>
#define NNLITE_QUAD_12(T, NV) quad_tile<T, 9, NV>, quad_tile<T, 10, NV>, quad_tile<T, 11, NV>, quad_tile<T, 12, NV>
#if defined(__AVX512VNNI__)
#define NNLITE_QUADS(T, NV) {NNLITE_QUAD_4(T, NV), NNLITE_QUAD_8(T, NV), NNLITE_QUAD_12(T, NV)}
#elif defined(__AVX512F__) || defined(__aarch64__)
#define NNLITE_QUADS(T, NV) {NNLITE_QUAD_4(T, NV), NNLITE_QUAD_8(T, NV)}
#else
#define NNLITE_QUADS(T, NV) {NNLITE_QUAD_4(T, NV)}
#endif
#define NNLITE_REDUCED_TYPE(T, X) \
    {{finish_tile<T, X>, finish_tile<T, float>}, {depthwise_quads<T, X>, depthwise_quads<T, float>}}
#define NNLITE_REDUCED                                                  \
    {{quad_rows,                                                        \
      {NNLITE_QUADS(Int8, 1), NNLITE_QUADS(Int8, 2)},                   \
      {NNLITE_QUADS(Bfloat16, 1), NNLITE_QUADS(Bfloat16, 2)},           \
      nullptr,                                                          \
      nullptr},                                                         \
     NNLITE_REDUCED_TYPE(Int8, uint8_t),                                \
     NNLITE_REDUCED_TYPE(Bfloat16, uint16_t),                           \
     quantise,                                                          \
     round_bfloat16}

#if defined(NNLITE_REDUCED_TABLE)
namespace nnlite {
extern const Reduced NNLITE_REDUCED_TABLE = NNLITE_REDUCED;
}  // namespace nnlite
#endif
