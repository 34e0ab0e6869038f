// Which pixels meet in a convolution, along one axis, for the forward pass and for the gradient by the input.
//
// The results (pixels of y, or of gx) are split into classes that see the same taps of the kernel. Forward there is
// one. Of the gradient with stride s there are s: gx[h] = sum over r of gy[(h + pad - r dilation) / s] w[r], for those
// r only that make the division exact, and these are the same for h, h + s, h + 2 s, ... So every class is a dense
// convolution of stride 1 with some of the taps, and no thread ever multiplies by a zero that a stride has put there.
// (Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285, draw the zeros that are avoided here.)
#pragma once

#include "common.h"

namespace nnlite {
namespace cuda {

// Result `first + i stride`, i < count, sees the source pixels `base + i step + t reach`, t < taps, as far as they
// exist, through the taps `tap_first + t tap_step` of the kernel.
struct Axis {
    int count, first, stride;
    int base, step, taps, reach;
    int tap_first, tap_step;
};

__host__ __device__ inline Axis forward_axis(int64_t results, int64_t stride, int64_t pad, int64_t dilation, int64_t taps) {
    return {static_cast<int>(results), 0, 1,
            static_cast<int>(-pad), static_cast<int>(stride), static_cast<int>(taps), static_cast<int>(dilation), 0, 1};
}

// Class `which` < stride of the gradient by an input of `size` pixels.
__host__ __device__ inline Axis gradient_axis(int which, int64_t size_, int64_t stride_, int64_t pad_, int64_t dilation_,
                                              int64_t taps_) {
    const int size = static_cast<int>(size_), stride = static_cast<int>(stride_), pad = static_cast<int>(pad_);
    const int dilation = static_cast<int>(dilation_), taps = static_cast<int>(taps_);
    Axis axis = {0, which, stride, 0, 1, 0, 0, 0, 1};
    axis.count = which < size ? (size - 1 - which) / stride + 1 : 0;
    // The first tap with (which + pad - r dilation) divisible by the stride, and the next one after it.
    int r = 0;
    while (r < stride && r < taps && (which + pad - r * dilation) % stride) ++r;
    if (r == stride || r >= taps) return axis;  // none: these results are zeros
    int period = 1;
    while (period * dilation % stride) ++period;
    axis.tap_first = r;
    axis.tap_step = period;
    axis.taps = (taps - 1 - r) / period + 1;
    axis.base = (which + pad - r * dilation) / stride;  // exact, so that its sign does not matter
    axis.reach = -(period * dilation / stride);
    return axis;
}

}  // namespace cuda
}  // namespace nnlite
