#define NNLITE_TABLE kernels_avx512_bf16
#define NNLITE_ISA_NAME "avx512_bf16"
#include "table.inl"
