#define NNLITE_TABLE kernels_neon
#define NNLITE_ISA_NAME "neon"
#include "table.inl"
