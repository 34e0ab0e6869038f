// Convolutions through Winograd: 3x3 at stride 1, and the input gradient (which is the transposed convolution) also of
// kernels twice as large as their stride: each phase of the input positions meets 2x2 taps.

#include "after.h"
#include "cpu.h"
#include "winograd_gather.h"

namespace nnlite {
namespace {

// A forward convolution with w [K,R,S,C] adds up one gather for each phase of x that a stride makes: one, or four.
struct Forward {
    static int64_t channels(const Conv2d& g) { return g.C; }
    static int64_t columns(const Conv2d& g) { return g.K; }
    static WeightView view(const Conv2d& g, const float* w) {
        return {w, g.C, g.K, 1, 1, g.taps() * g.C, 0, g.S * g.C, g.C};
    }
    template <class Body>
    static void gathers(const Conv2d& g, const float* x, float* y, const Body& body) {
        body(source_phases(g, x, y), 0);
    }
    static void finish(const Conv2d& g, const Epilogue& epilogue, float* y) {
        apply_function_to_all(epilogue, y, g.N * g.P, g.Q, g.K);
    }
};

// An input gradient has an output of its own for each phase of the stride, which is one gather over gy.
struct GradInput {
    static int64_t channels(const Conv2d& g) { return g.K; }
    static int64_t columns(const Conv2d& g) { return g.C; }
    static WeightView view(const Conv2d& g, const float* w) {
        return {w, g.K, g.C, 1, g.taps() * g.C, 1, 0, g.S * g.C, g.C};
    }
    template <class Body>
    static void gathers(const Conv2d& g, const float* gy, float* gx, const Body& body) {
        for_each_phase(g, gy, gx, nullptr,
                       [&](const Gather& gather, int64_t offset) { body(Sources{1, {gather}}, offset); });
    }
    static void finish(const Conv2d& g, const Epilogue& epilogue, float* gx) {
        apply_function_to_all(epilogue, gx, g.N * g.H, g.W, g.C);
    }
};

// The plan for one output. `ready`: weights that are there already; for sizes it does not matter where.
template <class Way>
Winograd plan(WinogradForm form, const Conv2d& g, const Sources& s, const void* ready, void* memory) {
    return Winograd(form, s, Way::channels(g), Way::columns(g), ready, memory);
}

template <class Way>
size_t workspace_of(WinogradForm form, const Conv2d& g, const void* ready) {
    size_t most = 0;  // one output after the other
    Way::gathers(g, nullptr, nullptr, [&](const Sources& s, int64_t) {
        const size_t bytes = plan<Way>(form, g, s, ready, nullptr).workspace.size();
        if (bytes > most) most = bytes;
    });
    return most;
}

template <class Way>
size_t prepared_size(WinogradForm form, const Conv2d& g) {
    size_t bytes = 0;
    Way::gathers(g, nullptr, nullptr, [&](const Sources& s, int64_t) {
        bytes += plan<Way>(form, g, s, &g, nullptr).prepared_size();
    });
    return bytes;
}

template <class Way>
void prepare_all(WinogradForm form, const Conv2d& g, const float* w, void* prepared) {
    char* to = static_cast<char*>(prepared);
    Way::gathers(g, nullptr, nullptr, [&](const Sources& s, int64_t) {
        const Winograd one = plan<Way>(form, g, s, &g, nullptr);
        prepare(one, s, Way::view(g, w), to);
        to += one.prepared_size();
    });
}

template <class Way>
void run(WinogradForm form, const Conv2d& g, const float* x, const float* w, const void* prepared,
         const Epilogue& epilogue, float* y, void* workspace) {
    const char* ready = static_cast<const char*>(prepared);
    Way::gathers(g, x, y, [&](const Sources& s, int64_t offset) {
        const Winograd one = plan<Way>(form, g, s, ready, workspace);
        Epilogue own = epilogue;
        if (own.residual) own.residual += offset;
        convolve(one, s, Way::view(g, w), own);
        if (ready) ready += one.prepared_size();
    });
    // Items write tiles, scattered over the picture: a function has a pass of its own.
    Way::finish(g, epilogue, y);
}

}  // namespace

#define NNLITE_WINOGRAD_FORWARD(name, form, Way, channels)                                                          \
    size_t name##_workspace(const Conv2d& g) { return workspace_of<Way>(form, g, nullptr); }                        \
    size_t name##_prepared_workspace(const Conv2d& g) { return workspace_of<Way>(form, g, &g); }                    \
    size_t name##_prepared_size(const Conv2d& g) { return prepared_size<Way>(form, g); }                            \
    void name##_prepare(const Conv2d& g, const float* w, void* prepared) { prepare_all<Way>(form, g, w, prepared); } \
    void name(const Conv2d& g, const float* x, const float* w, const float* bias, const float* residual, float* y,  \
              void* workspace) {                                                                                    \
        run<Way>(form, g, x, w, nullptr, epilogue_of(g.act, g.channels, bias, residual), y, workspace);             \
    }                                                                                                               \
    void name##_prepared(const Conv2d& g, const float* x, const void* prepared, const float* bias,                  \
                         const float* residual, float* y, void* workspace) {                                        \
        run<Way>(form, g, x, nullptr, prepared, epilogue_of(g.act, g.channels, bias, residual), y, workspace);      \
    }
#define NNLITE_WINOGRAD_BACKWARD(name, form)                                                                        \
    NNLITE_WINOGRAD_FORWARD(conv_transpose2d_forward_##name, form, GradInput, C)                                    \
    size_t conv2d_grad_input_##name##_workspace(const Conv2d& g) { return workspace_of<GradInput>(form, g, nullptr); } \
    void conv2d_grad_input_##name(const Conv2d& g, const float* gy, const float* w, float* gx, void* workspace) {   \
        run<GradInput>(form, g, gy, w, nullptr, {}, gx, workspace);                                                 \
    }

NNLITE_WINOGRAD_FORWARD(conv2d_forward_winograd2, winograd_2x3, Forward, K)
NNLITE_WINOGRAD_FORWARD(conv2d_forward_winograd4, winograd_4x3, Forward, K)
NNLITE_WINOGRAD_FORWARD(conv2d_forward_winograd4x2, winograd_4x2, Forward, K)
NNLITE_WINOGRAD_BACKWARD(winograd2, winograd_2x3)
NNLITE_WINOGRAD_BACKWARD(winograd4, winograd_4x3)
NNLITE_WINOGRAD_BACKWARD(winograd4x2, winograd_4x2)
#undef NNLITE_WINOGRAD_BACKWARD
#undef NNLITE_WINOGRAD_FORWARD

}  // namespace nnlite
