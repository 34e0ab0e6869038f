// Convolution of reduced precision: integers of 8 bits with sums of 32, or bfloat16 with sums in float. One matrix
// product over gathered rows as in conv2d.cpp, and one depthwise kernel, for both: isa/reduced.inl has the arithmetic.

#include <string.h>

#include "bands.h"
#include "cpu.h"
#include "dispatch.h"
#include "gather.h"
#include "parallel.h"
#include "workspace.h"

namespace nnlite {
namespace {

struct Int8 {
    typedef uint8_t X;
    typedef int8_t W;
    static const ReducedKernels& table(const Kernels& k) { return k.reduced.int8; }
    static const auto& products(const Kernels& k) { return k.reduced.products.int8; }
};

struct Bfloat16 {
    typedef uint16_t X;
    typedef uint16_t W;
    static const ReducedKernels& table(const Kernels& k) { return k.reduced.bfloat16; }
    static const auto& products(const Kernels& k) { return k.reduced.products.bfloat16; }
};

// The place of kernels whose results are of this type.
template <class Out>
constexpr int result = sizeof(Out) == sizeof(float);

template <class Type>
constexpr int64_t per_quad = 4 / static_cast<int64_t>(sizeof(typename Type::X));

template <class Type>
int64_t quads(int64_t elements) {
    return (elements + per_quad<Type> - 1) / per_quad<Type>;
}

template <class T>
void fill(T* to, int64_t count, int64_t value) {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(value);
}

// ------------------------------------------------------------------------------- the matrix product

// Prepared weights of one group: panels [taps][quads][width], the last as narrow as whole vectors allow.
template <class Type>
struct QuadPanels {
    int64_t columns, taps, depth, width, vector;

    QuadPanels(const Kernels& k, const Conv2d& g)
        : columns(g.group_K()),
          taps(g.taps()),
          depth(g.group_C()),
          width(2 * k.vector_length),
          vector(k.vector_length) {}

    int64_t count() const { return (columns + width - 1) / width; }
    int64_t columns_of(int64_t panel) const {
        const int64_t left = columns - panel * width;
        return left < width ? left : width;
    }
    int64_t vectors_of(int64_t panel) const { return (columns_of(panel) + vector - 1) / vector; }
    int64_t length() const { return taps * quads<Type>(depth); }
    int64_t start(int64_t panel) const { return panel * width * length(); }
    int64_t size() const {  // in quads
        const int64_t last = count() - 1;
        return start(last) + vectors_of(last) * vector * length();
    }
};

// w [K][taps][depth] -> panels [group][panel][tap][quad][column]
template <class Type>
void pack(const Kernels& k, const Conv2d& g, const typename Type::W* w, int32_t* packed) {
    typedef typename Type::W W;
    const QuadPanels<Type> panels(k, g);
    const int64_t count = panels.count(), depth = panels.depth;
    parallel_for(g.groups * count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t group = item / count, panel = item % count, columns = panels.columns_of(panel);
            const int64_t width = panels.vectors_of(panel) * panels.vector;
            const W* from = w + (group * panels.columns + panel * panels.width) * panels.taps * depth;
            W* to = reinterpret_cast<W*>(packed + group * panels.size() + panels.start(panel));
            for (int64_t tap = 0; tap < panels.taps; ++tap)
                for (int64_t d = 0; d < depth; d += per_quad<Type>)
                    for (int64_t c = 0; c < width; ++c)
                        for (int64_t i = d; i < d + per_quad<Type>; ++i)
                            *to++ = c < columns && i < depth ? from[(c * panels.taps + tap) * depth + i] : W{};
        }
    });
}

// Row pointers of one block of output rows, on the stack: 32 KB, at least a tile of 12 rows and 341 taps (supports() in
// nnlite/kernels/native.py says so).
constexpr int64_t max_pointers = 4096;
static_assert(max_pointers / 12 == 341, "bind/reduced.cpp and native.py count on it");

// Rows of a tile. Only tiles of more than 12 rows need ever be smaller, and those take a_step for what it is.
int64_t rows_of_tile(const Kernels& k, int64_t taps) {
    const int64_t most = max_pointers / taps;
    return k.reduced.products.rows < most ? k.reduced.products.rows : most;
}

