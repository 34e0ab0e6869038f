#define NNLITE_REDUCED_TABLE reduced_avx512_bf16
#include "reduced_table.inl"
