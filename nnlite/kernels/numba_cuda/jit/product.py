"""One matrix product for all three passes of a convolution, after the textbook: tiles in shared memory.

    out[i, j] = sum_d a(i, d) b(d, j)

A block of TILE x TILE threads computes as many sums. In each step of TILE along d its threads bring in one
element of a and one of b each, which then serve TILE threads. What a and b are at (i, d) and (d, j) is said
by functions, so that nothing is gathered in memory beforehand: matrices that are never there (implicit
GEMM). Sums run in the order of d in one thread: no atomics, the same bits every time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import config, cuda, float32, float64

# The simulator runs every thread of a block as one of the system's, and each barrier takes a millisecond.
TILE = 4 if config.ENABLE_CUDASIM else 16
PITCH = TILE + 1  # of a row in shared memory: threads that read down a column meet different banks
TYPES = {"float32": float32, "float64": float64}

Function = Callable[..., Any]


@cache
def product(sizes: Function, a: Function, b: Function, store: Function, dtype: str) -> Any:
    """The kernel for operands of ``dtype``; ``sizes(geometry)`` gives rows, columns and depth.

    Launched on a grid of (tiles of rows, tiles of columns, groups).
    """
    element = TYPES[dtype]

    @cuda.jit
    def kernel(left, right, bias, residual, out, low, high, g):  # type: ignore[no-untyped-def]
        rows, columns, depth = sizes(g)
        group = cuda.blockIdx.z
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        i, j = cuda.blockIdx.x * TILE + ty, cuda.blockIdx.y * TILE + tx
        tile_a = cuda.shared.array((TILE, PITCH), element)
        tile_b = cuda.shared.array((TILE, PITCH), element)
        total = element(0)
        for start in range(0, depth, TILE):
            along, down = start + tx, start + ty
            tile_a[ty, tx] = a(left, i, along, group, g) if i < rows and along < depth else element(0)
            tile_b[ty, tx] = b(right, down, j, group, g) if j < columns and down < depth else element(0)
            cuda.syncthreads()
            for d in range(TILE):
                total += tile_a[ty, d] * tile_b[d, tx]
            cuda.syncthreads()
        if i < rows and j < columns:
            store(out, i, j, total, bias, residual, low, high, group, g)

    return kernel