// Processors whose tiles are a state of the thread: there while this lives.
class TileState {
   public:
    explicit TileState(const QuadProducts& products) : end_(products.end) {
        if (products.begin) products.begin();
    }
    ~TileState() {
        if (end_) end_();
    }
    TileState(const TileState&) = delete;
    TileState& operator=(const TileState&) = delete;

   private:
    void (*end_)();
};

// Pointers of output rows [begin, end): [tile][tap][row of the tile], neighbours of one output row together.
template <class X>
void locate(const Conv2d& g, const X* x, const X* around, int64_t tile_rows, int64_t begin, int64_t end,
            const unsigned char** pointers) {
    const int64_t taps = g.taps();
    int64_t q = begin % g.Q, p = begin / g.Q % g.P, n = begin / g.Q / g.P;
    for (int64_t m = begin; m < end;) {
        const int64_t lane = (m - begin) % tile_rows;
        int64_t count = tile_rows - lane;
        if (count > end - m) count = end - m;
        if (count > g.Q - q) count = g.Q - q;
        const unsigned char** to = pointers + (m - begin) / tile_rows * taps * tile_rows + lane;
        for (int64_t r = 0; r < g.R; ++r) {
            const int64_t h = p * g.stride_h - g.pad_top + r * g.dilation_h;
            const bool inside = h >= 0 && h < g.H;
            const X* row = inside ? x + (n * g.H + h) * g.W * g.C : nullptr;
            for (int64_t s = 0; s < g.S; ++s, to += tile_rows) {
                const int64_t first = q * g.stride_w - g.pad_left + s * g.dilation_w;
                for (int64_t i = 0; i < count; ++i) {
                    const int64_t w = first + i * g.stride_w;
                    const X* pixel = inside && w >= 0 && w < g.W ? row + w * g.C : around;
                    to[i] = reinterpret_cast<const unsigned char*>(pixel);
                }
            }
        }
        m += count;
        if ((q += count) == g.Q) {
            q = 0;
            if (++p == g.P) p = 0, ++n;
        }
    }
}

template <class Type, class Out>
void multiply(const ReducedConv2d& reduced, const typename Type::X* x, const int32_t* packed, const ReducedEnd& end,
              const typename Type::X* around) {
    const Conv2d& g = reduced.conv;
    const Kernels& k = kernels();
    const ReducedKernels& table = Type::table(k);
    const auto& products = Type::products(k);
    const QuadPanels<Type> panels(k, g);
    const int64_t taps = g.taps(), rows = g.N * g.P * g.Q, tile = rows_of_tile(k, taps);
    // Some 32 pieces: blocks of rows first, no smaller than four tiles; then the panels are shared out, too.
    int64_t tiles = max_pointers / (taps * tile);
    if (tiles > 16) tiles = 16;
    const int64_t all_tiles = (rows + tile - 1) / tile;
    while (tiles > 4 && (all_tiles + tiles - 1) / tiles * g.groups < 32) --tiles;
    const int64_t block = tiles * tile, blocks = (rows + block - 1) / block;
    if (blocks == 0) return;
    const int64_t wanted = (32 + blocks * g.groups - 1) / (blocks * g.groups);
    const int64_t panel_block = (panels.count() + wanted - 1) / wanted;
    const int64_t panel_blocks = (panels.count() + panel_block - 1) / panel_block;
    const int64_t work = block * panel_block * panels.width * panels.length();
    parallel_for(blocks * g.groups * panel_blocks, grain_for(work), [&](int64_t first, int64_t last) {
        const unsigned char* pointers[max_pointers];
        const TileState state(k.reduced.products);
        for (int64_t item = first; item < last; ++item) {
            const int64_t panel_begin = item % panel_blocks * panel_block;
            const int64_t group = item / panel_blocks % g.groups;
            const int64_t row_begin = item / panel_blocks / g.groups * block;
            const int64_t row_end = row_begin + block < rows ? row_begin + block : rows;
            int64_t panel_end = panel_begin + panel_block;
            if (panel_end > panels.count()) panel_end = panels.count();
            locate(g, x, around, tile, row_begin, row_end, pointers);
            for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
                const int64_t vectors = panels.vectors_of(panel);
                QuadTile t = {};
                t.taps = taps, t.depth = panels.depth * static_cast<int64_t>(sizeof(typename Type::X));
                t.a_offset = group * t.depth;
                t.a_step = tile;
                t.b = packed + group * panels.size() + panels.start(panel);
                t.step = g.K, t.column = group * panels.columns + panel * panels.width;
                t.columns = panels.columns_of(panel);
                t.end = end, t.finish = table.finish[result<Out>];
                for (int64_t row = row_begin; row < row_end; row += tile) {
                    const int64_t left = row_end - row < tile ? row_end - row : tile;
                    t.a = pointers + (row - row_begin) * taps, t.rows = left;
                    t.at = row * g.K + t.column;
                    products[vectors - 1][left - 1](t);
                }
            }
        }
    });
}

