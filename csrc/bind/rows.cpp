#include "rows.h"

#include <pybind11/stl.h>

#include <array>
#include <cstring>

#include "../cpu/cpu.h"
#include "args.h"
#include "geometry.h"

namespace nnlite {
namespace {

Eltwise eltwise(int64_t size, double alpha, double beta, int64_t kind, double low, double high) {
    require(size >= 0, "the size must not be negative");
    return {size, static_cast<float>(alpha), static_cast<float>(beta), activation(kind, low, high)};
}

Named named(int64_t size, int64_t function, double a, double b) {
    require(size >= 0, "the size must not be negative");
    require(function >= sigmoid_function && function <= erf_function, "there is no such function");
    return {size, function, static_cast<float>(a), static_cast<float>(b)};
}

// How each geometry arrives; the order is that of the fields in nnlite/geometry/kinds.py.
#define NNLITE_NORM int64_t M, int64_t C, double epsilon, int64_t kind, double low, double high
#define NNLITE_ELTWISE int64_t size, double alpha, double beta, int64_t kind, double low, double high
#define NNLITE_FUNCTION int64_t size, int64_t function, double a, double b

void bind_norm(py::module_& m) {
    m.def("batch_norm_training_forward",
          [](NNLITE_NORM, Object x_, Object weight_, Object bias_, Object residual_, Object y_, Object mean_,
             Object inv_std_, Object workspace_) {
              const Norm g = norm(M, C, kind, low, high);
              const float* x = in<float>(x_, "x", {M, C});
              const float* weight = in<float>(weight_, "weight", {C});
              const float* bias = in<float>(bias_, "bias", {C});
              const float* residual = in_or_null<float>(residual_, "residual", {M, C});
              float* y = out<float>(y_, "y", {M, C});
              float* mean = out<float>(mean_, "mean", {C});
              float* inv_std = out<float>(inv_std_, "inv_std", {C});
              void* workspace = scratch(workspace_, batch_norm_training_forward_workspace(g));
              without_gil([=] {
                  batch_norm_training_forward(g, epsilon, x, weight, bias, residual, y, mean, inv_std, workspace);
              });
          });
    m.def("batch_norm_training_backward",
          [](NNLITE_NORM, Object x_, Object gy_, Object y_, Object weight_, Object bias_, Object mean_,
             Object inv_std_, Object gx_, Object gweight_, Object gbias_, Object gresidual_, Object workspace_) {
              (void)epsilon;
              const Norm g = norm(M, C, kind, low, high);
              const float* x = in<float>(x_, "x", {M, C});
              const float* gy = in<float>(gy_, "gy", {M, C});
              const float* y = in_or_null<float>(y_, "y", {M, C});
              const float* weight = in<float>(weight_, "weight", {C});
              const float* bias = in<float>(bias_, "bias", {C});
              const float* mean = in<float>(mean_, "mean", {C});
              const float* inv_std = in<float>(inv_std_, "inv_std", {C});
              float* gx = out_or_null<float>(gx_, "gx", {M, C});
              float* gweight = out<float>(gweight_, "gweight", {C});
              float* gbias = out<float>(gbias_, "gbias", {C});
              float* gresidual = out_or_null<float>(gresidual_, "gresidual", {M, C});
              void* workspace = scratch(workspace_, batch_norm_training_backward_workspace(g));
              without_gil([=] {
                  batch_norm_training_backward(g, x, gy, y, weight, bias, mean, inv_std, gx, gweight, gbias,
                                               gresidual, workspace);
              });
          });
    m.def("batch_norm_inference_forward",
          [](NNLITE_NORM, Object x_, Object mean_, Object scale_, Object shift_, Object residual_, Object y_, Object) {
              (void)epsilon;
              const Norm g = norm(M, C, kind, low, high);
              const float* x = in<float>(x_, "x", {M, C});
              const float* mean = in_or_null<float>(mean_, "mean", {C});
              const float* scale = in<float>(scale_, "scale", {C});
              const float* shift = in<float>(shift_, "shift", {C});
              const float* residual = in_or_null<float>(residual_, "residual", {M, C});
              float* y = out<float>(y_, "y", {M, C});
              without_gil([=] { batch_norm_inference_forward(g, x, mean, scale, shift, residual, y); });
          });
    m.def("batch_norm_inference_backward",
          [](NNLITE_NORM, Object x_, Object gy_, Object y_, Object scale_, Object shift_, Object mean_,
             Object inv_std_, Object gx_, Object gweight_, Object gbias_, Object gresidual_, Object workspace_) {
              (void)epsilon;
              const Norm g = norm(M, C, kind, low, high);
              const float* x = in<float>(x_, "x", {M, C});
              const float* gy = in<float>(gy_, "gy", {M, C});
              const float* y = in_or_null<float>(y_, "y", {M, C});
              const float* scale = in<float>(scale_, "scale", {C});
              const float* shift = in<float>(shift_, "shift", {C});
              const float* mean = in<float>(mean_, "mean", {C});
              const float* inv_std = in<float>(inv_std_, "inv_std", {C});
              float* gx = out_or_null<float>(gx_, "gx", {M, C});
              float* gweight = out_or_null<float>(gweight_, "gweight", {C});
              float* gbias = out_or_null<float>(gbias_, "gbias", {C});
              float* gresidual = out_or_null<float>(gresidual_, "gresidual", {M, C});
              void* workspace = scratch(workspace_, batch_norm_inference_backward_workspace(g));
              without_gil([=] {
                  batch_norm_inference_backward(g, x, gy, y, scale, shift, mean, inv_std, gx, gweight, gbias,
                                                gresidual, workspace);
              });
          });
    m.def("channel_sum", [](NNLITE_NORM, Object x_, Object total_, Object workspace_) {
        (void)epsilon;
        const Norm g = norm(M, C, kind, low, high);
        const float* x = in<float>(x_, "x", {M, C});
        float* total = out<float>(total_, "total", {C});
        void* workspace = scratch(workspace_, channel_sum_workspace(g));
        without_gil([=] { channel_sum(g, x, total, workspace); });
    });
#define NNLITE_SIZE(name)                   \
    m.def(#name "_workspace", [](NNLITE_NORM) { \
        (void)epsilon;                          \
        return name##_workspace(norm(M, C, kind, low, high)); \
    })
    NNLITE_SIZE(batch_norm_training_forward);
    NNLITE_SIZE(batch_norm_training_backward);
    NNLITE_SIZE(batch_norm_inference_backward);
    NNLITE_SIZE(channel_sum);
#undef NNLITE_SIZE
}

template <void (*kernel)(const Norm&, const float*, float*)>
void line_forward(NNLITE_NORM, Object x_, Object y_, Object) {
    (void)epsilon;
    const Norm g = norm(M, C, kind, low, high);
    const float* x = in<float>(x_, "x", {M, C});
    float* y = out<float>(y_, "y", {M, C});
    without_gil([=] { kernel(g, x, y); });
}

template <void (*kernel)(const Norm&, const float*, const float*, float*)>
void line_backward(NNLITE_NORM, Object gy_, Object y_, Object gx_, Object) {
    (void)epsilon;
    const Norm g = norm(M, C, kind, low, high);
    const float* gy = in<float>(gy_, "gy", {M, C});
    const float* y = in<float>(y_, "y", {M, C});
    float* gx = out<float>(gx_, "gx", {M, C});
    without_gil([=] { kernel(g, gy, y, gx); });
}

void bind_lines(py::module_& m) {
    m.def("softmax_forward", &line_forward<softmax_forward>);
    m.def("softmax_backward", &line_backward<softmax_backward>);
    m.def("log_softmax_forward", &line_forward<log_softmax_forward>);
    m.def("log_softmax_backward", &line_backward<log_softmax_backward>);
    m.def("cross_entropy", [](NNLITE_NORM, Object logits_, Object labels_, Object weight_, Object options_,
                              Object losses_, Object gradient_, Object) {
        (void)epsilon;
        const Norm g = norm(M, C, kind, low, high);
        const float* logits = in<float>(logits_, "logits", {M, C});
        const int64_t* labels = in<int64_t>(labels_, "labels", {M});
        const float* weight = in_or_null<float>(weight_, "weight", {C});
        const float* options = in<float>(options_, "options", {2});
        float* losses = out<float>(losses_, "losses", {M});
        float* gradient = out_or_null<float>(gradient_, "gradient", {M, C});
        for (int64_t m_ = 0; m_ < M; ++m_) require(labels[m_] < C, "a label must be below C");
        without_gil([=] { cross_entropy(g, logits, labels, weight, options, losses, gradient); });
    });
    m.def("layer_norm_forward", [](NNLITE_NORM, Object x_, Object weight_, Object bias_, Object y_, Object mean_,
                                   Object inv_std_, Object) {
        const Norm g = norm(M, C, kind, low, high);
        const float* x = in<float>(x_, "x", {M, C});
        const float* weight = in_or_null<float>(weight_, "weight", {C});
        const float* bias = in_or_null<float>(bias_, "bias", {C});
        float* y = out<float>(y_, "y", {M, C});
        float* mean = out<float>(mean_, "mean", {M});
        float* inv_std = out<float>(inv_std_, "inv_std", {M});
        without_gil([=] { layer_norm_forward(g, epsilon, x, weight, bias, y, mean, inv_std); });
    });
    m.def("layer_norm_backward",
          [](NNLITE_NORM, Object x_, Object gy_, Object weight_, Object mean_, Object inv_std_, Object gx_,
             Object gweight_, Object gbias_, Object workspace_) {
              (void)epsilon;
              const Norm g = norm(M, C, kind, low, high);
              const float* x = in<float>(x_, "x", {M, C});
              const float* gy = in<float>(gy_, "gy", {M, C});
              const float* weight = in_or_null<float>(weight_, "weight", {C});
              const float* mean = in<float>(mean_, "mean", {M});
              const float* inv_std = in<float>(inv_std_, "inv_std", {M});
              float* gx = out_or_null<float>(gx_, "gx", {M, C});
              float* gweight = out_or_null<float>(gweight_, "gweight", {C});
              float* gbias = out_or_null<float>(gbias_, "gbias", {C});
              void* workspace = scratch(workspace_, layer_norm_backward_workspace(g));
              without_gil([=] { layer_norm_backward(g, x, gy, weight, mean, inv_std, gx, gweight, gbias, workspace); });
          });
    m.def("layer_norm_backward_workspace", [](NNLITE_NORM) {
        (void)epsilon;
        return layer_norm_backward_workspace(norm(M, C, kind, low, high));
    });
}

// ---- resizing

// Rows (or columns) of a result: those of the source that each is made of, and their weights.
struct Taps {
    const int32_t *start, *index;
    const float* weight;

