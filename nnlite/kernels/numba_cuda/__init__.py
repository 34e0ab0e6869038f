"""Convolution and pooling for CUDA arrays, compiled by Numba when first used.

Variants are registered without Numba and without a GPU, so that an explanation can say why they do not
serve. ``NUMBA_ENABLE_CUDASIM=1`` runs them in Numba's simulator, on the CPU, a thread at a time: for tests.
"""

from nnlite.kernels.numba_cuda import conv2d, pool2d
from nnlite.kernels.numba_cuda.launch import unavailable

__all__ = ["conv2d", "pool2d", "unavailable"]
