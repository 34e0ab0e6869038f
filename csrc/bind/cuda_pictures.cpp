#include "../cuda/cuda.h"
#include "cuda_args.h"
#include "cuda_rows.h"
#include "geometry.h"

namespace nnlite {
namespace cuda {
namespace {

using Release = py::gil_scoped_release;

void count_elements(int64_t x, int64_t y) {
    require(x <= INT32_MAX && y <= INT32_MAX, "a CUDA kernel takes at most 2^31 - 1 elements in an array");
}

Pool2d small_pool2d(const PoolInts& ints) {
    const Pool2d g = pool2d(ints);
    count_elements(g.N * g.C * g.H * g.W, g.N * g.C * g.P * g.Q);
    return g;
}

}  // namespace

void bind_pictures(py::module_& m) {
    m.def("max_pool2d_forward", [](Stream handle, const PoolInts& ints, Object x_, Object y_, Object indices_, Object) {
        const Pool2d g = small_pool2d(ints);
        const float* x = in<float>(x_, "x", x_shape(g));
        float* y = out<float>(y_, "y", y_shape(g));
        int32_t* indices = out_or_null<int32_t>(indices_, "indices", y_shape(g));
        const Release released;
        max_pool2d_forward(g, x, y, indices, stream(handle));
    });
    m.def("max_pool2d_backward", [](Stream handle, const PoolInts& ints, Object gy_, Object indices_, Object gx_, Object) {
        const Pool2d g = small_pool2d(ints);
        const float* gy = in<float>(gy_, "gy", y_shape(g));
        const int32_t* indices = in<int32_t>(indices_, "indices", y_shape(g));
        float* gx = out<float>(gx_, "gx", x_shape(g));
        const Release released;
        max_pool2d_backward(g, gy, indices, gx, stream(handle));
    });
    m.def("avg_pool2d_forward", [](Stream handle, const PoolInts& ints, Object x_, Object y_, Object) {
        const Pool2d g = small_pool2d(ints);
        const float* x = in<float>(x_, "x", x_shape(g));
        float* y = out<float>(y_, "y", y_shape(g));
        const Release released;
        avg_pool2d_forward(g, x, y, stream(handle));
    });
    m.def("avg_pool2d_backward", [](Stream handle, const PoolInts& ints, Object gy_, Object gx_, Object) {
        const Pool2d g = small_pool2d(ints);
        const float* gy = in<float>(gy_, "gy", y_shape(g));
        float* gx = out<float>(gx_, "gx", x_shape(g));
        const Release released;
        avg_pool2d_backward(g, gy, gx, stream(handle));
    });
    // The taps lie on the GPU, where nobody can look at them without waiting: they must be as the CPU's binding wants them.
    m.def("resize", [](Stream handle, const std::array<int64_t, resize_fields>& ints, Object x_, Object row_start_,
                       Object rows_, Object row_weights_, Object column_start_, Object columns_, Object column_weights_,
                       Object y_, Object) {
        Resize g;
        std::memcpy(&g, ints.data(), sizeof g);
        require(g.N >= 0 && g.C > 0 && g.H > 0 && g.W > 0 && g.P > 0 && g.Q > 0, "sizes must be positive");
        require(g.row_taps >= 0 && g.column_taps >= 0, "there cannot be fewer than no taps");
        count_elements(g.N * g.C * g.H * g.W, g.N * g.C * g.P * g.Q);
        const float* x = in<float>(x_, "x", {g.N, g.C, g.H, g.W});
        const int32_t* row_start = in<int32_t>(row_start_, "row_start", {g.P + 1});
        const int32_t* rows = in<int32_t>(rows_, "row", {g.row_taps});
        const float* row_weights = in<float>(row_weights_, "row_weight", {g.row_taps});
        const int32_t* column_start = in<int32_t>(column_start_, "column_start", {g.Q + 1});
        const int32_t* columns = in<int32_t>(columns_, "column", {g.column_taps});
        const float* column_weights = in<float>(column_weights_, "column_weight", {g.column_taps});
        float* y = out<float>(y_, "y", {g.N, g.C, g.P, g.Q});
        const Release released;
        resize(g, x, row_start, rows, row_weights, column_start, columns, column_weights, y, stream(handle));
    });
}

}  // namespace cuda
}  // namespace nnlite
