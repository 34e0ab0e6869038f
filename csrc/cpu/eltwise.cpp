// Elementwise kernels: cut into chunks, one pass over memory.

#include "cpu.h"
#include "dispatch.h"
#include "parallel.h"

namespace nnlite {
namespace {

constexpr int64_t chunk = 1 << 15;  // 128 KB of each operand: long enough to be worth another thread

}  // namespace

void combine(const Eltwise& g, const float* a, const float* b, float* y) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk, [&](int64_t begin, int64_t end) {
        k.combine({end - begin, a + begin, b ? b + begin : nullptr, g.alpha, g.beta, g.act, y + begin});
    });
}

void multiply(const Eltwise& g, const float* a, const float* b, float* y) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk, [&](int64_t begin, int64_t end) {
        k.multiply(end - begin, a + begin, b + begin, y + begin);
    });
}

void scale_channels(const Pictures& g, const float* x, const float* scale, float* y) {
    const Kernels& k = kernels();
    const int64_t pixels = g.H * g.W;
    parallel_for(g.N * pixels, (chunk + g.C - 1) / g.C, [&](int64_t begin, int64_t end) {
        while (begin < end) {  // the part of one picture after the other
            const int64_t n = begin / pixels, last = (n + 1) * pixels < end ? (n + 1) * pixels : end;
            k.scale_channels({last - begin, g.C, x + begin * g.C, scale + n * g.C, y + begin * g.C});
            begin = last;
        }
    });
}

void activation_backward(const Eltwise& g, const float* gy, const float* z, float* gx) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk, [&](int64_t begin, int64_t end) {
        k.gate({end - begin, gy + begin, z + begin, g.act, gx + begin});
    });
}

void function_forward(const Named& g, const float* x, float* y) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk / 4, [&](int64_t begin, int64_t end) {
        k.smooth({end - begin, g.function, g.a, g.b, x + begin, nullptr, y + begin});
    });
}

void function_backward(const Named& g, const float* gy, const float* z, float* gx) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk / 4, [&](int64_t begin, int64_t end) {
        k.smooth({end - begin, g.function, g.a, g.b, z + begin, gy + begin, gx + begin});
    });
}

void sgd_step(const Eltwise& g, const float* weight, const float* gradient, const float* velocity,
              const float* options, float* new_weight, float* new_velocity) {
    const Kernels& k = kernels();
    parallel_for(g.size, chunk, [&](int64_t i, int64_t end) {
        k.sgd_step({end - i, weight + i, gradient + i, velocity ? velocity + i : nullptr, options[0], options[1],
                    options[2], options[3], options[4] != 0.0f, new_weight + i,
                    new_velocity ? new_velocity + i : nullptr});
    });
}

void adam_step(const Eltwise& g, const float* weight, const float* gradient, const float* mean, const float* square,
               const float* options, float* new_weight, float* new_mean, float* new_square) {
    const Kernels& k = kernels();
    const float* o = options;
    parallel_for(g.size, chunk, [&](int64_t i, int64_t end) {
        k.adam_step({end - i, weight + i, gradient + i, mean + i, square + i, o[0], o[1], o[2], o[3], o[4], o[5],
                     o[6], o[7], o[8], new_weight + i, new_mean + i, new_square + i});
    });
}

}  // namespace nnlite
