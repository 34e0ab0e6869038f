// The instructions of AMX: eight tiles of 16 rows of 64 bytes. tiles_emulated.inl has the same functions in plain C++.
//
// As assembly: GCC's own functions for them do not say that loading a tile reads memory, and it may then move what
// was written there past the load.

namespace nnlite {
namespace {

NNLITE_INLINE void configure_tiles(const TileShapes& shapes) {
    asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
}
NNLITE_INLINE void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int tile>
NNLITE_INLINE void clear_tile() {
    asm volatile("tilezero %%tmm%c0" : : "n"(tile));
}

// Rows `step` bytes apart.
template <int tile>
NNLITE_INLINE void load_tile(const void* from, int64_t step) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(step), "n"(tile) : "memory");
}
template <int tile>
NNLITE_INLINE void store_tile(void* to, int64_t step) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(step), "n"(tile) : "memory");
}

// sum[m][n] += x[m][4k+i] w[k][4n+i] over k and i: bytes of x without sign, of w with one
template <int sum, int x, int w>
NNLITE_INLINE void multiply_bytes() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(sum), "n"(x), "n"(w));
}

// The same with x[m][2k+i] and w[k][2n+i] in bfloat16.
template <int sum, int x, int w>
NNLITE_INLINE void multiply_bfloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(sum), "n"(x), "n"(w));
}

}  // namespace
}  // namespace nnlite
