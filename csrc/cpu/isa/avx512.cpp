#define NNLITE_TABLE kernels_avx512
#define NNLITE_ISA_NAME "avx512"
#include "table.inl"
