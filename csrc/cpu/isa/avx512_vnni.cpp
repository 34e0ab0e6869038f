#define NNLITE_REDUCED_TABLE reduced_avx512_vnni
#include "reduced_table.inl"
