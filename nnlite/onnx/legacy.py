"""What operators meant before operator set 7, said in today's terms before a record reads them.

Until operator set 6 an operand of Add and its like was aligned by the attributes ``broadcast`` and
``axis``, until 5 nodes listed the inputs that may be overwritten, and some attributes had other types.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.node import Value
from nnlite.onnx.view import NodeView

OPERATORS = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Greater", "Less", "Equal")
"""Elementwise operators with ``broadcast`` and ``axis``, up to operator set 6."""


def modernise(view: NodeView) -> None:
    """Change ``view`` so that it says today what its operator said in its operator set."""
    if view.version < 6:
        view.attribute("consumed_inputs")  # a hint where memory may be reused
    if view.version >= 7:
        return
    if view.op_type in OPERATORS:
        broadcast, axis = view.attribute("broadcast", 0), view.attribute("axis")
        if broadcast and axis is not None:
            a, b = view.inputs
            view.inputs = (a, _aligned(view, a, b, axis))
    elif view.op_type == "PRelu":
        x, slope = view.inputs
        if view.known(slope) is None or view.known(slope).shape != (1,):  # type: ignore[union-attr]
            view.inputs = (x, _per_channel(view, x, slope))
    elif view.op_type == "Gemm":
        view.attribute("broadcast")


def _ones(view: NodeView, count: Any) -> Value:
    result: Value = view.emit("full", shape=count, value=1, dtype="int64")
    return result


def _aligned(view: NodeView, a: Value | None, b: Value | None, axis: int) -> Value:
    """b with axes of size 1 behind, so that its first axis lies at ``axis`` of a."""
    shape = view.emit("shape_of", b)
    behind = view.emit("sub", _rank(view, a), _rank(view, b))
    if axis >= 0:
        behind = view.emit("sub", behind, view.leaf(np.asarray([axis])))
    else:
        behind = view.emit("sub", view.leaf(np.asarray([-axis])), _rank(view, b))
    behind = _as_host(view, behind)
    result: Value = view.emit(
        "reshape", b, shape=_as_host(view, view.emit("concat", shape, _ones(view, behind), axis=0))
    )
    if b is not None:
        view.copy_kind(b, result)
    return result


def _per_channel(view: NodeView, x: Value | None, slope: Value | None) -> Value:
    """A slope per channel of x [N,C,...] (or one for all), with axes of size 1 behind."""
    behind = view.emit("maximum", view.emit("sub", _rank(view, x), view.leaf(np.asarray([2]))),
                       view.leaf(np.asarray([0])))  # fmt: skip
    flat = view.leaf(np.asarray([-1]))
    shape = view.emit("concat", flat, _ones(view, _as_host(view, behind)), axis=0)
    result: Value = view.emit("reshape", slope, shape=_as_host(view, shape))
    return result


def _rank(view: NodeView, value: Value | None) -> Value:
    result: Value = view.emit("shape_of", view.emit("shape_of", value))
    return result


def _as_host(view: NodeView, value: Value) -> Any:
    array = view.array(value)
    return value if array is None else tuple(array.tolist())
