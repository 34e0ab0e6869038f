"""Elementwise work on kernels: where operands are float32, of one shape and of one dense memory order.

Everything else is NumPy's, which knows all types and broadcasts; its results go into pool memory too.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

from nnlite import layout, memory
from nnlite.device import is_array
from nnlite.geometry import FUNCTIONS, EltwiseGeometry, FunctionGeometry
from nnlite.kernels import launch
from nnlite.layout import Array, as_array

_size = attrgetter("size")
_FLOAT32 = np.dtype(np.float32)
_OPERANDS = {"combine": 2, "multiply": 2, "activation_backward": 2}
_OPERANDS |= {"function_forward": 1, "function_backward": 2}


class Kernel:
    """A kernel spec with the options of its geometry: ``Kernel("combine", alpha=-1.0)``."""

    def __init__(self, name: str, geometry: Any = EltwiseGeometry, **options: Any) -> None:
        self.name = name
        self.options = options
        self._make = geometry
        self._geometries: dict[int, Any] = {}
        self.operands = _OPERANDS[name]

    def geometry(self, size: int) -> Any:
        """The geometry for ``size`` numbers; made once, because hashing a new one costs microseconds."""
        known = self._geometries.get(size)
        if known is None:
            if len(self._geometries) > 1024:
                self._geometries.clear()
            known = self._geometries[size] = self._make(size, **self.options)
        return known

    def __call__(self, *operands: Array) -> Array | None:
        """The kernel's result, or None where it does not serve."""
        first = operands[0]
        if first.dtype != _FLOAT32 or not first.size:
            return None
        for other in operands[1:]:
            if other.dtype != _FLOAT32 or other.shape != first.shape:
                return None
        runs = layout.runs(*operands)
        if runs is None:
            return None
        y = memory.empty_like(first)
        out = layout.runs(y)
        assert out is not None
        absent = [None] * (self.operands - len(operands))
        launch(self.name, self.geometry(first.size), *runs, *absent, *out)
        return y


def named(function: str, a: float = 0.0, b: float = 0.0) -> tuple[Kernel, Kernel]:
    """The kernels of one of ``geometry.FUNCTIONS`` and of its gradient."""
    options: dict[str, Any] = dict(function=FUNCTIONS.index(function), a=a, b=b)
    forward = Kernel("function_forward", FunctionGeometry, **options)
    return forward, Kernel("function_backward", FunctionGeometry, **options)


_ADD = Kernel("combine")


def add(a: Array, b: Array) -> Array:
    """a + b in new memory; gradients that arrive at one value from several sides."""
    y = _ADD(a, b) if is_array(a) and is_array(b) else None
    return as_array(evaluate(np.add, a, b)) if y is None else y


def _computes_floats(function: Any) -> bool:
    return isinstance(function, np.ufunc) and bool({"f->f", "ff->f"} & set(function.types))


def evaluate(function: Callable[..., Array], *operands: Array, **params: Any) -> Array:
    """``function(*operands)``; the result of a large ufunc goes into pool memory of the operands' order."""
    largest = max(operands, key=_size, default=None)
    if params or largest is None or largest.nbytes < memory.SMALLEST or not _computes_floats(function):
        return function(*operands, **params)
    dtype = np.result_type(*operands)
    shapes = {operand.shape for operand in operands}
    if (
        dtype.kind != "f"
        or dtype != largest.dtype
        or (len(shapes) > 1 and np.broadcast_shapes(*shapes) != largest.shape)
    ):
        return function(*operands)
    return function(*operands, out=memory.empty_like(largest))
