// What a convolution and its gradient by the input have in common: results made of the source pixels that they see.
#pragma once

#include "tiles.h"
#include "windows.h"

namespace nnlite {
namespace cuda {

// One convolution, or one gradient by the input, whose weights lie as [out channels][R][S][source channels of a group].
template <class T, class Bias, class Out>
struct Rows {
    Conv2d g;
    bool gradient;
    int batch, groups, kernel_across;
    int height, width, source_channels, depth_channels;  // of the source; the latter of one group
    int out_height, out_width, out_channels, columns;    // of the result
    const T *source, *weights;
    const Bias* bias;
    const T* residual;
    Out* out;

    Rows(const Conv2d& g_, bool gradient_, const T* source_, const T* weights_, const Bias* bias_, const T* residual_,
         Out* out_)
        : g(g_), gradient(gradient_), batch(int(g.N)), groups(int(g.groups)), kernel_across(int(g.S)),
          height(int(gradient ? g.P : g.H)), width(int(gradient ? g.Q : g.W)),
          source_channels(int(gradient ? g.K : g.C)), depth_channels(source_channels / groups),
          out_height(int(gradient ? g.H : g.P)), out_width(int(gradient ? g.W : g.Q)),
          out_channels(int(gradient ? g.C : g.K)), columns(out_channels / groups),
          source(source_), weights(weights_), bias(bias_), residual(residual_), out(out_) {}

    __host__ __device__ Axis down(int which) const {
        return gradient ? gradient_axis(which, g.H, g.stride_h, g.pad_top, g.dilation_h, g.R)
                        : forward_axis(g.P, g.stride_h, g.pad_top, g.dilation_h, g.R);
    }
    __host__ __device__ Axis across(int which) const {
        return gradient ? gradient_axis(which, g.W, g.stride_w, g.pad_left, g.dilation_w, g.S)
                        : forward_axis(g.Q, g.stride_w, g.pad_left, g.dilation_w, g.S);
    }
    __host__ __device__ int classes_across() const { return gradient ? int(g.stride_w) : 1; }
    int64_t classes() const { return gradient ? g.stride_h * g.stride_w : 1; }
    int64_t largest_class() const { return int64_t(batch) * down(0).count * across(0).count; }  // the first one

    // Where the sums of a group's columns go, beginning with column `base` of all.
    __device__ Destination<T, Bias, Out> destination(int base, int count) const {
        return {bias ? bias + base : nullptr, residual ? residual + base : nullptr, out + base,
                gradient ? Activation{no_activation, 0, 0} : g.act, count};
    }
    // Where the result of place (n, i, j) of a class begins.
    __device__ int64_t result_at(const Axis& down, const Axis& across, int n, int i, int j) const {
        const int h = i * down.stride + down.first, w = j * across.stride + across.first;
        return ((int64_t(n) * out_height + h) * out_width + w) * out_channels;
    }
};

}  // namespace cuda
}  // namespace nnlite