template <class Type>
struct Gemm {
    Workspace workspace;
    int32_t* packed;
    typename Type::X* around;

    Gemm(const ReducedConv2d& g, bool prepared, void* memory)
        : workspace(memory),
          packed(workspace.take<int32_t>(prepared ? 0 : size(g))),
          around(workspace.take<typename Type::X>(g.conv.C)) {}

    static int64_t size(const ReducedConv2d& g) { return g.conv.groups * QuadPanels<Type>(kernels(), g.conv).size(); }
    static void prepare(const ReducedConv2d& g, const typename Type::W* w, int32_t* to) {
        pack<Type>(kernels(), g.conv, w, to);
    }

    template <class Out>
    void run(const ReducedConv2d& g, const typename Type::X* x, const int32_t* weights, const ReducedEnd& end) const {
        fill(around, g.conv.C, g.x_zero);
        multiply<Type, Out>(g, x, weights, end, around);
    }
};

// ------------------------------------------------------------------------------------- depthwise

// What conv2d_int8_depthwise needs to hold of one pixel's window; supports() in nnlite/kernels/native.py says so, too.
template <class Type>
int64_t window_columns(const Conv2d& g) {
    return quads<Type>(g.R) * ((g.S - 1) * g.dilation_w + 1);
}

template <class Type>
struct Depthwise {
    Workspace workspace;
    int32_t* packed;
    typename Type::X* around;

    Depthwise(const ReducedConv2d& g, bool prepared, void* memory)
        : workspace(memory),
          packed(workspace.take<int32_t>(prepared ? 0 : size(g))),
          around(workspace.take<typename Type::X>(g.conv.C)) {}

    // [groups of rows][S][C], C rounded up to whole pairs of vectors of any instruction set
    static int64_t channels(const Conv2d& g) { return (g.C + 31) / 32 * 32; }
    static int64_t size(const ReducedConv2d& g) { return quads<Type>(g.conv.R) * g.conv.S * channels(g.conv); }

    static void prepare(const ReducedConv2d& reduced, const typename Type::W* w, int32_t* packed) {
        typedef typename Type::W W;
        const Conv2d& g = reduced.conv;
        W* to = reinterpret_cast<W*>(packed);
        for (int64_t r = 0; r < g.R; r += per_quad<Type>)
            for (int64_t s = 0; s < g.S; ++s)
                for (int64_t c = 0; c < channels(g); ++c)
                    for (int64_t i = r; i < r + per_quad<Type>; ++i)
                        *to++ = c < g.C && i < g.R ? w[(c * g.R + i) * g.S + s] : W{};
    }

    template <class Out>
    void run(const ReducedConv2d& reduced, const typename Type::X* x, const int32_t* weights,
             const ReducedEnd& end) const {
        const Conv2d& g = reduced.conv;
        const auto kernel = Type::table(kernels()).depthwise[result<Out>];
        const int64_t groups = quads<Type>(g.R), reach = (g.S - 1) * g.dilation_w + 1;
        fill(around, g.C, reduced.x_zero);
        // Pixels whose windows fit what a kernel holds.
        const int64_t most = (max_interleaved / groups - reach) / g.stride_w + 1;
        const int64_t work = g.Q * g.C * (g.taps() + 8);
        parallel_for(g.N * g.P, grain_for(work), [&](int64_t first, int64_t last) {
            const void* rows[max_interleaved];
            for (int64_t row = first; row < last; ++row) {
                const int64_t n = row / g.P, p = row % g.P;
                for (int64_t r = 0; r < groups * per_quad<Type>; ++r) {
                    const int64_t h = p * g.stride_h - g.pad_top + r * g.dilation_h;
                    rows[r] = r < g.R && h >= 0 && h < g.H ? x + (n * g.H + h) * g.W * g.C : nullptr;
                }
                for (int64_t q = 0; q < g.Q; q += most) {
                    DepthwiseQuads t = {};
                    t.channels = g.C, t.pixels = g.Q - q < most ? g.Q - q : most;
                    t.S = g.S, t.groups = groups;
                    t.rows = rows, t.around = around, t.width = g.W;
                    t.first_column = q * g.stride_w - g.pad_left;
                    t.columns = (t.pixels - 1) * g.stride_w + reach;
                    t.step = g.stride_w, t.tap_step = g.dilation_w;
                    t.w = weights, t.w_step = channels(g);
                    t.at = (row * g.Q + q) * g.C;
                    t.end = end;
                    kernel(t);
                }
            }
        });
    }
};

