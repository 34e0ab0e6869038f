"""What Numba compiles. These modules import numba; nothing else in nnlite does."""
