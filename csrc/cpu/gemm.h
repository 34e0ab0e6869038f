// Packed weights and the blocked matrix product over a gather.
#pragma once

#include "../include/kernels.h"
#include "gather.h"

namespace nnlite {

// A weight array seen as matrices [depth, columns], one per group and tap: strides in elements.
struct WeightView {
    const float* w;
    int64_t depth, columns, groups;
    int64_t depth_stride, column_stride, group_stride;
    int64_t r_stride, s_stride;
};

// Panels of `width` columns, the last one as narrow as its columns allow in whole vectors.
struct Panels {
    int64_t columns, length;  // length = taps·depth
    int64_t width, vector;

    Panels(const Kernels& k, int64_t columns_, int64_t length_)
        : columns(columns_), length(length_), width(k.vector_length * k.tile_vectors), vector(k.vector_length) {}

    int64_t count() const { return (columns + width - 1) / width; }
    int64_t columns_of(int64_t panel) const {
        const int64_t left = columns - panel * width;
        return left < width ? left : width;
    }
    int64_t vectors_of(int64_t panel) const { return (columns_of(panel) + vector - 1) / vector; }
    int64_t start(int64_t panel) const { return panel * width * length; }
    int64_t floats() const {  // of one group, all panels
        const int64_t last = count() - 1;
        return start(last) + vectors_of(last) * vector * length;
    }
};

// One tap of one panel: `columns` columns of w, with zeros up to `width`, to [depth][width].
void pack_tap(const Kernels& k, const WeightView& view, const float* w, int64_t columns, int64_t width, float* to);

// All of it: packed[group][panel][tap][depth][column], groups · panels.floats(). Does not depend on the rows.
void pack_weights(const Kernels& k, const Panels& panels, const WeightView& view, const Axis& h, const Axis& w,
                  float* packed);

// out = act(gather · weights + bias + residual), all groups. Without `packed` weights, which pack_weights made, they
// are packed as they are needed, into gather_gemm_scratch floats.
int64_t gather_gemm_scratch(const Kernels& k, const Gather& gather, const Panels& panels, int64_t groups);
void gather_gemm(const Kernels& k, const Gather& gather, const Panels& panels, const WeightView& view,
                 const float* packed, const Epilogue& epilogue, float* scratch);

}  // namespace nnlite
