#define NNLITE_TABLE kernels_avx2
#define NNLITE_ISA_NAME "avx2"
#include "table.inl"
