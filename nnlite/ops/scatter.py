"""Reading and writing many places at once: gather_nd, scatter_nd, scatter_elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, GradientError, OperandError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.one_axis import add_at
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

REDUCTIONS: dict[str, Any] = {
    "none": None, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum,
}  # fmt: skip


def _wrapped(op: str, indices: Array, size: int, axis: int) -> Array:
    """Indices counted from the start; OperandError names one that is out of range."""
    if indices.size and (indices.min() < -size or indices.max() >= size):
        bad = int(indices.min()) if indices.min() < -size else int(indices.max())
        raise OperandError(f"{op}: index {bad} is out of range for axis {axis} of size {size}")
    return as_array(np.where(indices < 0, indices + size, indices))


def _check_indices(op: str, indices: ArrayType) -> None:
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"{op}: indices are {indices.dtype} but must be integers")


# ------------------------------------------------------------------------------------- gather_nd


def gather_nd_shape(x: ArrayType, indices: ArrayType, batch_dims: int = 0) -> ArrayType:
    _check_indices("gather_nd", indices)
    if not indices.shape or not 0 <= batch_dims < min(len(x.shape), len(indices.shape)):
        raise ShapeError(
            f"gather_nd: batch_dims={batch_dims} does not fit x {list(x.shape)} and "
            f"indices {list(indices.shape)}"
        )
    if x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise ShapeError(
            f"gather_nd: x {list(x.shape)} and indices {list(indices.shape)} differ in the first "
            f"{batch_dims} axes"
        )
    depth = indices.shape[-1]
    if not 1 <= depth <= len(x.shape) - batch_dims:
        raise ShapeError(f"gather_nd: indices of {depth} axes do not fit x {list(x.shape)}")
    return ArrayType((*indices.shape[:-1], *x.shape[batch_dims + depth :]), x.dtype)


def _places(op: str, shape: tuple[int, ...], indices: Array, batch_dims: int = 0) -> Array:
    """Where in x [places, inner] each index tuple points to."""
    depth = indices.shape[-1]
    place = np.zeros(indices.shape[:-1], np.int64, like=indices)
    for i in range(batch_dims):
        steps = np.arange(shape[i], like=indices).reshape(-1, *[1] * (place.ndim - i - 1))
        place = place * shape[i] + steps
    for i in range(depth):
        axis = batch_dims + i
        place = place * shape[axis] + _wrapped(op, indices[..., i], shape[axis], axis)
    return np.broadcast_to(place, indices.shape[:-1]).reshape(-1)


def _rows(x: Array, axes: int) -> Array:
    """x [places, inner]: the first axes counted through."""
    places = int(np.prod(x.shape[:axes], dtype=np.int64))
    return x.reshape(places, int(np.prod(x.shape[axes:], dtype=np.int64)))


def gather_nd_forward(ctx: Context, x: Array, indices: Array, batch_dims: int = 0) -> Array:
    places = _places("gather_nd", x.shape, indices, batch_dims)
    ctx.save(places)
    ctx.values.update(shape=x.shape, axes=batch_dims + indices.shape[-1])
    shape = gather_nd_shape(
        ArrayType(x.shape, x.dtype), ArrayType(indices.shape, indices.dtype), batch_dims
    ).shape
    return _rows(x, ctx.values["axes"])[places].reshape(shape)


def gather_nd_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    gx = np.zeros(ctx.values["shape"], gy.dtype, like=gy)
    rows = _rows(gx, ctx.values["axes"])
    add_at(rows, ctx.saved[0], gy.reshape(ctx.saved[0].size, rows.shape[1]))  # repeated ones add up
    return rows.reshape(gx.shape), None


def gather_nd_samples() -> Iterator[Sample]:
    yield Sample((3, 4), np.array([[0, 1], [2, -1], [0, 1]]))
    yield Sample((3, 4, 2), np.array([[[1], [2]]]))
    yield Sample((2, 3, 4), np.array([[[1], [0]], [[2], [2]]]), batch_dims=1)


def gather_nd_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(OperandError, "index 3 is out of range", (3, 4), np.array([[3, 0]]))
    yield ErrorSample(DTypeError, "must be integers", (3, 4), (1, 2))
    yield ErrorSample(ShapeError, "of 3 axes do not fit", (3, 4), np.array([[0, 0, 0]]))
    yield ErrorSample(ShapeError, "batch_dims=2 does not fit", (3, 4), np.array([[0]]), batch_dims=2)
    yield ErrorSample(ShapeError, "differ in the first 1", (3, 4), np.array([[0]]), batch_dims=1)


register(
    Op(
        name="gather_nd",
        formula="y[i…, :] = x[batch…, indices[i…, 0], indices[i…, 1], …, :]; the first batch_dims axes of x "
        "and indices go together; negative indices count from the end",
        gradient="gx = Σ gy over the places that chose each element",
        source="ONNX GatherND-13",
        shape=gather_nd_shape,
        forward=gather_nd_forward,
        backward=gather_nd_backward,
        samples=gather_nd_samples,
        errors=gather_nd_errors,
        reads={"GatherND": lambda n: n.emit("gather_nd", *n.inputs, batch_dims=n.attribute("batch_dims", 0))},
        writes=lambda w, node: w.add("GatherND", node.inputs, batch_dims=node.params.get("batch_dims", 0)),
    )
)

# --------------------------------------------------------------------------------- the core of both


def _scatter(
    ctx: Context, op: str, x: Array, places: Array, updates: Array, axes: int, reduction: str
) -> Array:
    """x with ``updates`` [count, inner] written or reduced into its rows ``places``."""
    y: Array = x.copy("C")
    rows = y.reshape(_rows(x, axes).shape)
    new = updates.reshape(places.size, rows.shape[1])
    if reduction == "none":
        rows[places] = new
    else:
        REDUCTIONS[reduction].at(rows, places, new)
    ctx.save(places)
    ctx.values.update(op=op, axes=axes, updates=updates.shape)
    return y


def _scatter_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    places, reduction = ctx.saved[0], ctx.params.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise GradientError(f"{ctx.values['op']}: reduction={reduction!r} has no gradient, only none and add")
    rows = _rows(gy, ctx.values["axes"])
    gx = gu = None
    if needs[0]:
        gx = rows.copy()
        if reduction == "none":
            gx[places] = 0
        gx = gx.reshape(gy.shape)
    if needs[2]:
        gu = rows[places]
        if reduction == "none":  # of several updates of one place the last one stays
            order = np.arange(places.size, dtype=np.int32, like=places)  # CuPy's maximum.at takes no int64
            last = np.full_like(places, -1, np.int32, shape=rows.shape[0])
            np.maximum.at(last, places, order)
            gu = gu * (last[places] == order)[:, None]
        gu = gu.reshape(ctx.values["updates"]).astype(gy.dtype, copy=False)
    return gx, None, gu


def _check_reduction(op: str, x: ArrayType, updates: ArrayType, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise OperandError(f"{op}: reduction={reduction!r} must be one of {', '.join(REDUCTIONS)}")
    if x.dtype != updates.dtype:
        raise DTypeError(f"{op}: x is {x.dtype} but updates are {updates.dtype}; they must have one type")


def _write(op_type: str, op: str, *names: str) -> Callable[[OnnxWriter, Node], str]:
    def write(w: OnnxWriter, node: Node) -> str:
        attributes = {name: node.params[name] for name in names if name in node.params}
        reduction = node.params.get("reduction", "none")
        if reduction != "none":
            oldest = 16 if reduction in ("add", "mul") else 18
            if w.version < oldest:
                raise OperandError(f"{op}: reduction={reduction!r} needs opset={oldest}")
            attributes["reduction"] = reduction
        return w.add(op_type, node.inputs, **attributes)

    return write


# ------------------------------------------------------------------------------------ scatter_nd


def scatter_nd_shape(
    x: ArrayType, indices: ArrayType, updates: ArrayType, reduction: str = "none"
) -> ArrayType:
    _check_indices("scatter_nd", indices)
    _check_reduction("scatter_nd", x, updates, reduction)
    depth = indices.shape[-1] if indices.shape else 0
    if not 1 <= depth <= len(x.shape):
        raise ShapeError(f"scatter_nd: indices of {depth} axes do not fit x {list(x.shape)}")
    wanted = (*indices.shape[:-1], *x.shape[depth:])
    if updates.shape != wanted:
        raise ShapeError(f"scatter_nd: updates have shape {list(updates.shape)} but must be {list(wanted)}")
    return x


def scatter_nd_forward(
    ctx: Context, x: Array, indices: Array, updates: Array, reduction: str = "none"
) -> Array:
    places = _places("scatter_nd", x.shape, indices)
    return _scatter(ctx, "scatter_nd", x, places, updates, indices.shape[-1], reduction)


def scatter_nd_samples() -> Iterator[Sample]:
    yield Sample((5,), np.array([[1], [3], [-1]]), (3,))
    yield Sample((3, 4, 2), np.array([[0, 1], [2, 3], [0, 1]]), (3, 2))
    yield Sample((3, 4), np.array([[0], [0]]), (2, 4), reduction="add")
    for reduction in ("mul", "min", "max"):
        yield Sample((3, 4), np.array([[0], [0]]), (2, 4), reduction=reduction, gradcheck=False)


def scatter_nd_errors() -> Iterator[ErrorSample]:
    one = np.array([[0]])
    yield ErrorSample(OperandError, "index 5 is out of range", (5,), np.array([[5]]), (1,))
    yield ErrorSample(OperandError, "must be one of", (5,), one, (1,), reduction="mean")
    yield ErrorSample(DTypeError, "must be integers", (5,), (1, 1), (1,))
    yield ErrorSample(DTypeError, "one type", (5,), one, np.array([1]))
    yield ErrorSample(ShapeError, "must be .1, 4", (3, 4), one, (1, 3))
    yield ErrorSample(ShapeError, "of 2 axes do not fit", (3,), np.array([[0, 0]]), (1,))


def _read_scatter_nd(n: OnnxNode) -> Any:
    return n.emit("scatter_nd", *n.inputs, reduction=n.attribute("reduction", "none"))


register(
    Op(
        name="scatter_nd",
        formula="y = x but y[indices[i…, 0], indices[i…, 1], …, :] = updates[i…, :], or reduced with what is "
        "there (add, mul, min, max); of several writes to one place the last one stays",
        gradient="gx = gy, 0 where overwritten; gupdates = gy at the places they were written to",
        source="ONNX ScatterND-18",
        shape=scatter_nd_shape,
        forward=scatter_nd_forward,
        backward=_scatter_backward,
        samples=scatter_nd_samples,
        errors=scatter_nd_errors,
        reads={"ScatterND": _read_scatter_nd},
        writes=_write("ScatterND", "scatter_nd"),
    )
)

# ------------------------------------------------------------------------------ scatter_elements


def scatter_elements_shape(
    x: ArrayType, indices: ArrayType, updates: ArrayType, axis: int = 0, reduction: str = "none"
) -> ArrayType:
    op = "scatter_elements"
    _check_indices(op, indices)
    _check_reduction(op, x, updates, reduction)
    (at,) = normalise_axes(op, (axis,), len(x.shape))
    if indices.shape != updates.shape or len(indices.shape) != len(x.shape):
        raise ShapeError(
            f"{op}: indices {list(indices.shape)} and updates {list(updates.shape)} must have one shape, "
            f"of as many axes as x {list(x.shape)}"
        )
    if any(i != at and n > m for i, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True))):
        raise ShapeError(f"{op}: indices {list(indices.shape)} reach beyond x {list(x.shape)}")
    return x


def scatter_elements_forward(
    ctx: Context, x: Array, indices: Array, updates: Array, axis: int = 0, reduction: str = "none"
) -> Array:
    place = np.zeros(indices.shape, np.int64, like=indices)
    for i, size in enumerate(x.shape):
        if i == axis % x.ndim:
            step: Any = _wrapped("scatter_elements", indices, size, i)
        else:
            step = np.arange(indices.shape[i], like=indices).reshape(-1, *[1] * (x.ndim - i - 1))
        place = place * size + step
    return _scatter(ctx, "scatter_elements", x, place.reshape(-1), updates, x.ndim, reduction)


def scatter_elements_samples() -> Iterator[Sample]:
    yield Sample((3, 4), np.array([[1, 0, 2, -1], [2, 2, 0, 1]]), (2, 4), axis=0)
    yield Sample((2, 5), np.array([[1, 3], [1, 1]]), (2, 2), axis=1)
    yield Sample((2, 5), np.array([[1, 1], [4, 0]]), (2, 2), axis=-1, reduction="add")
    for reduction in ("mul", "min", "max"):
        yield Sample((5,), np.array([1, 1, 3]), (3,), axis=0, reduction=reduction, gradcheck=False)


def scatter_elements_errors() -> Iterator[ErrorSample]:
    one = np.array([0])
    yield ErrorSample(OperandError, "index -6 is out of range", (5,), np.array([-6]), (1,))
    yield ErrorSample(OperandError, "must be one of", (5,), one, (1,), reduction="mean")
    yield ErrorSample(DTypeError, "must be integers", (5,), (1,), (1,))
    yield ErrorSample(DTypeError, "one type", (5,), one, np.array([1]))
    yield ErrorSample(ShapeError, "one shape", (5,), one, (2,))
    yield ErrorSample(ShapeError, "reach beyond", (2, 5), np.zeros((3, 1), int), (3, 1), axis=1)
    yield ErrorSample(ShapeError, "out of range", (5,), one, (1,), axis=1)


def _read_scatter_elements(n: OnnxNode) -> Any:
    axis, reduction = n.attribute("axis", 0), n.attribute("reduction", "none")
    return n.emit("scatter_elements", *n.inputs, axis=axis, reduction=reduction)


register(
    Op(
        name="scatter_elements",
        formula="y = x but y[…, indices[i…], …] = updates[i…], the index along axis, or reduced with what is "
        "there (add, mul, min, max); of several writes to one place the last one stays",
        gradient="gx = gy, 0 where overwritten; gupdates = gy at the places they were written to",
        source="ONNX ScatterElements-18; torch.scatter",
        shape=scatter_elements_shape,
        forward=scatter_elements_forward,
        backward=_scatter_backward,
        samples=scatter_elements_samples,
        errors=scatter_elements_errors,
        reads={"ScatterElements": _read_scatter_elements, "Scatter": _read_scatter_elements},
        writes=_write("ScatterElements", "scatter_elements", "axis"),
    )
)