// ----------------------------------------------------------------------------------- entry points

template <template <class> class How, class Type, class Out>
void prepared(const ReducedConv2d& g, const typename Type::X* x, const void* weights, const float* scale,
              const float* bias, const typename Type::X* residual, Out* y, void* workspace) {
    const ReducedEnd end = {scale, bias, residual, g.residual_scale, g.low, g.high, y};
    How<Type>(g, true, workspace).template run<Out>(g, x, static_cast<const int32_t*>(weights), end);
}

template <template <class> class How, class Type, class Out>
void unprepared(const ReducedConv2d& g, const typename Type::X* x, const typename Type::W* w, const float* scale,
                const float* bias, const typename Type::X* residual, Out* y, void* workspace) {
    const How<Type> plan(g, false, workspace);
    How<Type>::prepare(g, w, plan.packed);
    const ReducedEnd end = {scale, bias, residual, g.residual_scale, g.low, g.high, y};
    plan.template run<Out>(g, x, plan.packed, end);
}

}  // namespace

#define NNLITE_REDUCED(name, How, Type, Y)                                                                        \
    size_t name##_workspace(const ReducedConv2d& g) { return How<Type>(g, false, nullptr).workspace.size(); }     \
    void name(const ReducedConv2d& g, const Type::X* x, const Type::W* w, const float* scale, const float* bias,  \
              const Type::X* residual, Y* y, void* workspace) {                                                   \
        unprepared<How, Type, Y>(g, x, w, scale, bias, residual, y, workspace);                                   \
    }                                                                                                             \
    size_t name##_prepared_size(const ReducedConv2d& g) {                                                         \
        return static_cast<size_t>(How<Type>::size(g)) * sizeof(int32_t);                                         \
    }                                                                                                             \
    void name##_prepare(const ReducedConv2d& g, const Type::W* w, void* prepared) {                               \
        How<Type>::prepare(g, w, static_cast<int32_t*>(prepared));                                                \
    }                                                                                                             \
    size_t name##_prepared_workspace(const ReducedConv2d& g) { return How<Type>(g, true, nullptr).workspace.size(); } \
    void name##_prepared(const ReducedConv2d& g, const Type::X* x, const void* weights, const float* scale,       \
                         const float* bias, const Type::X* residual, Y* y, void* workspace) {                     \
        prepared<How, Type, Y>(g, x, weights, scale, bias, residual, y, workspace);                               \
    }
#define NNLITE_REDUCED_PAIR(name, How, Type)   \
    NNLITE_REDUCED(name, How, Type, Type::X)   \
    NNLITE_REDUCED(name##_float, How, Type, float)
NNLITE_REDUCED_PAIR(conv2d_int8_gemm, Gemm, Int8)
NNLITE_REDUCED_PAIR(conv2d_int8_depthwise, Depthwise, Int8)
NNLITE_REDUCED_PAIR(conv2d_bfloat16_gemm, Gemm, Bfloat16)
NNLITE_REDUCED_PAIR(conv2d_bfloat16_depthwise, Depthwise, Bfloat16)
#undef NNLITE_REDUCED_PAIR
#undef NNLITE_REDUCED

// --------------------------------------------------------------------------- conversions of arrays

namespace {
constexpr int64_t chunk = 1 << 15;
}

void quantise(const Rounding& g, const float* x, uint8_t* y) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk, [&](int64_t begin, int64_t end) {
        k.reduced.quantise({end - begin, x + begin, g.scale, g.zero, y + begin});
    });
}

void round_bfloat16(const Rounding& g, const float* x, uint16_t* y) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk, [&](int64_t begin, int64_t end) {
        k.reduced.round_bfloat16({end - begin, x + begin, y + begin});
    });
}

}  // namespace nnlite