    Taps(Object start_, Object index_, Object weight_, int64_t count, int64_t taps, int64_t size)
        : start(in<int32_t>(start_, "start", {count + 1})),
          index(in<int32_t>(index_, "index", {taps})),
          weight(in<float>(weight_, "weight", {taps})) {
        require(start[0] == 0 && start[count] == taps, "starts must lead from 0 to the number of taps");
        for (int64_t i = 0; i < count; ++i) require(start[i] <= start[i + 1], "starts must ascend");
        for (int64_t i = 0; i < taps; ++i) require(index[i] >= 0 && index[i] < size, "a tap must lie in the source");
    }
};

void bind_resize(py::module_& m) {
    m.def("resize", [](const std::array<int64_t, resize_fields>& ints, Object x_, Object row_start, Object row,
                       Object row_weight, Object column_start, Object column, Object column_weight, Object y_, Object) {
        Resize g;
        std::memcpy(&g, ints.data(), sizeof g);
        require(g.N >= 0 && g.C > 0 && g.H > 0 && g.W > 0 && g.P > 0 && g.Q > 0, "sizes must be positive");
        require(g.row_taps >= 0 && g.column_taps >= 0, "there cannot be fewer than no taps");
        const float* x = in<float>(x_, "x", {g.N, g.C, g.H, g.W});
        const Taps rows(row_start, row, row_weight, g.P, g.row_taps, g.H);
        const Taps columns(column_start, column, column_weight, g.Q, g.column_taps, g.W);
        float* y = out<float>(y_, "y", {g.N, g.C, g.P, g.Q});
        without_gil([=] {
            resize(g, x, rows.start, rows.index, rows.weight, columns.start, columns.index, columns.weight, y);
        });
    });
}

void bind_eltwise(py::module_& m) {
    m.def("multiply", [](NNLITE_ELTWISE, Object a_, Object b_, Object y_, Object) {
        const Eltwise g = eltwise(size, alpha, beta, kind, low, high);
        const float* a = in<float>(a_, "a", {size});
        const float* b = in<float>(b_, "b", {size});
        float* y = out<float>(y_, "y", {size});
        without_gil([=] { multiply(g, a, b, y); });
    });
    m.def("scale_channels", [](const std::array<int64_t, pictures_fields>& ints, Object x_, Object scale_, Object y_,
                               Object) {
        const auto [N, C, H, W] = ints;
        require(N >= 0 && C > 0 && H > 0 && W > 0, "sizes must be positive");
        const Pictures g = {N, C, H, W};
        const float* x = in<float>(x_, "x", {N, C, H, W});
        const float* scale = in<float>(scale_, "scale", {N, C, 1, 1});
        float* y = out<float>(y_, "y", {N, C, H, W});
        without_gil([=] { scale_channels(g, x, scale, y); });
    });
    m.def("combine", [](NNLITE_ELTWISE, Object a_, Object b_, Object y_, Object) {
        const Eltwise g = eltwise(size, alpha, beta, kind, low, high);
        const float* a = in<float>(a_, "a", {size});
        const float* b = in_or_null<float>(b_, "b", {size});
        float* y = out<float>(y_, "y", {size});
        without_gil([=] { combine(g, a, b, y); });
    });
    m.def("activation_backward", [](NNLITE_ELTWISE, Object gy_, Object z_, Object gx_, Object) {
        const Eltwise g = eltwise(size, alpha, beta, kind, low, high);
        const float* gy = in<float>(gy_, "gy", {size});
        const float* z = in<float>(z_, "z", {size});
        float* gx = out<float>(gx_, "gx", {size});
        without_gil([=] { activation_backward(g, gy, z, gx); });
    });
    m.def("function_forward", [](NNLITE_FUNCTION, Object x_, Object y_, Object) {
        const Named g = named(size, function, a, b);
        const float* x = in<float>(x_, "x", {size});
        float* y = out<float>(y_, "y", {size});
        without_gil([=] { function_forward(g, x, y); });
    });
    m.def("function_backward", [](NNLITE_FUNCTION, Object gy_, Object z_, Object gx_, Object) {
        const Named g = named(size, function, a, b);
        const float* gy = in<float>(gy_, "gy", {size});
        const float* z = in<float>(z_, "z", {size});
        float* gx = out<float>(gx_, "gx", {size});
        without_gil([=] { function_backward(g, gy, z, gx); });
    });
    m.def("sgd_step", [](NNLITE_ELTWISE, Object weight_, Object gradient_, Object velocity_, Object options_,
                         Object new_weight_, Object new_velocity_, Object) {
        const Eltwise g = eltwise(size, alpha, beta, kind, low, high);
        const float* weight = in<float>(weight_, "weight", {size});
        const float* gradient = in<float>(gradient_, "gradient", {size});
        const float* velocity = in_or_null<float>(velocity_, "velocity", {size});
        const float* options = in<float>(options_, "options", {5});
        float* new_weight = out<float>(new_weight_, "new_weight", {size});
        float* new_velocity = out_or_null<float>(new_velocity_, "new_velocity", {size});
        without_gil([=] { sgd_step(g, weight, gradient, velocity, options, new_weight, new_velocity); });
    });
    m.def("adam_step", [](NNLITE_ELTWISE, Object weight_, Object gradient_, Object mean_, Object square_,
                          Object options_, Object new_weight_, Object new_mean_, Object new_square_, Object) {
        const Eltwise g = eltwise(size, alpha, beta, kind, low, high);
        const float* weight = in<float>(weight_, "weight", {size});
        const float* gradient = in<float>(gradient_, "gradient", {size});
        const float* mean = in<float>(mean_, "mean", {size});
        const float* square = in<float>(square_, "square", {size});
        const float* options = in<float>(options_, "options", {9});
        float* new_weight = out<float>(new_weight_, "new_weight", {size});
        float* new_mean = out<float>(new_mean_, "new_mean", {size});
        float* new_square = out<float>(new_square_, "new_square", {size});
        without_gil([=] {
            adam_step(g, weight, gradient, mean, square, options, new_weight, new_mean, new_square);
        });
    });
}

}  // namespace

void bind_rows(py::module_& m) {
    bind_norm(m);
    bind_lines(m);
    bind_resize(m);
    bind_eltwise(m);
}

}  // namespace nnlite
