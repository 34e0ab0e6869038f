#define NNLITE_TABLE kernels_avx512_vnni
#define NNLITE_ISA_NAME "avx512_vnni"
#include "table.inl"
