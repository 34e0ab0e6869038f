"""Along an axis: running products, and the beginnings of sequences turned round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Sample,
    register,
)
from nnlite.ops.reduce import normalise_axes

# --------------------------------------------------------------------------------------- cumprod


def cumprod_shape(x: ArrayType, axis: int, exclusive: bool = False, reverse: bool = False) -> ArrayType:
    normalise_axes("cumprod", (axis,), len(x.shape))
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"cumprod: x is {x.dtype} but must hold numbers")
    return x


def _shifted(x: Array, first: float) -> Array:
    """x [L,…] one place later, ``first`` in front."""
    return np.concatenate([np.full_like(x[:1], first), x[:-1]])


def _front(x: Array, axis: int, reverse: bool) -> Array:
    """The axis in front, so that the product runs from the first to the last."""
    moved = np.moveaxis(x, int(axis), 0)
    return moved[::-1] if reverse else moved


def _back(x: Array, axis: int, reverse: bool) -> Array:
    return as_array(np.moveaxis(x[::-1] if reverse else x, 0, int(axis)))


def cumprod_forward(
    ctx: Context, x: Array, axis: int, exclusive: bool = False, reverse: bool = False
) -> Array:
    ctx.save(x)
    rows = _front(x, axis, reverse)
    y = np.cumprod(_shifted(rows, 1) if exclusive else rows, 0, dtype=x.dtype)
    return _back(y, axis, reverse)


def cumprod_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    axis, reverse = ctx.params["axis"], ctx.params.get("reverse", False)
    x, g = (_front(a, axis, reverse) for a in (ctx.saved[0], gy))
    if ctx.params.get("exclusive", False):  # y[i] is the product up to x[i - 1]
        g = np.concatenate([g[1:], np.zeros_like(g[:1])])
    # Without division, which fails where x is 0: total[i] = Σ_j≥i g[j] · Π x[i+1 … j].
    total = g.copy()
    for i in range(len(x) - 2, -1, -1):
        total[i] += x[i + 1] * total[i + 1]
    before = np.cumprod(_shifted(x, 1), 0)
    return (_back(before * total, axis, reverse),)


def read_cumprod(n: OnnxNode) -> Any:
    flags = {name: bool(n.attribute(name, 0)) for name in ("exclusive", "reverse")}
    return n.emit("cumprod", n.inputs[0], axis=n.scalar(1), **flags)


def write_cumprod(w: OnnxWriter, node: Node) -> str:
    flags = {name: int(node.params.get(name, False)) for name in ("exclusive", "reverse")}
    return w.add("CumProd", [node.inputs[0], w.host(node.params["axis"])], **flags)


register(
    Op(
        name="cumprod",
        formula="y[i] = Π x[j] over j ≤ i along axis (j < i when exclusive; j ≥ i in reverse)",
        gradient="gx[i] = Σ_j≥i gy[j] · the product of all x[…j] but x[i] (in reverse the other way round)",
        source="ONNX CumProd-26; torch.cumprod",
        shape=cumprod_shape,
        forward=cumprod_forward,
        backward=cumprod_backward,
        samples=lambda: [
            Sample((2, 5), axis=1),
            Sample(np.array([[2.0, 0.0, 3.0, 0.5], [1.0, -2.0, 0.0, 0.0]]), axis=1),
            Sample((3, 2, 4), axis=-3, exclusive=True, reverse=True),
            Sample(np.array([1, 2, 3]), axis=0, exclusive=True, gradcheck=False),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "out of range", (2, 3), axis=2),
            ErrorSample(DTypeError, "must hold numbers", np.array(["a"]), axis=0),
        ],
        reads={"CumProd": read_cumprod},
        writes=write_cumprod,
    )
)

# ------------------------------------------------------------------------------ reverse_sequence


def reverse_sequence_shape(x: ArrayType, lengths: ArrayType, time_axis: int, batch_axis: int) -> ArrayType:
    if {time_axis, batch_axis} != {0, 1} or len(x.shape) < 2:
        raise ShapeError(
            f"reverse_sequence: time_axis={time_axis} and batch_axis={batch_axis} must be 0 and 1, or 1 and "
            f"0, of x {list(x.shape)}"
        )
    if lengths.shape != x.shape[batch_axis : batch_axis + 1] or lengths.dtype.kind not in "iu":
        raise ShapeError(f"reverse_sequence: lengths are {lengths} but must be int64[{x.shape[batch_axis]}]")
    return x


def _turned(x: Array, lengths: Array, time_axis: int) -> Array:
    size = x.shape[time_axis]
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= size:
        raise OperandError(f"reverse_sequence: lengths {lengths.tolist()} must be 0 to {size}")
    steps = np.arange(size, like=lengths)
    places = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # [batch, time]
    places = places if time_axis == 1 else places.T
    return np.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), time_axis)


def reverse_sequence_forward(
    ctx: Context, x: Array, lengths: Array, time_axis: int, batch_axis: int
) -> Array:
    ctx.save(lengths)
    return _turned(x, lengths, time_axis)


def reverse_sequence_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    return _turned(gy, ctx.saved[0], ctx.params["time_axis"]), None


def read_reverse_sequence(n: OnnxNode) -> Any:
    axes = dict(time_axis=n.attribute("time_axis", 0), batch_axis=n.attribute("batch_axis", 1))
    return n.emit("reverse_sequence", *n.inputs, **axes)


_LENGTHS = np.array([3, 1, 4])
register(
    Op(
        name="reverse_sequence",
        formula="y[t,n] = x[lengths[n] - 1 - t, n] for t < lengths[n], else x[t,n]; also with [n,t]",
        gradient="gx = gy, turned round in the same way",
        source="ONNX ReverseSequence-10",
        shape=reverse_sequence_shape,
        forward=reverse_sequence_forward,
        backward=reverse_sequence_backward,
        samples=lambda: [
            Sample((4, 3, 2), _LENGTHS, time_axis=0, batch_axis=1),
            Sample((3, 5), _LENGTHS, time_axis=1, batch_axis=0),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "must be 0 and 1", (4, 3), _LENGTHS, time_axis=1, batch_axis=1),
            ErrorSample(ShapeError, "must be int64", (4, 2), _LENGTHS, time_axis=0, batch_axis=1),
            ErrorSample(OperandError, "must be 0 to 3", (3, 3), _LENGTHS, time_axis=0, batch_axis=1),
        ],
        reads={"ReverseSequence": read_reverse_sequence},
        writes=lambda w, node: w.add(
            "ReverseSequence", node.inputs,
            time_axis=node.params["time_axis"], batch_axis=node.params["batch_axis"],
        ),
    )
)  # fmt: skip
