"""The Numba backend: kernels in Python, compiled for this processor when first used.

Variants are registered without Numba, so that an explanation can say why they do not serve; Numba is
imported when the first kernel is launched.
"""

from nnlite.kernels.numba_cpu import conv2d, eltwise, lines, norm, pool2d
from nnlite.kernels.numba_cpu.launch import numba_info, unavailable

__all__ = ["conv2d", "eltwise", "lines", "norm", "numba_info", "pool2d", "unavailable"]
