#include "cuda_rows.h"

#include "../cuda/cuda.h"
#include "cuda_args.h"
#include "geometry.h"

namespace nnlite {
namespace cuda {
namespace {

using Release = py::gil_scoped_release;

// The values of a NormGeometry: M, C, epsilon, activation, low, high.
struct Rows {
    Norm g;
    double epsilon;

    explicit Rows(Fields fields) {
        require(fields.size() == 6, "rows have M, C, epsilon and an activation");
        g = norm(fields[0].cast<int64_t>(), fields[1].cast<int64_t>(), fields[3].cast<int64_t>(),
                 fields[4].cast<double>(), fields[5].cast<double>());
        epsilon = fields[2].cast<double>();
        require(g.M * g.C <= INT32_MAX, "a CUDA kernel takes at most 2^31 - 1 elements in an array");
    }
};

void bind_norm(py::module_& m) {
    m.def("batch_norm_training_forward", [](Stream handle, Fields fields, Object x_, Object weight_, Object bias_,
                                            Object residual_, Object y_, Object mean_, Object inv_std_, Object workspace_) {
        const Rows r(fields);
        const int64_t M = r.g.M, C = r.g.C;
        const float* x = in<float>(x_, "x", {M, C});
        const float* weight = in<float>(weight_, "weight", {C});
        const float* bias = in<float>(bias_, "bias", {C});
        const float* residual = in_or_null<float>(residual_, "residual", {M, C});
        float* y = out<float>(y_, "y", {M, C});
        float* mean = out<float>(mean_, "mean", {C});
        float* inv_std = out<float>(inv_std_, "inv_std", {C});
        void* workspace = scratch(workspace_, norm_workspace(r.g));
        const Release released;
        batch_norm_training_forward(r.g, r.epsilon, x, weight, bias, residual, y, mean, inv_std, workspace, stream(handle));
    });
    m.def("batch_norm_training_backward",
          [](Stream handle, Fields fields, Object x_, Object gy_, Object y_, Object weight_, Object bias_, Object mean_,
             Object inv_std_, Object gx_, Object gweight_, Object gbias_, Object gresidual_, Object workspace_) {
              const Rows r(fields);
              const int64_t M = r.g.M, C = r.g.C;
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
              void* workspace = scratch(workspace_, norm_workspace(r.g));
              const Release released;
              batch_norm_training_backward(r.g, x, gy, y, weight, bias, mean, inv_std, gx, gweight, gbias, gresidual,
                                           workspace, stream(handle));
          });
    m.def("batch_norm_inference_forward", [](Stream handle, Fields fields, Object x_, Object mean_, Object scale_,
                                             Object shift_, Object residual_, Object y_, Object) {
        const Rows r(fields);
        const int64_t M = r.g.M, C = r.g.C;
        const float* x = in<float>(x_, "x", {M, C});
        const float* mean = in_or_null<float>(mean_, "mean", {C});
        const float* scale = in<float>(scale_, "scale", {C});
        const float* shift = in<float>(shift_, "shift", {C});
        const float* residual = in_or_null<float>(residual_, "residual", {M, C});
        float* y = out<float>(y_, "y", {M, C});
        const Release released;
        batch_norm_inference_forward(r.g, x, mean, scale, shift, residual, y, stream(handle));
    });
    m.def("batch_norm_inference_backward",
          [](Stream handle, Fields fields, Object x_, Object gy_, Object y_, Object scale_, Object shift_, Object mean_,
             Object inv_std_, Object gx_, Object gweight_, Object gbias_, Object gresidual_, Object workspace_) {
              const Rows r(fields);
              const int64_t M = r.g.M, C = r.g.C;
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
              void* workspace = scratch(workspace_, norm_workspace(r.g));
              const Release released;
              batch_norm_inference_backward(r.g, x, gy, y, scale, shift, mean, inv_std, gx, gweight, gbias, gresidual,
                                            workspace, stream(handle));
          });
    m.def("channel_sum", [](Stream handle, Fields fields, Object x_, Object total_, Object workspace_) {
        const Rows r(fields);
        const float* x = in<float>(x_, "x", {r.g.M, r.g.C});
        float* total = out<float>(total_, "total", {r.g.C});
        void* workspace = scratch(workspace_, norm_workspace(r.g));
        const Release released;
        channel_sum(r.g, x, total, workspace, stream(handle));
    });
}

template <void (*kernel)(const Norm&, const float*, float*, cudaStream_t)>
void line_forward(Stream handle, Fields fields, Object x_, Object y_, Object) {
    const Rows r(fields);
    const float* x = in<float>(x_, "x", {r.g.M, r.g.C});
    float* y = out<float>(y_, "y", {r.g.M, r.g.C});
    const Release released;
    kernel(r.g, x, y, stream(handle));
}

template <void (*kernel)(const Norm&, const float*, const float*, float*, cudaStream_t)>
void line_backward(Stream handle, Fields fields, Object gy_, Object y_, Object gx_, Object) {
    const Rows r(fields);
    const float* gy = in<float>(gy_, "gy", {r.g.M, r.g.C});
    const float* y = in<float>(y_, "y", {r.g.M, r.g.C});
    float* gx = out<float>(gx_, "gx", {r.g.M, r.g.C});
    const Release released;
    kernel(r.g, gy, y, gx, stream(handle));
}

void bind_lines(py::module_& m) {
    m.def("softmax_forward", &line_forward<softmax_forward>);
    m.def("softmax_backward", &line_backward<softmax_backward>);
    m.def("log_softmax_forward", &line_forward<log_softmax_forward>);
    m.def("log_softmax_backward", &line_backward<log_softmax_backward>);
    m.def("cross_entropy", [](Stream handle, Fields fields, Object logits_, Object labels_, Object weight_,
                              Object options_, Object losses_, Object gradient_, Object) {
        const Rows r(fields);
        const int64_t M = r.g.M, C = r.g.C;
        const float* logits = in<float>(logits_, "logits", {M, C});
        const int64_t* labels = in<int64_t>(labels_, "labels", {M});
        const float* weight = in_or_null<float>(weight_, "weight", {C});
        const std::array<float, 2> options = numbers<2>(options_, "options");
        float* losses = out<float>(losses_, "losses", {M});
        float* gradient = out_or_null<float>(gradient_, "gradient", {M, C});
        const Release released;
        cross_entropy(r.g, logits, labels, weight, options[0], options[1], losses, gradient, stream(handle));
    });
    m.def("layer_norm_forward", [](Stream handle, Fields fields, Object x_, Object weight_, Object bias_, Object y_,
                                   Object mean_, Object inv_std_, Object) {
        const Rows r(fields);
        const int64_t M = r.g.M, C = r.g.C;
        const float* x = in<float>(x_, "x", {M, C});
        const float* weight = in_or_null<float>(weight_, "weight", {C});
        const float* bias = in_or_null<float>(bias_, "bias", {C});
        float* y = out<float>(y_, "y", {M, C});
        float* mean = out<float>(mean_, "mean", {M});
        float* inv_std = out<float>(inv_std_, "inv_std", {M});
        const Release released;
        layer_norm_forward(r.g, r.epsilon, x, weight, bias, y, mean, inv_std, stream(handle));
    });
    m.def("layer_norm_backward",
          [](Stream handle, Fields fields, Object x_, Object gy_, Object weight_, Object mean_, Object inv_std_,
             Object gx_, Object gweight_, Object gbias_, Object workspace_) {
              const Rows r(fields);
              const int64_t M = r.g.M, C = r.g.C;
              const float* x = in<float>(x_, "x", {M, C});
              const float* gy = in<float>(gy_, "gy", {M, C});
              const float* weight = in_or_null<float>(weight_, "weight", {C});
              const float* mean = in<float>(mean_, "mean", {M});
              const float* inv_std = in<float>(inv_std_, "inv_std", {M});
              float* gx = out_or_null<float>(gx_, "gx", {M, C});
              float* gweight = out_or_null<float>(gweight_, "gweight", {C});
              float* gbias = out_or_null<float>(gbias_, "gbias", {C});
              void* workspace = scratch(workspace_, norm_workspace(r.g));
              const Release released;
              layer_norm_backward(r.g, x, gy, weight, mean, inv_std, gx, gweight, gbias, workspace, stream(handle));
          });
}

}  // namespace

void bind_rows(py::module_& m) {
    bind_norm(m);
    bind_lines(m);
    for (const char* name : {"batch_norm_training_forward", "batch_norm_training_backward", "batch_norm_inference_backward",
                             "channel_sum", "layer_norm_backward"})
        m.def((std::string(name) + "_workspace").c_str(), [](Fields fields) { return norm_workspace(Rows(fields).g); });
}

}  // namespace cuda
}  // namespace nnlite
