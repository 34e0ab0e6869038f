"""Channels into pixels and back: depth_to_space (pixel_shuffle) and space_to_depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

MODES = ("DCR", "CRD")
"""Channels counted as [b, b, C] (ONNX's default) or as [C, b, b] (PyTorch's pixel_shuffle)."""


def _check(op: str, x: ArrayType, block: int, mode: str) -> None:
    if len(x.shape) != 4:
        raise ShapeError(f"{op}: x has shape {list(x.shape)} but must be [N,C,H,W]")
    if block < 1:
        raise ShapeError(f"{op}: block={block} must be at least 1")
    if mode not in MODES:
        raise OperandError(f"{op}: mode={mode!r} must be one of {', '.join(MODES)}")
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"{op}: x is {x.dtype}, not a number type")


def _spread(x: Array, block: int, mode: str) -> Array:
    n, channels, h, w = x.shape
    c = channels // (block * block)
    if mode == "DCR":
        parts = x.reshape(n, block, block, c, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return as_array(parts.reshape(n, c, h * block, w * block))


def _gather(x: Array, block: int, mode: str) -> Array:
    n, c, height, width = x.shape
    parts = x.reshape(n, c, height // block, block, width // block, block)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    merged = parts.transpose(order)
    return as_array(merged.reshape(n, c * block * block, height // block, width // block))


def depth_to_space_shape(x: ArrayType, block: int, mode: str) -> ArrayType:
    _check("depth_to_space", x, block, mode)
    n, c, h, w = x.shape
    if c % (block * block):
        raise ShapeError(f"depth_to_space: {c} channels are not a multiple of block² = {block * block}")
    return ArrayType((n, c // (block * block), h * block, w * block), x.dtype)


def space_to_depth_shape(x: ArrayType, block: int, mode: str) -> ArrayType:
    _check("space_to_depth", x, block, mode)
    n, c, h, w = x.shape
    if h % block or w % block:
        raise ShapeError(f"space_to_depth: {h} x {w} pixels are not a multiple of block={block}")
    return ArrayType((n, c * block * block, h // block, w // block), x.dtype)


def depth_to_space_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (_gather(gy, **ctx.params),)


def space_to_depth_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    return (_spread(gy, **ctx.params),)


def _samples(shape: tuple[int, ...]) -> Iterator[Sample]:
    for mode in MODES:
        yield Sample(shape, block=2, mode=mode)
    yield Sample((1, 9, 3, 6), block=3, mode="CRD")


def _errors(bad: tuple[int, ...]) -> Iterator[ErrorSample]:
    good = (1, 4, 2, 2)
    yield ErrorSample(ShapeError, "multiple of block", bad, block=2, mode="DCR")
    yield ErrorSample(ShapeError, "must be .N,C,H,W", (4, 2, 2), block=2, mode="DCR")
    yield ErrorSample(ShapeError, "at least 1", good, block=0, mode="DCR")
    yield ErrorSample(OperandError, "mode='CDR'", good, block=2, mode="CDR")
    yield ErrorSample(DTypeError, "not a number", np.full(good, "a"), block=2, mode="DCR")


def _read(op: str) -> Any:
    def read(n: OnnxNode) -> Any:
        return n.emit(op, n.inputs[0], block=n.attribute("blocksize"), mode=n.attribute("mode", "DCR"))

    return read


def write_space_to_depth(w: OnnxWriter, node: Node) -> str:
    (x,), block = node.inputs, node.params["block"]
    if node.params["mode"] == "DCR":
        return w.add("SpaceToDepth", [x], blocksize=block)
    known = x.type if x is not None else None
    if known is None:
        raise ShapeError("space_to_depth: mode CRD needs the shape of x to be written")
    _, c, h, width = known.shape
    parts = w.add("Reshape", [x, w.host((0, c, h // block, block, width // block, block))])
    parts = w.add("Transpose", [parts], perm=(0, 1, 3, 5, 2, 4))
    return w.add("Reshape", [parts, w.host((0, c * block * block, h // block, width // block))])


register(
    Op(
        name="depth_to_space",
        formula="y[n, c, h·b+i, w·b+j] = x[n, (i·b+j)·C + c, h, w] (DCR) or x[n, c·b² + i·b+j, h, w] (CRD);  "
        "x [N,C·b²,H,W], y [N,C,H·b,W·b], b = block",
        gradient="gx = space_to_depth(gy)",
        source="Shi et al. 2016, arXiv:1609.05158; ONNX DepthToSpace-13; torch.nn.functional.pixel_shuffle",
        shape=depth_to_space_shape,
        forward=lambda ctx, x, block, mode: _spread(x, block, mode),
        backward=depth_to_space_backward,
        samples=lambda: _samples((2, 8, 3, 2)),
        errors=lambda: _errors((1, 6, 2, 2)),
        reads={"DepthToSpace": _read("depth_to_space")},
        writes=lambda w, node: w.add(
            "DepthToSpace", node.inputs, blocksize=node.params["block"], mode=node.params["mode"]
        ),
    )
)
register(
    Op(
        name="space_to_depth",
        formula="the inverse of depth_to_space;  x [N,C,H·b,W·b], y [N,C·b²,H,W], b = block",
        gradient="gx = depth_to_space(gy)",
        source="ONNX SpaceToDepth-13; torch.nn.functional.pixel_unshuffle",
        shape=space_to_depth_shape,
        forward=lambda ctx, x, block, mode: _gather(x, block, mode),
        backward=space_to_depth_backward,
        samples=lambda: _samples((2, 2, 4, 6)),
        errors=lambda: _errors((1, 4, 3, 2)),
        reads={"SpaceToDepth": _read("space_to_depth")},
        writes=write_space_to_depth,
    )
)
