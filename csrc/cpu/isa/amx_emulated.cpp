#define NNLITE_PRODUCTS products_amx_emulated
#define NNLITE_TILES "tiles_emulated.inl"
#include "amx.inl"
