"""Bits of integers: and, or, xor, not, and shifts. Integers carry no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops.elementwise import broadcast_shape
from nnlite.ops.record import ArrayType, Context, ErrorSample, OnnxNode, OnnxWriter, Op, Sample, register

NO_GRADIENT = "none: integers carry no gradient"


def _rule(name: str) -> Callable[..., ArrayType]:
    def rule(*types: ArrayType) -> ArrayType:
        if any(t.dtype.kind not in "iu" for t in types) or len({t.dtype for t in types}) != 1:
            listed = " and ".join(str(t.dtype) for t in types)
            raise DTypeError(f"{name}: operands are {listed} but must be integers of one type")
        return ArrayType(broadcast_shape(name, *(t.shape for t in types)), types[0].dtype)

    return rule


_A, _B = np.array([[12, 10, -7], [5, 3, 0]]), np.array([10, 6, 3])


def _register(name: str, symbol: str, function: Callable[..., Array], onnx: str, operands: int) -> None:
    def errors() -> Iterator[ErrorSample]:
        yield ErrorSample(DTypeError, "must be integers", *[(2, 3)] * operands)
        if operands == 2:
            yield ErrorSample(ShapeError, "do not broadcast", np.ones(3, int), np.ones(4, int))

    register(
        Op(
            name=name,
            formula=f"y = {symbol}, bit by bit, elementwise with broadcasting",
            gradient=NO_GRADIENT,
            source=f"ONNX {onnx}-18; torch.{name}",
            shape=_rule(name),
            forward=lambda ctx, *arrays: function(*arrays),
            backward=None,
            samples=lambda: [
                Sample(*(_A, _B)[:operands]),
                Sample(*(_A.astype(np.uint8), _A.astype(np.uint8))[:operands]),
            ],
            errors=errors,
            reads={onnx: lambda n: n.emit(name, *n.inputs)},
            writes=lambda w, node: w.add(onnx, node.inputs),
        )
    )


for _name, _symbol, _function, _onnx, _operands in (
    ("bitwise_and", "a and b", np.bitwise_and, "BitwiseAnd", 2),
    ("bitwise_or", "a or b", np.bitwise_or, "BitwiseOr", 2),
    ("bitwise_xor", "either a or b", np.bitwise_xor, "BitwiseXor", 2),
    ("bitwise_not", "not x", np.bitwise_not, "BitwiseNot", 1),
):
    _register(_name, _symbol, _function, _onnx, _operands)

# ------------------------------------------------------------------------------------- bit_shift


def bit_shift_shape(x: ArrayType, count: ArrayType, direction: str) -> ArrayType:
    if direction not in ("left", "right"):
        raise OperandError(f"bit_shift: direction={direction!r} must be 'left' or 'right'")
    return _rule("bit_shift")(x, count)


def bit_shift_forward(ctx: Context, x: Array, count: Array, direction: str) -> Array:
    bits = 8 * x.dtype.itemsize
    possible = (count >= 0) & (count < bits)
    safe = np.where(possible, count, 0).astype(x.dtype)
    if direction == "left":
        return np.where(possible, np.left_shift(x, safe), 0).astype(x.dtype)
    # A shift of all bits or more leaves copies of the sign bit.
    return np.where(possible, np.right_shift(x, safe), -(x < 0).astype(np.int8)).astype(x.dtype)


def read_bit_shift(n: OnnxNode) -> object:
    return n.emit("bit_shift", *n.inputs, direction=n.attribute("direction").lower())


def write_bit_shift(w: OnnxWriter, node: Node) -> str:
    return w.add("BitShift", node.inputs, direction=node.params["direction"].upper())


_COUNTS = np.array([[0, 1, 7], [8, 3, 200]], np.uint8)
register(
    Op(
        name="bit_shift",
        formula="y = x · 2^count or ⌊x / 2^count⌋ in the type of x; a negative count, or one of all bits or "
        "more, leaves 0, or -1 where a negative x goes right",
        gradient=NO_GRADIENT,
        source="ONNX BitShift-28; torch.bitwise_left_shift",
        shape=bit_shift_shape,
        forward=bit_shift_forward,
        backward=None,
        samples=lambda: (
            [
                Sample(
                    np.array([[1, 128, 255], [3, 7, 255]], np.uint8), _COUNTS, direction=direction, onnx=False
                )
                for direction in ("left", "right")
            ]
            + [
                Sample(np.array([1, 5, 200], np.uint8), np.array([1, 2, 3], np.uint8), direction="right"),
                Sample(np.array([-8, -1, 7]), np.array([1, 70, -1]), direction="right", onnx=False),
            ]
        ),
        errors=lambda: [
            ErrorSample(OperandError, "must be 'left' or 'right'", _A, _A, direction="up"),
            ErrorSample(DTypeError, "must be integers", (2,), (2,), direction="left"),
            ErrorSample(ShapeError, "do not broadcast", _B, np.ones(2, int), direction="left"),
        ],
        reads={"BitShift": read_bit_shift},
        writes=write_bit_shift,
    )
)
