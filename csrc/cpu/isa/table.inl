// The table of one instruction set. NNLITE_TABLE is its name, NNLITE_ISA_NAME what people call it.
// It must be constant-initialised: a dynamic initialiser would run this file's instructions when
// the library is loaded, on any CPU.

#include "../../include/kernels.h"
#include "vec.h"

#include "epilogue.inl"
#include "gemm.inl"
#include "winograd.inl"
#include "depthwise.inl"
#include "depthwise_band.inl"
#include "eltwise.inl"
#include "smooth.inl"
#include "lines.inl"
#include "norm.inl"
#include "reduced_table.inl"
#include "pool.inl"
#include "resize.inl"
#include "probe.inl"

namespace nnlite {

#if defined(__AVX512F__) || defined(__aarch64__)
#define NNLITE_TILES(NV)                                                                                        \
    {gemm_tile<1, NV>, gemm_tile<2, NV>, gemm_tile<3, NV>, gemm_tile<4, NV>,  gemm_tile<5, NV>,  gemm_tile<6, NV>, \
     gemm_tile<7, NV>, gemm_tile<8, NV>, gemm_tile<9, NV>, gemm_tile<10, NV>, gemm_tile<11, NV>, gemm_tile<12, NV>}
#else
#define NNLITE_TILES(NV)                                                                                        \
    {gemm_tile<1, NV>, gemm_tile<2, NV>, gemm_tile<3, NV>, gemm_tile<4, NV>, gemm_tile<5, NV>, gemm_tile<6, NV>, \
     nullptr,          nullptr,          nullptr,          nullptr,          nullptr,          nullptr}
#endif

#define NNLITE_WINOGRAD(m, r)                                                                            \
    {winograd_map<m + r - 1, m + r - 1, Limited::from, false, WinogradPoints<m, r>::data>,               \
     winograd_map<m + r - 1, m, Limited::to, true, WinogradPoints<m, r>::output>,                        \
     winograd_map<m, m + r - 1, Limited::from, false, WinogradPoints<m, r>::output_adjoint>,             \
     winograd_map<r, m + r - 1, Limited::none, false, WinogradPoints<m, r>::weight>,                     \
     winograd_map<m + r - 1, r, Limited::none, false, WinogradPoints<m, r>::weight_adjoint>}

extern const Kernels NNLITE_TABLE = {
    NNLITE_ISA_NAME,
    fma_rounds,
    probe_flops_per_round,
    VL,
    tile_rows,
    tile_vectors,
    {NNLITE_TILES(1), NNLITE_TILES(2)},
    pack_transposed,
    copy_strip,
    {NNLITE_WINOGRAD(2, 3), NNLITE_WINOGRAD(4, 3), NNLITE_WINOGRAD(4, 2)},
    depthwise_band,
    depthwise_grad_band,
    depthwise_row,
    depthwise_grad_row,
    max_pool_band,
    average_pool_band,
    max_pool_grad,
    average_pool_grad,
    moments,
    scale_rows,
    grad_sums,
    grad_rows,
    sum_rows,
    combine,
    gate,
    smooth,
    channel_slopes,
    scale_channels,
    multiply,
    softmax_rows,
    softmax_grad,
    cross_entropy_rows,
    layer_norm_rows,
    layer_norm_grad,
    resize_row,
    sgd_step,
    adam_step,
    NNLITE_REDUCED,
};

}  // namespace nnlite
