#define NNLITE_PRODUCTS products_amx
#define NNLITE_TILES "tiles.inl"
#include "amx.inl"
