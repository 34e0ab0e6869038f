#define NNLITE_TABLE kernels_baseline
#define NNLITE_ISA_NAME "baseline"
#include "table.inl"
